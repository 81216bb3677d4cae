"""The files of a tokenizer: those of a directory, and the form in which a PEF keeps them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bossa.checks.vocabulary import check_ids
from bossa.errors import TokenizerError
from bossa.tokenizer.bounds import check_before
from bossa.tokenizer.classes import AS_WRITTEN
from bossa.tokenizer.library import call

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "config.json",
)
"""What describes a tokenizer, the model's config for its type; ``vocab.json`` and ``merges.txt`` stand in for the
first."""
PAIR = ("vocab.json", "merges.txt")
TEMPLATES = "additional_chat_templates"
"""A folder of more chat templates, each named by its file."""
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
LARGEST = 1 << 29
"""Bytes in one file; the largest tokenizers have some 40 MB."""


def read_tokenizer_files(directory: str | os.PathLike[str]) -> dict[str, bytes]:
    """The files in ``directory`` that make its tokenizer, by name.

    Raises:
        TokenizerError: there is no tokenizer, or a file cannot be read or is none of its kind.
    """
    folder = Path(directory)
    names = [name for name in FILES if (folder / name).is_file()]
    if "tokenizer.json" not in names:
        if not all((folder / name).is_file() for name in PAIR):
            raise _none_found(folder)
        names += PAIR
    names += sorted(f"{TEMPLATES}/{path.name}" for path in (folder / TEMPLATES).glob("*.jinja") if path.is_file())
    return {name: _read(folder, name) for name in names}


def _read(folder: Path, name: str) -> bytes:
    path = folder / name
    try:
        if path.stat().st_size > LARGEST:
            raise TokenizerError(f"{path}: is larger than {LARGEST >> 20} MiB, which no tokenizer is: fetch it again")
        data = path.read_bytes()
    except OSError as error:
        raise TokenizerError(f"{folder}: its tokenizer cannot be read ({error.strerror}): check permissions") from None
    refuse_pointer(data, str(path))
    return data


def refuse_pointer(data: bytes, where: str) -> None:
    """Raise where the file is only what Git LFS keeps in a file's place.

    Raises:
        TokenizerError: it is.
    """
    if bytes(data[: len(LFS_POINTER)]) == LFS_POINTER:
        raise TokenizerError(f"{where}: is a Git LFS pointer, not the file itself: fetch it with git lfs pull")


def settled(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Files that transformers saved, in the form in which a PEF keeps them.

    What it saves in ``tokenizer.json`` is what its class made of the model's files. So the class has done its work,
    and the file is to be taken as it is from here.
    """
    kept = dict(files)
    if "tokenizer.json" in kept:
        kept["tokenizer.json"] = shorten(kept["tokenizer.json"])
        config = read_object(kept, "tokenizer_config.json", "the saved tokenizer")
        kept["tokenizer_config.json"] = json.dumps(
            config | {"tokenizer_class": AS_WRITTEN}, indent=1, ensure_ascii=False
        ).encode()
    return kept


def shorten(data: bytes) -> bytes:
    """``tokenizer.json`` in fewer bytes, which are read in two thirds of the time: without space, and merges as "a b".

    What makes another tokenizer in this form, or none, is given back as it is.
    """
    try:
        check_ids(data, "tokenizer.json")
        check_before(data, "tokenizer.json")
        content = json.loads(data)
        merges = content["model"].get("merges") or []
        if all(isinstance(merge, list) and not any(" " in part for part in merge) for merge in merges):
            content["model"]["merges"] = [" ".join(merge) for merge in merges]
        short = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
        same = call(TokenizerError, _written, short.encode()) == call(TokenizerError, _written, data)
    except Exception:  # the library raises plain Exception, and an odd file is not this function's to refuse
        return data
    return short.encode() if same else data


def _written(data: bytes) -> str:
    """What the library writes for what it reads."""
    import tokenizers

    return str(tokenizers.Tokenizer.from_buffer(data).to_str())


def _none_found(folder: Path) -> TokenizerError:
    if (folder / "tokenizer.model").is_file():
        return TokenizerError(
            f"{folder}: has a tokenizer.model but no tokenizer.json: convert it with transformers"
            " (AutoTokenizer.from_pretrained(...).save_pretrained(...)), or pass a directory that has one"
        )
    return TokenizerError(
        f"{folder}: has no tokenizer (tokenizer.json, or vocab.json and merges.txt): pass a directory that has one"
    )


def read_object(files: Mapping[str, bytes], name: str, where: str) -> dict[str, Any]:
    """A file that holds a JSON object; an empty one where there is no such file.

    Raises:
        TokenizerError: it holds something else.
    """
    if name not in files:
        return {}
    refuse_pointer(files[name], f"{where}: {name}")
    try:
        value = json.loads(bytes(files[name]).decode("utf-8"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise TokenizerError(f"{where}: {name} is not a JSON object: fetch the tokenizer again")
    return value


def chat_templates(files: Mapping[str, bytes], config: Mapping[str, Any]) -> dict[str, str]:
    """The chat templates by name, ``default`` among them; files of their own come before the config."""
    named = {
        name.removeprefix(f"{TEMPLATES}/").removesuffix(".jinja"): bytes(data).decode("utf-8", "replace")
        for name, data in files.items()
        if name.startswith(f"{TEMPLATES}/")
    }
    if "chat_template.jinja" in files:
        named["default"] = bytes(files["chat_template.jinja"]).decode("utf-8", "replace")
    if named:
        return named
    template = config.get("chat_template")
    if isinstance(template, list):
        template = {item.get("name"): item.get("template") for item in template if isinstance(item, dict)}
    if isinstance(template, str):
        template = {"default": template}
    if not isinstance(template, dict):
        return {}
    return {str(name): text for name, text in template.items() if isinstance(text, str)}
