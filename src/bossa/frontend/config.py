"""A model's ``config.json``, read and looked at as it is written, before transformers makes anything of it.

A file may be something else than the configuration of a model whose weights can be read, and a few numbers would have a
configuration class count to the end of time. What else no model can be is looked at in `bossa.frontend.sizes`.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from bossa.errors import ModelError, shown
from bossa.frontend.reasons import one_line

LARGEST_FILE = 16 << 20
"""Bytes. Those of published models are some kilobytes."""
DEEPEST = 40
MOST_LAYERS = 1024
MOST_REPEATS = 1 << 20
"""Of what a list of lists repeats, as the attention types of GPT-Neo do."""

_LFS = b"version https://git-lfs"
_LAYERS = re.compile(r"(num_|n_)?([a-z]+_)?(?<!window_)layers?")


def read(path: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        name: what the file is called in messages.

    Raises:
        ModelError: it is something else, with what to do about it.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ModelError(f"{name}: is larger than {LARGEST_FILE >> 20} MiB, so it is no config: fetch it again")
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{name}: cannot be read ({error.strerror}): check the path and its permissions") from None
    if data.startswith(_LFS):
        raise ModelError(
            f"{name}: is a Git LFS pointer and not the file itself: fetch the files with 'git lfs pull',"
            " or with 'hf download'"
        )
    if data.startswith(codecs.BOM_UTF8):
        raise ModelError(f"{name}: begins with a byte order mark: save it as UTF-8 without one")
    try:
        value = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise ModelError(f"{name}: is not UTF-8 text: fetch it again") from None
    except RecursionError:
        raise ModelError(f"{name}: is nested too deeply to be a config: fetch it again") from None
    except ValueError as error:
        raise ModelError(f"{name}: is not JSON ({one_line(error)}): fetch it again") from None
    if not isinstance(value, dict):
        raise ModelError(f"{name}: is not a JSON object but {_kind(value)}: fetch it again")
    if _is_deep(value):
        raise ModelError(f"{name}: is nested too deeply to be a config: fetch it again")
    return value


def _is_deep(value: Any) -> bool:
    """Whether lists and objects are nested more than `DEEPEST` times."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def check_raw(raw: Mapping[str, Any], where: str) -> None:
    """Look at a config as it is written, before a configuration class makes something of it.

    Raises:
        ModelError: it is an adapter's, or of quantized weights, or has a value that no model can have.
    """
    if "peft_type" in raw:
        raise ModelError(adapter(where, raw))
    for key, kind, what in (
        ("model_type", str, "text"),
        ("auto_map", dict, "an object"),
        ("architectures", list, "a list of texts"),
    ):
        value = raw.get(key)
        fits = isinstance(value, kind) and (kind is not list or all(isinstance(name, str) for name in value))
        if value is not None and not fits:
            raise refused(where, key, value, what)
    for name, code in (raw.get("auto_map") or {}).items():
        listed = code if isinstance(code, list) else [code]
        if not all(isinstance(one, str | None) for one in listed):
            raise refused(where, f"auto_map.{shown(name)[:60]}", code, "the name of a class")
    for part in (raw, *(raw[name] for name in ("text_config", "decoder") if isinstance(raw.get(name), Mapping))):
        check_quantization(part, where)
    for key in ("torch_dtype", "dtype"):
        if not _is_dtype(raw.get(key)):
            raise refused(where, key, raw[key], "the name of one of torch's types, as float32")
    check_numbers(raw, where)
    for path, value in _numbers(raw):
        key = path.rpartition(".")[2]
        if isinstance(value, int) and _LAYERS.fullmatch(key) and value > MOST_LAYERS:
            raise refused(where, path, value, f"{MOST_LAYERS:,} at most")
        if path.endswith("[][]") and abs(value) > MOST_REPEATS:
            raise refused(where, path.rstrip("[]"), value, f"of numbers up to {MOST_REPEATS:,}")


def check_numbers(raw: Mapping[str, Any], where: str) -> None:
    """Refuse NaN, which Python's JSON has and a config never means.

    Raises:
        ModelError: the message names the field.
    """
    for path, value in _numbers(raw):
        if isinstance(value, float) and math.isnan(value):
            raise refused(where, path, value, "a number")


def adapter(where: str, raw: Mapping[str, Any]) -> str:
    """What is said of an adapter that is given for a model."""
    base = raw.get("base_model_name_or_path")
    of = f" of {shown(base)}" if isinstance(base, str) and base and len(base) < 200 else ""
    kind = raw.get("peft_type")
    name = f" ({shown(kind)})" if isinstance(kind, str) and len(kind) < 40 else ""
    return (
        f"{where}: is an adapter{name}{of}, and not a model: merge it into its model first (merge_and_unload() and"
        " save_pretrained() of peft), and compile what comes out"
    )


def check_quantization(raw: Mapping[str, Any], where: str) -> None:
    """Refuse a config whose checkpoint has quantized weights.

    Raises:
        ModelError: the message names the method, and what to do.
    """
    for key in ("quantization_config", "compression_config"):
        given = raw.get(key)
        if given is None:
            continue
        if hasattr(given, "to_dict"):
            given = given.to_dict()
        method, bits = "an unknown method", ""
        if isinstance(given, Mapping):
            if given.get("load_in_8bit") is False and given.get("load_in_4bit") is False:
                continue  # as bitsandbytes writes it where nothing is quantized
            named = given.get("quant_method") or given.get("quant_algo") or ("bitsandbytes" if _is_bnb(given) else None)
            named = getattr(named, "value", named)
            method = shown(named)[:40] if isinstance(named, str) else method
            bits = f", {given['bits']} bits" if type(given.get("bits")) is int else ""
        raise ModelError(
            f"{where}: {key} says that the weights are quantized by {method}{bits}, which cannot be read: compile and"
            " run the unquantized model (--precision int8 or int4 quantizes it), or remove the field from the config if"
            " the weights are not quantized"
        )


def _is_bnb(given: Mapping[str, Any]) -> bool:
    return any(str(key).startswith(("bnb_", "load_in_")) for key in given)


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, int | float]]:
    """All numbers in a JSON value, each with where it stands; a list is ``[]``."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, f"{path}.{shown(key)[:60]}" if path else shown(key)[:60])
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _numbers(inner, f"{path}[]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value


def _is_dtype(value: Any) -> bool:
    if value is None or isinstance(value, torch.dtype) or value == "auto":
        return True
    if isinstance(value, Mapping):  # of each part of the model
        return all(_is_dtype(inner) for inner in value.values())
    return isinstance(value, str) and isinstance(getattr(torch, value.removeprefix("torch."), None), torch.dtype)


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text", bool: "a truth value", type(None): "null"}.get(type(value), "a number")


def refused(where: str, field: str, value: Any, wanted: str) -> ModelError:
    huge = isinstance(value, int) and abs(value) >= 10**40
    text = "a huge number" if huge else shown(repr(value))
    text = text if len(text) <= 60 else text[:59] + "…"
    return ModelError(f"{where}: {field} is {text}; it must be {wanted}: correct the config")
