"""The numbers of a config that its class has read: what transformers lets through, and no model can have.

Transformers checks the types of the fields that a configuration class declares, and little else: a number of layers
below zero builds a model without any.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from transformers import PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from bossa.errors import shown
from bossa.frontend.config import check_quantization, refused

LARGEST = 2**31 - 1

_SIZE = re.compile(
    r"(num|n)_[a-z0-9_]+|(.+_)?(size|dim|heads?|layers?|embeddings|positions|length|len|rank|ctx|embd|inner|experts)"
)
_NOT_SIZES = re.compile(r".*(_ids?|_idx|_index|_window)|(pad|max|min)_length|.*_window_(size|layers?)|num_labels")
_EPSILON = re.compile(r"(.+_)?(eps|epsilon)")


def check(config: PretrainedConfig, where: str) -> None:
    """Look at a config as its class has understood it.

    Raises:
        ModelError: a size or another number is one that no model can have; the message names the field.
    """
    check_quantization({"quantization_config": _own(config, "quantization_config")}, where)
    for part, prefix in _parts(config):
        defaults = _defaults(type(part))
        for name in defaults.keys() & vars(part).keys() if defaults else vars(part).keys():
            value = vars(part)[name]
            if value == defaults.get(name, None) or isinstance(value, bool):
                continue
            field = prefix + spelled(part, name)
            if isinstance(value, int) and _is_size(part, name):
                if value < 0:
                    raise refused(where, field, value, "1 or more")
                if value > LARGEST:
                    raise refused(where, field, value, f"{LARGEST:,} at most")
            if isinstance(value, float) and _EPSILON.fullmatch(name) and not 0 <= value < math.inf:
                raise refused(where, field, value, "a number from 0")
            if isinstance(value, float) and not math.isfinite(value):
                raise refused(where, field, value, "a finite number")
        if prefix == "" or prefix == "text_config.":
            _check_together(part, where, prefix)


def zeros(config: PretrainedConfig) -> list[str]:
    """The sizes that are 0 where the class has something else, for messages."""
    return [
        prefix + spelled(part, name)
        for part, prefix in _parts(config)
        for name, default in _defaults(type(part)).items()
        if type(value := _own(part, name)) is int and value == 0 != default and _is_size(part, name)
    ]


def unknown_name(config: PretrainedConfig, missing: object) -> tuple[str, str]:
    """The field whose text a ``KeyError`` is about, and the text, for messages; both empty where there is none."""
    found = (
        (prefix + name, text)
        for part, prefix in _parts(config)
        for name, text in vars(part).items()
        if isinstance(text, str) and name != "model_type" and missing in (text, f"function {text} not found")
    )
    return next(found, ("", ""))


def odd_rotation(config: PretrainedConfig) -> str:
    """What gives rotary positions an odd size, which turns numbers in pairs, for messages; or nothing."""
    for part, prefix in _parts(config):
        names = ["rotary_dim", "qk_rope_head_dim"]
        rotates = isinstance(_own(part, "rope_parameters"), Mapping)
        if rotates:
            names.append("head_dim")
        for name in names:
            if _is_odd(size := _own(part, name)):
                return f"{prefix}{spelled(part, name)} is {size}"
        width, heads = _own(part, "hidden_size"), _own(part, "num_attention_heads")
        counts = type(width) is int and type(heads) is int and heads > 0
        if rotates and _own(part, "head_dim") is None and counts and _is_odd(size := width // heads):
            fields = " / ".join(prefix + spelled(part, name) for name in ("hidden_size", "num_attention_heads"))
            return f"{fields} is {size}"
    return ""


def _is_odd(size: Any) -> bool:
    return type(size) is int and size > 1 and size % 2 == 1


def zeros_of(raw: Any, path: str = "") -> list[str]:
    """The sizes that are 0 in a config as it is written, for messages."""
    found = []
    for key, value in raw.items() if isinstance(raw, Mapping) else ():
        field = f"{path}.{shown(key)[:60]}" if path else shown(key)[:60]
        if type(value) is int and value == 0 and _SIZE.fullmatch(str(key)) and not _NOT_SIZES.fullmatch(str(key)):
            found.append(field)
        found += zeros_of(value, field)
    return found


def spelled(config: PretrainedConfig, name: str) -> str:
    """The name that a field has in the model's own config."""
    return config.attribute_map.get(name, name)


def _check_together(config: PretrainedConfig, where: str, prefix: str) -> None:
    """What two sizes must be to each other.

    Classes keep fields that they do not use, so only what differs from their own is looked at.
    """
    layers, heads, groups = (
        _own(config, name) for name in ("num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    )
    if type(layers) is int and layers < 1:
        raise refused(where, prefix + spelled(config, "num_hidden_layers"), layers, "1 or more")
    field = spelled(config, "num_key_value_heads")
    differs = type(groups) is int and groups and groups != _defaults(type(config)).get(field)
    if differs and type(heads) is int and heads % groups:
        wanted = f"a divisor of {spelled(config, 'num_attention_heads')}, which is {heads}"
        raise refused(where, prefix + field, groups, wanted)
    _check_rope(_own(config, "rope_parameters"), where, f"{prefix}rope_parameters")


def _check_rope(given: Any, where: str, field: str) -> None:
    """What rotary positions are made of: also where each type of layer has its own."""
    if not isinstance(given, Mapping):
        return
    for name, value in given.items():
        if isinstance(value, Mapping):
            _check_rope(value, where, f"{field}.{shown(name)[:60]}")
    kind = given.get("rope_type")
    known = ("default", *ROPE_INIT_FUNCTIONS)
    if kind is not None and (not isinstance(kind, str) or kind not in known):
        raise refused(where, f"{field}.rope_type", kind, f"one of {', '.join(sorted(set(known)))}")
    for name in ("rope_theta", "factor", "original_max_position_embeddings"):
        value = given.get(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and 0 < value < math.inf):
            raise refused(where, f"{field}.{name}", value, "a number above 0")


def _own(config: PretrainedConfig, name: str) -> Any:
    """A field as it is held: configs whose layers differ refuse to give some by their names."""
    return vars(config).get(spelled(config, name))


def _parts(config: PretrainedConfig, prefix: str = "") -> Iterator[tuple[PretrainedConfig, str]]:
    """A config and those inside it, each with what stands before its fields' names."""
    yield config, prefix
    for name, value in vars(config).items():
        if isinstance(value, PretrainedConfig):
            yield from _parts(value, f"{prefix}{name}.")


def _defaults(kind: type[PretrainedConfig]) -> dict[str, Any]:
    """The fields that a configuration class declares itself; none where it is of an older kind."""
    if not dataclasses.is_dataclass(kind):
        return {}
    return {field.name: field.default for field in dataclasses.fields(kind)}


def _is_size(config: PretrainedConfig, name: str) -> bool:
    names = (name, *(standard for standard, own in config.attribute_map.items() if own == name))
    return any(_SIZE.fullmatch(n) and not _NOT_SIZES.fullmatch(n) for n in names)
