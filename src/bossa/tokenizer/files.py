"""The files of a tokenizer, and the tokenizer of the tokenizers library that they describe."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bossa.errors import TokenizerError

if TYPE_CHECKING:
    import tokenizers

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
"""What describes a tokenizer; ``vocab.json`` and ``merges.txt`` stand in for the first."""
PAIR = ("vocab.json", "merges.txt")
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
AS_WRITTEN = ("", "TokenizersBackend", "PreTrainedTokenizerFast", "PreTrainedTokenizer")
"""Classes that take ``tokenizer.json`` as it is; others set ``add_prefix_space`` from the config."""
ENDOFTEXT = "<|endoftext|>"
TOKEN_FLAGS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")


def read_tokenizer_files(directory: str | os.PathLike[str]) -> dict[str, bytes]:
    """The files in ``directory`` that make its tokenizer, by name: what a PEF keeps.

    Raises:
        TokenizerError: there is no tokenizer, or a file cannot be read.
    """
    folder = Path(directory)
    names = [name for name in FILES if (folder / name).is_file()]
    if "tokenizer.json" not in names:
        if not all((folder / name).is_file() for name in PAIR):
            raise _none_found(folder)
        names += PAIR
    try:
        return {name: (folder / name).read_bytes() for name in names}
    except OSError as error:
        raise TokenizerError(f"{folder}: its tokenizer cannot be read ({error.strerror}): check permissions") from None


def shorten(data: bytes) -> bytes:
    """``tokenizer.json`` in fewer bytes, which are read in two thirds of the time: without space, and merges as "a b".

    What makes another tokenizer in this form, or none, is given back as it is.
    """
    import tokenizers

    try:
        content = json.loads(data)
        merges = content["model"].get("merges") or []
        if all(isinstance(merge, list) and not any(" " in part for part in merge) for merge in merges):
            content["model"]["merges"] = [" ".join(merge) for merge in merges]
        short = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
        same = tokenizers.Tokenizer.from_str(short).to_str() == tokenizers.Tokenizer.from_buffer(data).to_str()
    except Exception:  # the library raises plain Exception, and an odd file is not this function's to refuse
        return data
    return short.encode() if same else data


def _none_found(folder: Path) -> TokenizerError:
    if (folder / "tokenizer.model").is_file():
        return TokenizerError(
            f"{folder}: has a tokenizer.model but no tokenizer.json: convert it with transformers"
            " (AutoTokenizer.from_pretrained(...).save_pretrained(...)), or pass a directory that has one"
        )
    return TokenizerError(
        f"{folder}: has no tokenizer (tokenizer.json, or vocab.json and merges.txt): pass a directory that has one"
    )


def build(files: Mapping[str, bytes], config: dict[str, Any], where: str) -> tokenizers.Tokenizer:
    """The tokenizer that the files describe; what is missing in ``config`` and follows from them is filled in.

    Raises:
        TokenizerError: there is neither ``tokenizer.json`` nor ``vocab.json`` and ``merges.txt``, or one is damaged.
    """
    if "tokenizer.json" in files:
        backend = _from_json(files["tokenizer.json"], config, where)
    elif all(name in files for name in PAIR):
        backend = _from_vocabulary(files, config, where)
    else:
        raise TokenizerError(
            f"{where}: has no tokenizer (tokenizer.json, or vocab.json and merges.txt): pass a directory that has one"
            " with --model_name_or_path"
        )
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = bool(config.get("split_special_tokens", False))
    _add_tokens(backend, files, config, where)
    return backend


def read_config(files: Mapping[str, bytes], where: str) -> dict[str, Any]:
    """The tokenizer's settings: ``tokenizer_config.json``, and the special tokens of older files beside it."""
    config = _object(files, "tokenizer_config.json", where)
    if "added_tokens_decoder" not in config:
        config.update(_object(files, "special_tokens_map.json", where))
    return config


def _object(files: Mapping[str, bytes], name: str, where: str) -> dict[str, Any]:
    if name not in files:
        return {}
    try:
        value = json.loads(bytes(files[name]).decode("utf-8"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise TokenizerError(f"{where}: {name} is not a JSON object: fetch the tokenizer again")
    return value


def _from_json(data: bytes, config: Mapping[str, Any], where: str) -> tokenizers.Tokenizer:
    import tokenizers

    try:
        backend = tokenizers.Tokenizer.from_buffer(bytes(data))
    except Exception as error:  # the library raises plain Exception
        reason = str(error).splitlines()[0][:120] if str(error) else "unknown reason"
        raise TokenizerError(f"{where}: tokenizer.json cannot be read ({reason}): fetch the tokenizer again") from None
    kind = str(config.get("tokenizer_class") or "").removesuffix("Fast")
    wanted = config.get("add_prefix_space")
    own = backend.pre_tokenizer
    if isinstance(wanted, bool) and kind not in AS_WRITTEN and isinstance(own, tokenizers.pre_tokenizers.ByteLevel):
        own.add_prefix_space = wanted
        backend.pre_tokenizer = own
    return backend


def _from_vocabulary(files: Mapping[str, bytes], config: dict[str, Any], where: str) -> tokenizers.Tokenizer:
    """The byte-level BPE of GPT-2, from its two files."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, processors

    vocabulary = _object(files, "vocab.json", where)
    try:
        lines = bytes(files["merges.txt"]).decode("utf-8").split("\n")
        merges = [(left, right) for line in lines if not line.startswith("#version") for left, right in _pair(line)]
        model = models.BPE(vocab=vocabulary, merges=merges, fuse_unk=False)
    except Exception as error:  # the library raises plain Exception
        reason = str(error).splitlines()[0][:120] if str(error) else "unknown reason"
        raise TokenizerError(
            f"{where}: vocab.json and merges.txt do not go together ({reason}): fetch the tokenizer again"
        ) from None
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(config.get("add_prefix_space", False)))
    backend.decoder = decoders.ByteLevel()
    for key in ("bos_token", "eos_token", "unk_token"):
        if key not in config and ENDOFTEXT in vocabulary:
            config[key] = ENDOFTEXT
    ends = [(key, content(config.get(key))) for key in ("bos_token", "eos_token")]
    around = {key: text for key, text in ends if text in vocabulary and config.get(f"add_{key}")}
    if around:
        parts = [around.get("bos_token"), "$A", around.get("eos_token")]
        backend.post_processor = processors.TemplateProcessing(
            single=" ".join(part for part in parts if part),
            special_tokens=[(text, vocabulary[text]) for text in dict.fromkeys(around.values())],
        )
    return backend


def _pair(line: str) -> list[tuple[str, str]]:
    left, _, right = line.strip("\r").partition(" ")
    return [(left, right)] if left and right else []


def _add_tokens(
    backend: tokenizers.Tokenizer, files: Mapping[str, bytes], config: Mapping[str, Any], where: str
) -> None:
    """Adds the tokens that the config names and the vocabulary lacks, in transformers' order."""
    from tokenizers import AddedToken

    try:
        described = dict(config.get("added_tokens_decoder") or {})
        added = {
            text: AddedToken(**_flags(item))
            for _, item in sorted(described.items(), key=_number)
            if (text := item["content"])
        }
        if not described and "added_tokens.json" in files:
            named = {content(config.get(key)) for key in NAMED}
            for text, _ in sorted(_object(files, "added_tokens.json", where).items(), key=lambda item: item[1]):
                added.setdefault(text, AddedToken(text, normalized=text not in named, special=text in named))
        backend.add_tokens(list(added.values()))
        special = []
        more = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
        listed = list(more.values()) if isinstance(more, dict) else list(more)
        for value in [*(config.get(key) for key in NAMED), *listed]:
            text = content(value)
            if not text:
                continue
            if isinstance(value, dict):
                special.append(AddedToken(**{**_flags(value), "special": True}))
            elif text in added:
                special.append(added[text])
            elif backend.token_to_id(text) is None or text not in _added(backend):
                special.append(AddedToken(text, special=True, normalized=False))
        backend.add_special_tokens(special)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise TokenizerError(
            f"{where}: the tokens that tokenizer_config.json adds are garbled: fetch the tokenizer again"
        ) from None


def _added(backend: tokenizers.Tokenizer) -> set[str]:
    return {token.content for token in backend.get_added_tokens_decoder().values()}


def _number(item: tuple[str, Any]) -> int:
    return int(item[0])


def _flags(item: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key in TOKEN_FLAGS}


def content(value: Any) -> str:
    """The text of a token that a config gives as text or as an object."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def chat_template(files: Mapping[str, bytes], config: Mapping[str, Any]) -> str | None:
    """The default chat template: a file of its own comes before the config."""
    if "chat_template.jinja" in files:
        return bytes(files["chat_template.jinja"]).decode("utf-8", "replace")
    template = config.get("chat_template")
    if isinstance(template, list):
        template = {item.get("name"): item.get("template") for item in template if isinstance(item, dict)}
    if isinstance(template, dict):
        template = template.get("default")
    return template if isinstance(template, str) else None
