"""What lies beside the data: ``metadata.yaml`` and the tokenizer, held against the model's own."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bossa.errors import DatasetError, shown
from bossa.train.articles import Articles
from bossa.train.model import Loaded

NAME = "metadata.yaml"


def tokenizer_files(loaded: Loaded) -> dict[str, bytes]:
    """The tokenizer's files by name, nothing where the model has none."""
    with tempfile.TemporaryDirectory() as folder:
        return loaded.tokenizer_files(Path(folder))


def check(folder: Path, loaded: Loaded, max_seq_length: int | None) -> None:
    """Hold what ``metadata.yaml`` says, where there is one, against the model.

    Raises:
        DatasetError: there is no such folder; or the data are of another tokenizer or length.
    """
    if not folder.is_dir():
        raise DatasetError(f"{shown(folder)}: no such folder: give --data_dir the one that bossa prepare wrote")
    found = _read(folder / NAME)
    vocabulary = found.get("vocab_size")
    have = loaded.model.get_input_embeddings().weight.shape[0]
    if isinstance(vocabulary, int) and vocabulary > have:
        raise DatasetError(
            f"{shown(folder / NAME)}: vocab_size is {vocabulary}, and the model has {have}: the data were made with"
            " another tokenizer; prepare them with the model's own"
        )
    length = found.get("max_seq_length")
    if max_seq_length is not None and isinstance(length, int) and length != max_seq_length:
        raise DatasetError(
            f"{shown(folder / NAME)}: max_seq_length is {length}, and --max_seq_length {max_seq_length} is asked for:"
            " give the same, or leave it out"
        )


def check_tokenizer(folder: Path, tokenizer: Mapping[str, bytes]) -> None:
    """Hold the tokenizer that lies beside the data against the model's own, token by token.

    Raises:
        DatasetError: a token has another id in the one than in the other.
    """
    path = folder / "tokenizer" / "tokenizer.json"
    if not path.exists() or "tokenizer.json" not in tokenizer:
        return
    try:
        theirs = _ids(path.read_bytes())
    except (OSError, ValueError, KeyError, TypeError):
        raise DatasetError(f"{shown(path)}: cannot be read: prepare the data again") from None
    ours = _ids(tokenizer["tokenizer.json"])
    if (token := next((token for token in theirs if theirs[token] != ours.get(token)), None)) is not None:
        raise DatasetError(
            f"{shown(folder)}: the data were made with another tokenizer: {shown(repr(token))} is token {theirs[token]}"
            f" there, and {ours.get(token, 'none')} in the model's: prepare them with the model's own"
        )


def _ids(data: bytes) -> dict[str, int]:
    """Id by token of a tokenizer.json, whose vocabulary is a mapping or a list with scores."""
    whole = json.loads(data)
    vocabulary = whole["model"]["vocab"]
    ids = dict(vocabulary) if isinstance(vocabulary, dict) else {entry[0]: at for at, entry in enumerate(vocabulary)}
    return ids | {entry["content"]: entry["id"] for entry in whole.get("added_tokens") or ()}


def check_lengths(folder: Path, loaded: Loaded, splits: Sequence[Articles | None]) -> None:
    """Raises:
    DatasetError: an article is longer than the model has positions for.
    """
    limit = getattr(loaded.model.config, "max_position_embeddings", None)
    longest = max(int(split.lengths.max()) for split in splits if split is not None)
    if isinstance(limit, int) and longest > limit:
        raise DatasetError(
            f"{shown(folder)}: an article has {longest} tokens, and the model has positions for {limit}: prepare the"
            f" data with --max_seq_length {limit}"
        )


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DatasetError(
            f"{shown(path)}: cannot be read ({str(error).splitlines()[0]}): prepare the data again"
        ) from None
    return found if isinstance(found, dict) else {}
