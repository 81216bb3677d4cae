"""``generation_config.json``: what of it is followed, as transformers' ``generate`` follows it, and what is not.

What counts as set, and what is neutral, is as there: each field below is left out of its logits processors at the
values that are neutral here. Files are others' work, so a value may be of any type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from bossa.errors import ModelError, RequestError, shown
from bossa.sampling.parameters import FILTERS, PARAMETERS

TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
INNER_CONFIGS = ("decoder", "generator", "text_config")
"""Where transformers looks for values that a model's config does not have at its top."""

_LONGEST_SHOWN = 40

Neutral = Callable[[Any], bool]


def _at_most(limit: float) -> Neutral:
    return lambda value: isinstance(value, int | float) and value <= limit


def _equals(neutral: float) -> Neutral:
    return lambda value: isinstance(value, int | float) and value == neutral


def _at_least(limit: float) -> Neutral:
    return lambda value: isinstance(value, int | float) and value >= limit


def _outside(low: float, high: float) -> Neutral:
    return lambda value: isinstance(value, int | float) and not low < value < high


def _empty(value: Any) -> bool:
    return value is False or (isinstance(value, list | tuple | dict | str) and not value)


PROCESSORS: dict[str, Neutral] = {
    "repetition_penalty": _equals(1),
    "encoder_repetition_penalty": _equals(1),
    "no_repeat_ngram_size": _at_most(0),
    "encoder_no_repeat_ngram_size": _at_most(0),
    "sequence_bias": _empty,
    "bad_words_ids": _empty,
    "suppress_tokens": _empty,
    "begin_suppress_tokens": _empty,
    "forced_bos_token_id": _empty,
    "forced_eos_token_id": _empty,
    "min_length": _at_most(0),
    "min_new_tokens": _at_most(0),
    "exponential_decay_length_penalty": _empty,
}
"""Logits processors, which count in any case, with the values at which they change nothing. None is one for each."""

LENGTHS: dict[str, Neutral] = {"max_length": _empty, "max_new_tokens": _empty, "stop_strings": _empty}
"""When a completion ends. The last is ``stop`` here."""

SAMPLING: dict[str, Neutral] = {
    "temperature": lambda value: False,  # drawing is to be seen, at whatever temperature
    "top_k": _at_most(0),
    "top_p": _at_least(1),
    "min_p": _equals(0),
    "top_h": _empty,
    "typical_p": _at_least(1),
    "epsilon_cutoff": _outside(0, 1),
    "eta_cutoff": _outside(0, 1),
}
"""What counts where ``do_sample`` is true, and nowhere else."""

DRAWING = {"temperature": 1.0, "top_k": 50}
"""Of these, what transformers sets where a model that samples does not."""

OTHERS: dict[str, Neutral] = {
    "force_words_ids": _empty,
    "constraints": _empty,
    "guidance_scale": _equals(1),
    "watermarking_config": _empty,
    "num_beams": _at_most(1),
    "num_beam_groups": _at_most(1),
    "diversity_penalty": _equals(0),
    "penalty_alpha": _equals(0),
    "dola_layers": _empty,
    "token_healing": _empty,
}
"""What changes transformers' output, and is not followed."""

NAMES = frozenset({"do_sample", *PROCESSORS, *LENGTHS, *SAMPLING, *OTHERS})
"""All fields that are looked at, but for token ids."""


class Defaults(NamedTuple):
    """The parameters of sampling that a model's generation config sets.

    Attributes:
        values: by the names of ``SamplingParams``, and in its form.
        written: of these, what changes a completion, as the file writes it.
        refused: fields that hold what is no value for them, with that.
    """

    values: dict[str, Any]
    written: dict[str, str]
    refused: dict[str, str]

    def beneath(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Those that hold beside parameters that are given, each of which goes before the file's field.

        A length that is given goes before both of the file's ways to say it.
        """
        over = set(given)
        for pair in ({"max_new_tokens", "max_length"}, {"min_new_tokens", "min_length"}):
            if over & pair:
                over |= pair
        return {name: value for name, value in self.values.items() if name not in over}

    def line(self, given: Mapping[str, Any]) -> str | None:
        """What of these changes a completion beside parameters that are given, in a phrase; None where nothing does."""
        held = self.beneath(given)
        if not {"temperature": 0, **held, **given}["temperature"]:
            held = {name: value for name, value in held.items() if name not in FILTERS | {"temperature"}}
        return ", ".join(self.written[name] for name in held if name in self.written) or None


def read(settings: Mapping[str, Any], vocab_size: int | None = None) -> Defaults:
    """What the settings of ``defaults`` set.

    Args:
        vocab_size: token ids there are. What names others is refused; that such tokens do not come goes without saying.
    """
    found = Defaults({}, {}, {})
    given = {name: (settings.get(name), neutral) for name, neutral in (PROCESSORS | LENGTHS).items()}
    if settings.get("do_sample"):
        given |= {
            name: (DRAWING.get(name) if settings.get(name) is None else settings[name], neutral)
            for name, neutral in SAMPLING.items()
        }
    if isinstance(given["max_new_tokens"][0], int):
        del given["max_length"]  # as in transformers
    for name, (value, neutral) in given.items():
        if value is None:
            continue
        parameter = "stop" if name == "stop_strings" else name
        declared = PARAMETERS[parameter]
        if neutral(value):
            found.values[parameter] = 0 if name in ("min_new_tokens", "top_k") else declared.neutral
            continue
        try:
            kept = declared.check(name, value)
        except RequestError:
            found.refused[name] = _written(name, value)
            continue
        if vocab_size is not None:
            if name in ("suppress_tokens", "begin_suppress_tokens"):
                kept = tuple(token for token in kept if 0 <= token < vocab_size)
            elif declared.tokens is not None and not all(0 <= token < vocab_size for token in declared.tokens(kept)):
                found.refused[name] = _written(name, value)
                continue
        found.values[parameter] = kept
        own = " (transformers' own default)" if settings.get(name) is None else ""
        found.written[parameter] = _written(name, value) + own
    return found


def defaults(generation: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The generation settings of a model: its generation config or, where it has none, those of its model config."""
    if generation:
        return dict(generation)
    names = NAMES | set(TOKEN_IDS)
    found: dict[str, Any] = {}
    inner = [config[name] for name in INNER_CONFIGS if isinstance(config.get(name), Mapping)]
    for part in (*inner[:1], config):
        found |= {name: value for name, value in part.items() if name in names and value is not None}
    return found


def place(generation: Mapping[str, Any]) -> str:
    """The file that ``defaults`` are from."""
    return "generation_config.json" if generation else "config.json"


def not_followed(
    generation: Mapping[str, Any], config: Mapping[str, Any] | None = None, vocab_size: int | None = None
) -> str | None:
    """A line that names the settings that change transformers' output and not ours; None where there are none.

    Args:
        generation: the model's ``generation_config.json``; empty where it has none.
        config: its ``config.json``, where older models keep the same settings.
        vocab_size: token ids there are, if it is known.
    """
    settings = defaults(generation, config or {})
    parts = []
    others = [
        _written(name, settings[name]) for name, neutral in OTHERS.items() if _is_set(settings.get(name), neutral)
    ]
    if others:
        parts.append(f"sets {', '.join(others)}, which transformers' generate follows and Bossa does not")
    refused = read(settings, vocab_size).refused
    if refused:
        parts.append(f"sets {', '.join(refused.values())}, which cannot be followed: correct it")
    return f"{place(generation)} {'; and '.join(parts)}" if parts else None


def _is_set(value: Any, neutral: Neutral) -> bool:
    return value is not None and not neutral(value)


def _written(name: str, value: Any) -> str:
    """A field with its value, if that is short."""
    text = shown(value)
    return f"{name} {text}" if len(text) <= _LONGEST_SHOWN else name


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
