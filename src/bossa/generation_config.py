"""``generation_config.json``: what of it changes transformers' output and is not followed here, and its token ids.

What counts as set, and what is neutral, is as in transformers' ``generate``: each field below is left out of its
logits processors at the values that are neutral here. Files are others' work, so a value may be of any type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bossa.errors import ModelError, shown

TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
INNER_CONFIGS = ("decoder", "generator", "text_config")
"""Where transformers looks for values that a model's config does not have at its top."""

_LONGEST_SHOWN = 40

Neutral = Callable[[Any], bool]


def _at_most(limit: float) -> Neutral:
    return lambda value: isinstance(value, int | float) and value <= limit


def _equals(neutral: float) -> Neutral:
    return lambda value: isinstance(value, int | float) and value == neutral


def _empty(value: Any) -> bool:
    return value is False or (isinstance(value, list | tuple | dict | str) and not value)


GREEDY: dict[str, Neutral] = {
    "repetition_penalty": _equals(1),
    "encoder_repetition_penalty": _equals(1),
    "no_repeat_ngram_size": _at_most(0),
    "encoder_no_repeat_ngram_size": _at_most(0),
    "bad_words_ids": _empty,
    "force_words_ids": _empty,
    "constraints": _empty,
    "suppress_tokens": _empty,
    "begin_suppress_tokens": _empty,
    "sequence_bias": _empty,
    "forced_bos_token_id": _empty,
    "forced_eos_token_id": _empty,
    "min_length": _at_most(0),
    "min_new_tokens": _at_most(0),
    "exponential_decay_length_penalty": _empty,
    "guidance_scale": _equals(1),
    "watermarking_config": _empty,
    "num_beams": _at_most(1),
    "num_beam_groups": _at_most(1),
    "diversity_penalty": _equals(0),
    "penalty_alpha": _equals(0),
    "dola_layers": _empty,
    "token_healing": _empty,
    "stop_strings": _empty,
}
"""What changes the likeliest continuation, with the values at which it does not. None is neutral for each."""

SAMPLING: dict[str, Neutral] = {
    "temperature": _equals(1),
    "top_k": _at_most(0),
    "top_p": lambda value: isinstance(value, int | float) and value >= 1,
    "min_p": _equals(0),
    "top_h": _empty,
    "typical_p": lambda value: isinstance(value, int | float) and value >= 1,
    "epsilon_cutoff": _equals(0),
    "eta_cutoff": _equals(0),
}
"""What counts where ``do_sample`` is true, and nowhere else."""


def defaults(generation: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The generation settings of a model: its generation config or, where it has none, those of its model config."""
    if generation:
        return dict(generation)
    names = {"do_sample", *TOKEN_IDS, *GREEDY, *SAMPLING}
    found: dict[str, Any] = {}
    inner = [config[name] for name in INNER_CONFIGS if isinstance(config.get(name), Mapping)]
    for part in (*inner[:1], config):
        found |= {name: value for name, value in part.items() if name in names and value is not None}
    return found


def not_followed(generation: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> str | None:
    """A line that names the settings that change transformers' output and not ours; None where there are none.

    Args:
        generation: the model's ``generation_config.json``; empty where it has none.
        config: its ``config.json``, where older models keep the same settings.
    """
    settings = defaults(generation, config or {})
    greedy, parts = _named(settings, GREEDY), []
    if greedy:
        parts.append(f"sets {', '.join(greedy)}, which transformers' generate follows and Bossa does not")
    if settings.get("do_sample"):
        drawn = ", ".join(["do_sample", *_named(settings, SAMPLING)])
        parts.append(f"asks for sampling ({drawn}), which is not applied: give temperature and its like with each run")
    place = "generation_config.json" if generation else "config.json"
    return f"{place} {'; and '.join(parts)}" if parts else None


def _named(settings: Mapping[str, Any], fields: Mapping[str, Neutral]) -> list[str]:
    """The fields that are set to other than their neutral values, with what they are set to."""
    found = []
    for name, neutral in fields.items():
        value = settings.get(name)
        if value is None or neutral(value):
            continue
        text = shown(value)
        found.append(f"{name} {text}" if len(text) <= _LONGEST_SHOWN else name)
    return found


def read_token_ids(settings: Mapping[str, Any], name: str, where: str) -> tuple[int, ...]:
    """The token ids in a field that holds one, a list of them, or null.

    Raises:
        ModelError: it holds something else.
    """
    value = settings.get(name)
    if value is None:
        return ()
    ids = list(value) if isinstance(value, list | tuple) else [value]
    if not all(type(one) is int and abs(one) < 1 << 63 for one in ids):
        text = shown(repr(value))
        text = text if len(text) <= 60 else text[:59] + "…"
        raise ModelError(f"{where}: {name} is {text}; it must be a token id or a list of token ids: correct it")
    return tuple(ids)
