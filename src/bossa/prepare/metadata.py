"""``metadata.yaml``: plain keys and values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from bossa.host.files import replacing


def write_yaml(path: Path, values: Mapping[str, int | str | bool | None]) -> None:
    """Write values as YAML, sorted by name. JSON's scalars are YAML's.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path) as file:
        for name in sorted(values):
            file.write(f"{name}: {json.dumps(values[name])}\n".encode())


def model_type(tokenizer_files: Mapping[str, bytes]) -> str:
    """How the public tool names the kind of model that a tokenizer is of: its config's class in transformers.

    Where transformers is not installed, or does not have it, the kind as the model's config has it.
    """
    try:
        kind = str(json.loads(tokenizer_files.get("config.json", b"{}")).get("model_type", ""))
    except (ValueError, AttributeError):
        return ""
    try:
        from bossa.frontend.config_class import config_class
    except ImportError:
        return kind
    return config_class(kind) or kind
