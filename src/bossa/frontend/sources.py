"""Where a model comes from: its config, its generation defaults and its tokenizer's files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PretrainedConfig

from bossa.errors import ModelError
from bossa.frontend.build import quiet
from bossa.host.network import hub_is_reachable

_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "added_tokens.json",
)  # fmt: skip


@dataclass(frozen=True)
class ModelSource:
    """A model that is named but not loaded.

    Attributes:
        location: arguments of transformers' ``from_pretrained`` for the tokenizer; None for a bare config.
    """

    name: str
    config: PretrainedConfig
    generation_config: dict[str, Any] | None
    location: tuple[str, dict[str, Any]] | None

    def tokenizer_files(self, folder: Path) -> dict[str, bytes]:
        """The tokenizer in the form that the run time reads, by file name; nothing where the model has none."""
        if self.location is None:
            return {}
        place, arguments = self.location
        try:
            with quiet():
                tokenizer = AutoTokenizer.from_pretrained(place, **arguments)
                if tokenizer.vocab_size <= len(tokenizer.all_special_ids):
                    return {}  # made up from the config, where the model has no tokenizer's files
                tokenizer.save_pretrained(folder)
        except Exception:  # a model without a tokenizer, or with one that transformers cannot read: run asks for one
            return {}
        found = {name: (folder / name).read_bytes() for name in _TOKENIZER_FILES if (folder / name).is_file()}
        templates = folder.glob("additional_chat_templates/*.jinja")
        found |= {path.relative_to(folder).as_posix(): path.read_bytes() for path in templates}
        return found if "tokenizer.json" in found else {}


def find(
    model: str | PathLike[str] | PretrainedConfig | None,
    config_name: str | None,
    cache_dir: str | PathLike[str] | None,
    trust_remote_code: bool,
) -> ModelSource:
    """The source of a model given as `bossa.compile` takes it.

    Raises:
        ModelError: there is no such model or config.
    """
    if isinstance(model, PretrainedConfig):
        return ModelSource(model.model_type or "model", model, None, None)
    location = None if model is None else _location(str(model), cache_dir, trust_remote_code)
    if config_name is not None:
        path = Path(config_name)
        place = str(path) if path.exists() else config_name
        config = _config(place, {"cache_dir": cache_dir, "trust_remote_code": trust_remote_code})
        return ModelSource(path.stem if path.suffix else path.name, config, None, location)
    if location is None:
        raise ModelError("no model: name a directory, a model on the hub, a .gguf file or a config")
    config = _config(*location)
    return ModelSource(_name(str(model)), config, _generation_config(*location), location)


def _name(model: str) -> str:
    path = Path(model)
    return path.stem if path.suffix == ".gguf" else path.resolve().name if path.exists() else path.name


def _location(model: str, cache_dir: Any, trust_remote_code: bool) -> tuple[str, dict[str, Any]]:
    path = Path(model)
    arguments = {"cache_dir": cache_dir, "trust_remote_code": trust_remote_code}
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"{model}: no such file")
        try:
            import gguf  # noqa: F401  transformers needs it, and says so less clearly
        except ImportError as error:
            raise ModelError(f"{model}: GGUF files are read with the package gguf: pip install gguf") from error
        return str(path.parent), arguments | {"gguf_file": path.name}
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{model}: the directory has no config.json; is it a model in Hugging Face's layout?")
    elif path.exists() or model.startswith((".", "/", "~")):
        raise ModelError(f"{model}: no such model directory (and it is not a name on the hub)")
    else:
        # Transformers asks a hub that does not answer for half a minute before it looks at what it has of it.
        arguments["local_files_only"] = not hub_is_reachable()
    return model, arguments


def _config(place: str, arguments: dict[str, Any]) -> PretrainedConfig:
    try:
        with quiet():
            return AutoConfig.from_pretrained(place, **arguments)
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        if "trust_remote_code" in str(error):
            raise ModelError(f"{place}: the model needs its own code; --trust-remote-code allows it") from error
        if Path(place).exists():
            raise ModelError(f"{place}: its config cannot be read ({first[:200]})") from error
        raise ModelError(
            f"{place}: no such directory, and no such model could be fetched from the hub ({first[:160]})"
        ) from error


def _generation_config(place: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
    if "gguf_file" in arguments:
        return None
    try:
        with quiet():
            config = GenerationConfig.from_pretrained(
                place,
                cache_dir=arguments.get("cache_dir"),
                local_files_only=arguments.get("local_files_only", False),
            )
        return dict(json.loads(config.to_json_string(use_diff=True)))
    except Exception:  # most models have none
        return None
