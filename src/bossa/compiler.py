"""``bossa.compile``: from a model to a PEF, stage by stage."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bossa.checks.arguments import boolean, described, path, refuse, text, texts, whole
from bossa.errors import CompileError, ModelError, PefError, RuntimeFailure
from bossa.formats.precision import KV_PRECISIONS, KvPrecision, Precision, why_not
from bossa.frontend.exclusive import alone
from bossa.generation_config import not_followed
from bossa.ir.names import is_title
from bossa.passes import optimize
from bossa.pef import Pef
from bossa.pef.manifest import MOST_SEQUENCES
from bossa.targets.cpu.assemble import native_fields, native_members
from bossa.targets.cpu.features import best_target
from bossa.targets.cpu.layout import Plan
from bossa.targets.cpu.plan import make_plan
from bossa.targets.cpu.toolchain import TARGETS, host_target
from bossa.tokenizer import settled
from bossa.version import __version__

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from bossa.frontend.importer import Imported
    from bossa.frontend.trace import Call
    from bossa.ir.program import Program
    from bossa.weights.packer import Packer

Progress = Callable[[str], None]


def compile(  # noqa: A001 - bossa.compile reads as it should
    model: str | PathLike[str] | PretrainedConfig | PreTrainedModel | Mapping[str, Any] | None = None,
    *,
    config_name: str | PathLike[str] | None = None,
    precision: Precision = "fp32",
    kv_precision: KvPrecision = "fp32",
    max_seq_length: int | None = None,
    batch_size: int = 1,
    targets: Sequence[str] | None = None,
    bundle: bool = False,
    adapters: bool = False,
    cache_dir: str | PathLike[str] | None = None,
    trust_remote_code: bool = False,
    name: str | None = None,
    progress: Progress | None = None,
) -> Pef:
    """Compile a causal language model into a program file.

    Weights are neither read nor allocated, unless they are bundled. Threads may call it at once; torch traces for one
    after the other.

    Args:
        model: a directory in Hugging Face's layout, a name on its hub, a ``.gguf`` file, or a transformers config, as
            an object, as a dictionary, or as that of a model, whose weights are not looked at.
        config_name: an architecture from a config alone: a directory, a JSON file or a name on the hub. It wins over
            the config of `model`, which then gives the tokenizer.
        precision: of the weights: ``fp32`` when the output has to be the model's own; ``int8`` when quality must not
            suffer, at a quarter of the memory; ``int4`` for one sequence at a time, at a sixth of the memory;
            ``int4-a8`` for the highest throughput, where the most quality may go.
        kv_precision: of the keys and values that a sequence keeps, ``fp32``, ``bf16`` or ``int8``.
        max_seq_length: the longest sequence in tokens; None or -1 for the model's own maximum or 32,768, whichever is
            less: a warning says so.
        batch_size: the most sequences at once.
        targets: CPUs to compile for (`bossa.targets.cpu.toolchain.TARGETS`); this machine's by default.
        bundle: put the packed weights into the file.
        adapters: let the program take LoRA adapters, which `load` names; without one it computes what it would.
        cache_dir: where models from the hub are kept.
        trust_remote_code: run Python code that comes with the model.
        name: what the program is called; the model's name by default.
        progress: called with the name of each stage as it starts.

    Raises:
        ModelError: there is no such model, or transformers cannot build it.
        CompileError: it cannot be compiled; the message names the operator and its module.
        ToolchainError: no C++ compiler, or it failed.
        WeightsError: the weights to bundle cannot be used.
        RequestError: an argument is of another type.

    Warns:
        UserWarning: what the model asks for is not followed: its generation defaults, its length or its tokenizer.
    """
    if (line := why_not(precision)) is not None:
        raise CompileError(line)
    if kv_precision not in KV_PRECISIONS:
        raise CompileError(f"kv_precision {kv_precision!r} is not known: choose from {', '.join(KV_PRECISIONS)}")
    _check_batch(batch_size)
    if max_seq_length is not None:
        max_seq_length = whole("max_seq_length", max_seq_length)
    boolean("bundle", bundle)
    boolean("adapters", adapters)
    boolean("trust_remote_code", trust_remote_code)
    if name is not None and not is_title(text("name", name)):
        raise CompileError(f"name is {name!r}: a program's name is one line of at most 255 letters that can be shown")
    if cache_dir is not None:
        path("cache_dir", cache_dir)
    if progress is not None and not callable(progress):
        refuse("progress", "a function of a stage's name", progress)
    chosen = list(texts("targets", targets)) if targets else [host_target()]
    for target in chosen:
        if target not in TARGETS:
            raise CompileError(f"unknown target {target!r}: choose from {', '.join(TARGETS)}")
    if bundle and (model is None or not isinstance(model, (str, PathLike))):
        raise CompileError("there are no weights to bundle: name a model, not only a config")

    tell = progress or (lambda stage: None)
    tell("load")
    with alone():
        if isinstance(model, (str, PathLike)):
            _check_gguf(Path(model))
        from bossa.frontend import sources  # torch and transformers load here
        from bossa.frontend.build import sequence_limit, tell_shortened
        from bossa.frontend.importer import import_model

        source = sources.find(model, config_name, cache_dir, trust_remote_code)
        length = sequence_limit(source.config, max_seq_length)
        imported = import_model(
            source.config,
            name=name or source.name,
            max_seq_length=length,
            trust_remote_code=trust_remote_code,
            progress=tell,
        )
        tell_shortened(source.config, max_seq_length)
    plan, members = _program(imported, precision, kv_precision, chosen, source.config, tell, adapters=adapters)
    if source.generation_config is not None:
        members["generation_config.json"] = _json(source.generation_config)
        if line := not_followed(source.generation_config):
            warnings.warn(f"{source.name}: {line}", stacklevel=2)
    with alone(), tempfile.TemporaryDirectory(prefix="bossa-") as folder:
        files = settled(source.tokenizer_files(Path(folder)))
    members |= {f"tokenizer/{file}": data for file, data in files.items()}
    if bundle:
        tell("pack")
        packer = _packer(members, chosen, source.name)
        members["weights.bin"] = _packed(plan.program, imported.ignored, model, cache_dir, packer)
    return Pef.build(_manifest(plan, imported, source.config, precision, batch_size, chosen), members)


def _check_batch(size: int) -> None:
    """Refuses before the work what could not be written down after it."""
    if whole("batch_size", size) < 1:
        raise CompileError(f"batch_size is {described(size)}; it must be 1 or more")
    if size > MOST_SEQUENCES:
        raise CompileError(f"batch_size is {described(size)}; it must be {MOST_SEQUENCES:,} at most")


def _check_gguf(path: Path) -> None:
    """Refuses a damaged GGUF file before transformers reads it, which takes what it says as it is."""
    from bossa.weights.gguf_file import check_file

    if path.suffix == ".gguf" and os.path.isfile(path) and find_spec("gguf") is not None:
        check_file(path)


def compile_module(
    model: PreTrainedModel,
    call: Call,
    *,
    name: str,
    precision: Precision = "fp32",
    max_seq_length: int,
    batch_size: int = 1,
    progress: Progress | None = None,
) -> Pef:
    """Compile a causal language model that is there as a module, for this machine; without tokenizer and weights.

    Args:
        model: with whatever a program has replaced in it; it stays as it is, and its weights are not read.
        call: from the model and its ``input_ids`` [1, T] to the logits [1, T, V].
        name, precision, max_seq_length, batch_size, progress: as `compile` takes them.

    Raises:
        CompileError: it cannot be compiled; the message names the operator and the module.
        ToolchainError: no C++ compiler, or it failed.
    """
    from bossa.frontend.importer import import_module

    _check_batch(batch_size)
    tell = progress or (lambda stage: None)
    targets = [host_target()]
    imported = import_module(model, call, name=name, max_seq_length=max_seq_length, progress=tell)
    plan, members = _program(imported, precision, "fp32", targets, model.config, tell)
    return Pef.build(_manifest(plan, imported, model.config, precision, batch_size, targets), members)


def _program(
    imported: Imported,
    precision: Precision,
    kv_precision: KvPrecision,
    targets: list[str],
    config: PretrainedConfig,
    tell: Progress,
    *,
    adapters: bool = False,
) -> tuple[Plan, dict[str, Any]]:
    """The optimized program, and the members of its file that follow from it and the config."""
    tell("optimize")
    plan = make_plan(optimize(imported.program, precision, adapters=adapters), kv_precision)
    members: dict[str, Any] = dict(native_members(plan, targets, tell))
    tell("assemble")
    members["config.json"] = _json(config.to_dict())
    return plan, members


def _json(value: dict[str, Any]) -> bytes:
    """JSON as a PEF holds it; what JSON does not have is written as text."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): plain(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [plain(inner) for inner in value]
        return str(value) if isinstance(value, float) and not isfinite(value) else value

    return json.dumps(plain(value), indent=1, default=str).encode()


def _packer(members: Mapping[str, Any], targets: list[str], where: str) -> Packer | None:
    """The packer of a library that was just compiled, if this machine runs one: NumPy takes many times as long."""
    from bossa.targets.cpu.loader import load_library
    from bossa.targets.cpu.packing import packer_of

    target = best_target(targets)
    if target is None:
        return None
    try:
        return packer_of(load_library(members[f"program.{target}.so"], where))
    except (PefError, RuntimeFailure):  # no place to load it from; the file is none the worse for it
        return None


def _packed(
    program: Program, ignored: tuple[str, ...], model: Any, cache_dir: Any, packer: Packer | None
) -> memoryview:
    """The packed weights of the model itself."""
    from bossa.weights.bind import bind
    from bossa.weights.cache import WeightCache
    from bossa.weights.open import open_weights

    slots = list(program.slots.values())
    bound = bind(slots, open_weights(model, cache_dir=cache_dir), ignored=ignored, cache=WeightCache(), packer=packer)
    return bound.blob


def _manifest(
    plan: Plan, imported: Imported, config: PretrainedConfig, precision: str, batch_size: int, targets: list[str]
) -> dict[str, Any]:
    import torch
    import transformers

    return {
        **native_fields(plan, targets),
        "bossa_version": __version__,
        "name": plan.program.name,
        "architecture": imported.architecture,
        "model_type": config.model_type or imported.architecture,
        "precision": precision,
        "batch_size": batch_size,
        "ignored_tensors": list(imported.ignored),
        "parameters": imported.parameters,
        "torch_version": torch.__version__,
        "transformers_version": transformers.__version__,
    }


__all__ = ["ModelError", "compile"]
