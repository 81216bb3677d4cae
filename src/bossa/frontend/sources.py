"""Where a model comes from: its config, its generation defaults and its tokenizer's files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel

from bossa.checks.vocabulary import check_ids
from bossa.errors import ModelError, kind_of, shown
from bossa.frontend import config as configs
from bossa.frontend import generation, sizes
from bossa.frontend.hub import fetched, reach
from bossa.frontend.quiet import quiet
from bossa.frontend.reasons import one_line
from bossa.tokenizer.bounds import check_before
from bossa.tokenizer.library import is_panic

_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "added_tokens.json",
)  # fmt: skip
_READ_BY_TRANSFORMERS = (
    "tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "tekken.json", "vocab.json",
    "vocab.txt",
)  # fmt: skip
"""Of these files transformers makes tokenizers, where its classes know how."""


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
            for name in ("tokenizer.json", "vocab.json") if "gguf_file" not in arguments else ():
                if (path := fetched(place, name, arguments)) is not None:
                    data = path.read_bytes()
                    check_ids(data, name)
                    check_before(data, name)
            with quiet():
                tokenizer = AutoTokenizer.from_pretrained(place, **arguments)
                if tokenizer.vocab_size <= len(tokenizer.all_special_ids):
                    return {}  # made up from the config, where the model has no tokenizer's files
                tokenizer.save_pretrained(folder)
            found = {name: (folder / name).read_bytes() for name in _TOKENIZER_FILES if (folder / name).is_file()}
            templates = folder.glob("additional_chat_templates/*.jinja")
            found |= {path.relative_to(folder).as_posix(): path.read_bytes() for path in templates}
            if "tokenizer.json" in found:
                return found
            reason = f"{type(tokenizer).__name__} has no tokenizer.json"
        except BaseException as error:  # whatever transformers and tokenizers raise for files that they cannot read
            if not isinstance(error, Exception) and not is_panic(error):
                raise
            reason = one_line(error)
        self._say_what_is_lost(reason)
        return {}

    def _say_what_is_lost(self, reason: str) -> None:
        """A warning, where there are a tokenizer's files and none could be made of them: only a run needs one."""
        assert self.location is not None
        place, arguments = self.location
        held = [name for name in _READ_BY_TRANSFORMERS if fetched(place, name, arguments) is not None]
        if held and "gguf_file" not in arguments:
            warnings.warn(
                f"{shown(place)}: has {held[0]}, from which transformers cannot make a tokenizer.json here ({reason}):"
                " the program gets no tokenizer; convert it where its packages are installed"
                " (AutoTokenizer.from_pretrained(...).save_pretrained(...)), or name a model that has one in bossa run",
                stacklevel=3,
            )


def find(
    model: str | PathLike[str] | PretrainedConfig | PreTrainedModel | Mapping[str, Any] | None,
    config_name: str | PathLike[str] | None,
    cache_dir: str | PathLike[str] | None,
    trust_remote_code: bool,
) -> ModelSource:
    """The source of a model given as `bossa.compile` takes it.

    Raises:
        ModelError: there is no such model or config, or it is none that can be compiled.
    """
    if isinstance(model, PreTrainedModel):
        model = model.config
    if isinstance(model, Mapping):
        model = _from_mapping(model, trust_remote_code)
    if isinstance(model, PretrainedConfig):
        if config_name is not None:
            raise ModelError("two configs are given, one as the model and one as config_name: give one")
        sizes.check(model, _kind(model))
        return ModelSource(_kind(model), model, None, None)
    location = None if model is None else _location(_text(model, "model"), cache_dir, trust_remote_code)
    if config_name is not None:
        path = Path(_text(config_name, "config_name"))
        config = _config(*_location(str(config_name), cache_dir, trust_remote_code, is_file=True))
        return ModelSource(path.stem if path.suffix else path.name, config, None, location)
    if location is None:
        raise ModelError("no model: name a directory, a model on the hub, a .gguf file or a config")
    config = _config(*location)
    return ModelSource(_name(str(model)), config, generation.read(*location), location)


def _text(given: Any, name: str) -> str:
    """What names a model, as text.

    Raises:
        ModelError: it is none.
    """
    if isinstance(given, PathLike):
        given = given.__fspath__()
    if not isinstance(given, str):
        raise ModelError(
            f"{name}: should be a directory, a name on the hub, a .gguf file, or a config or model of transformers,"
            f" not {kind_of(given)}"
        )
    if not given or "\0" in given or "\n" in given:
        raise ModelError(f"{name} {shown(repr(given))[:80]} names no model: give a directory or a name on the hub")
    return given


def _from_mapping(given: Mapping[str, Any], trust_remote_code: bool) -> PretrainedConfig:
    """The config of a dictionary as it would stand in ``config.json``."""
    raw = dict(given)
    configs.check_raw(raw, "the config")
    if "model_type" not in raw:
        raise ModelError("the config: model_type is missing, which says what model it is: add it")
    try:
        with quiet():
            return AutoConfig.for_model(**raw)
    except Exception as error:  # whatever a configuration class raises
        raise _unreadable("the config cannot be read", raw, error) from error


def _unreadable(what: str, raw: Mapping[str, Any], error: Exception) -> ModelError:
    """What is said of a config that its class refuses, with the fields that it has divided by."""
    zeros = ", ".join(sizes.zeros_of(raw)) if isinstance(error, ZeroDivisionError) else ""
    return ModelError(f"{what} ({one_line(error)}){zeros and f': {zeros} must not be 0: correct the config'}")


def _kind(config: PretrainedConfig) -> str:
    return shown(config.model_type or "model")


def _name(model: str) -> str:
    path = Path(model)
    return path.stem if path.suffix == ".gguf" else path.resolve().name if path.exists() else path.name


def _location(
    model: str, cache_dir: Any, trust_remote_code: bool, *, is_file: bool = False
) -> tuple[str, dict[str, Any]]:
    """What ``from_pretrained`` takes for a model, or for a config where that may be a file."""
    path = Path(model)
    arguments = {"cache_dir": cache_dir, "trust_remote_code": trust_remote_code}
    if path.suffix == ".gguf" and not is_file:
        if not os.path.isfile(path):
            raise ModelError(f"{model}: no such file")
        try:
            import gguf  # noqa: F401  transformers needs it, and says so less clearly
        except ImportError as error:
            raise ModelError(f"{model}: GGUF files are read with the package gguf: pip install gguf") from error
        return str(path.parent), arguments | {"gguf_file": path.name}
    try:
        is_directory, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise ModelError(f"{shown(model)[:200]}: no model can have this name ({error.strerror})") from None
    if is_directory:
        _check_directory(path)
    elif is_file and path.is_file():
        pass
    elif exists or model.startswith((".", "/", "~")):
        raise ModelError(f"{model}: no such model directory (and it is not a name on the hub)")
    elif not reach(model, cache_dir):
        arguments["local_files_only"] = True
    return model, arguments


def _check_directory(path: Path) -> None:
    """Say what a directory is that is no model's."""
    has_config = (path / "config.json").is_file()
    if (path / "adapter_config.json").is_file() and not (has_config and _has_weights(path)):
        raise ModelError(configs.adapter(str(path), configs.read(path / "adapter_config.json", "adapter_config.json")))
    if has_config:
        return
    gguf = sorted(file.name for file in path.glob("*.gguf"))
    if gguf:
        raise ModelError(f"{path}: the directory has no config.json, but GGUF files: name one, as {path / gguf[0]}")
    raise ModelError(f"{path}: the directory has no config.json; is it a model in Hugging Face's layout?")


def _has_weights(path: Path) -> bool:
    return any(not file.name.startswith("adapter") for end in ("safetensors", "bin") for file in path.glob(f"*.{end}"))


def _config(place: str, arguments: dict[str, Any]) -> PretrainedConfig:
    """The config at a place, looked at before and after transformers reads it."""
    where, own_code = shown(place), False
    raw: dict[str, Any] = {}
    if "gguf_file" not in arguments:
        path = fetched(place, "config.json", arguments)
        if path is not None:
            name = where if Path(place).is_file() else f"{where}: config.json"
            raw = configs.read(path, name)
            configs.check_raw(raw, where)
            own_code = bool(raw.get("auto_map")) and not arguments["trust_remote_code"]
        elif (path := fetched(place, "adapter_config.json", arguments)) is not None:
            raise ModelError(configs.adapter(where, configs.read(path, f"{where}: adapter_config.json")))
    try:
        with quiet():
            config = AutoConfig.from_pretrained(place, **arguments)
    except Exception as error:  # whatever transformers and a configuration class raise
        if "trust_remote_code" in str(error) or (own_code and "does not recognize" in str(error)):
            raise ModelError(f"{where}: the model needs its own code; --trust-remote-code allows it") from error
        if Path(place).exists():
            raise _unreadable(f"{where}: its config cannot be read", raw, error) from error
        raise ModelError(
            f"{where}: no such directory, and no such model could be fetched from the hub ({one_line(error, 160)})"
        ) from error
    sizes.check(config, where)
    return config
