"""A tokenizer whose tokens are letters, so that what it makes of a text can be written out by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from string import ascii_letters
from typing import Any

import h5py
import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models

from bossa.prepare import Report, Settings, prepare
from bossa.tokenizer import Tokenizer, read_tokenizer_files

LETTERS = " .?!:<>|\n" + ascii_letters
END = len(LETTERS)
TEMPLATE = (
    "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}"
    "{{ '<end>\n' if m.role == 'assistant' else '!' }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder, with a tokenizer."""
    folder = tmp_path_factory.mktemp("letters")
    vocabulary = {letter: number for number, letter in enumerate(LETTERS)}
    backend = Backend(models.BPE(vocabulary, [], byte_fallback=False))
    backend.add_special_tokens(["<end>"])
    assert backend.token_to_id("<end>") == END
    backend.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<end>", "tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    return folder


def ids(text: str) -> list[int]:
    """The ids of a text; ``$`` is an end token."""
    return [END if letter == "$" else LETTERS.index(letter) for letter in text]


@pytest.fixture
def run(model: Path, tmp_path: Path) -> Callable[..., tuple[Path, Report]]:
    """Prepares records, or what is at paths, in a folder of its own."""

    def prepared(records: Sequence[Any] | None = None, *paths: str, name: str = "out", **options: Any) -> Any:
        if records is not None:
            path = tmp_path / "records.jsonl"
            path.write_text("".join(json.dumps(record) + "\n" for record in records))
            paths = (str(path),)
        settings = Settings(**{"max_seq_length": 12, **options.pop("settings", {})})
        files = read_tokenizer_files(model)
        output = tmp_path / name
        return output, prepare(paths, output, files, Tokenizer.from_directory(model), settings, **options)

    return prepared


def rows(path: Path, name: str = "input_ids") -> list[list[int]]:
    with h5py.File(path) as file:
        found: list[list[int]] = np.array(file[name]).tolist()
        return found


def all_rows(folder: Path, split: str = "train", name: str = "input_ids") -> list[list[int]]:
    """Those of all files of a split, in their order."""
    paths = sorted(folder.glob(f"{split}_*.hdf5"), key=lambda path: int(path.name.split("_")[1]))
    return [row for path in paths for row in rows(path, name)]
