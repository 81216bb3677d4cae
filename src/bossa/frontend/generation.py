"""A model's generation defaults, from ``generation_config.json`` or, in older models, from ``config.json``."""

from __future__ import annotations

import json
from typing import Any

from transformers import GenerationConfig

from bossa.frontend import config as configs
from bossa.frontend.hub import fetched
from bossa.frontend.quiet import quiet
from bossa.generation_config import NAMES, TOKEN_IDS, read_token_ids

FILE = "generation_config.json"


def read(place: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """What differs from transformers' defaults; None where the model says nothing.

    Raises:
        ModelError: there is such a file, and it is no JSON object, or has numbers or token ids that are none.
    """
    if "gguf_file" in arguments:
        return None
    path = fetched(place, FILE, arguments)
    if path is None:
        return _of_the_model(place, arguments)
    raw = configs.read(path, f"{place}: {FILE}")
    configs.check_numbers(raw, f"{place}: {FILE}")
    for name in TOKEN_IDS:
        read_token_ids(raw, name, f"{place}: {FILE}")
    try:
        with quiet():
            return _changed(GenerationConfig.from_dict(raw))
    except Exception:  # values that transformers refuses: each is looked at where it would be followed
        return {name: value for name, value in raw.items() if value is not None}


def _of_the_model(place: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """The settings that transformers takes from ``config.json``, if they are more than token ids, which stay there."""
    path = fetched(place, "config.json", arguments)
    if path is None:
        return None
    try:
        with quiet():
            found = _changed(GenerationConfig.from_model_config(configs.read(path, place)))
    except Exception:  # the config itself is refused elsewhere, where it is wrong
        return None
    kept = {name: found[name] for name in found if name in NAMES or name in TOKEN_IDS}
    return kept if NAMES & found.keys() else None


def _changed(config: GenerationConfig) -> dict[str, Any]:
    return dict(json.loads(config.to_json_string(use_diff=True)))
