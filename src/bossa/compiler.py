"""``bossa.compile``: from a model to a PEF, stage by stage."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bossa.codegen.plan import Plan, make_plan, pack_constants
from bossa.codegen.source import generate
from bossa.codegen.toolchain import TARGETS, build_library, host_target
from bossa.errors import CompileError, ModelError
from bossa.passes import optimize
from bossa.pef import Pef
from bossa.program.text import print_program
from bossa.version import __version__

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Progress = Callable[[str], None]
PRECISIONS = ("fp32", "bf16")


def compile(
    model: str | PathLike[str] | PretrainedConfig | None = None,
    *,
    config_name: str | None = None,
    precision: str = "fp32",
    max_seq_length: int | None = None,
    batch_size: int = 1,
    targets: Sequence[str] | None = None,
    bundle: bool = False,
    cache_dir: str | PathLike[str] | None = None,
    trust_remote_code: bool = False,
    name: str | None = None,
    progress: Progress | None = None,
) -> Pef:
    """Compile a causal language model into a program file.

    Weights are neither read nor allocated, unless they are bundled.

    Args:
        model: a directory in Hugging Face's layout, a name on its hub, a ``.gguf`` file, or a transformers config.
        config_name: an architecture from a config alone: a directory, a JSON file or a name on the hub. It wins over
            the config of `model`, which then gives the tokenizer.
        precision: of the weights, ``fp32`` or ``bf16``.
        max_seq_length: the longest sequence in tokens; None or -1 for the model's own maximum (32,768 at most).
        batch_size: the most sequences at once.
        targets: CPUs to compile for (`bossa.codegen.toolchain.TARGETS`); this machine's by default.
        bundle: put the packed weights into the file.
        cache_dir: where models from the hub are kept.
        trust_remote_code: run Python code that comes with the model.
        name: what the program is called; the model's name by default.
        progress: called with the name of each stage as it starts.

    Raises:
        ModelError: there is no such model, or transformers cannot build it.
        CompileError: it cannot be compiled; the message names the operator and its module.
        ToolchainError: no C++ compiler, or it failed.
        WeightsError: the weights to bundle cannot be used.
    """
    tell = progress or (lambda stage: None)
    if precision not in PRECISIONS:
        raise CompileError(f"precision {precision!r} is not known: choose from {', '.join(PRECISIONS)}")
    if batch_size < 1:
        raise CompileError(f"batch_size is {batch_size}; it must be 1 or more")
    chosen = list(targets) if targets else [host_target()]
    for target in chosen:
        if target not in TARGETS:
            raise CompileError(f"unknown target {target!r}: choose from {', '.join(TARGETS)}")
    if bundle and (model is None or not isinstance(model, (str, PathLike))):
        raise CompileError("there are no weights to bundle: name a model, not only a config")

    tell("load")
    from bossa.frontend import sources  # torch and transformers load here
    from bossa.frontend.build import sequence_limit
    from bossa.frontend.importer import import_model

    source = sources.find(model, config_name, cache_dir, trust_remote_code)
    length = sequence_limit(source.config, max_seq_length)
    imported = import_model(
        source.config,
        name=name or source.name,
        max_seq_length=length,
        precision=precision,  # type: ignore[arg-type]
        trust_remote_code=trust_remote_code,
        progress=tell,
    )
    tell("optimize")
    program = optimize(imported.program)
    tell("generate")
    plan = make_plan(program)
    text = generate(plan)
    members: dict[str, Any] = {}
    for target in dict.fromkeys(chosen):
        tell(f"compile {target}")
        members[f"program.{target}.so"] = build_library(text, target)
    tell("assemble")
    members |= {
        "program.json": json.dumps({"format": 1, "program": print_program(program).splitlines()}, indent=1).encode(),
        "program.cc": text.encode(),
        "constants.bin": pack_constants(program),
        "config.json": json.dumps(source.config.to_dict(), indent=1, default=str).encode(),
    }
    if source.generation_config is not None:
        members["generation_config.json"] = json.dumps(source.generation_config, indent=1, default=str).encode()
    with tempfile.TemporaryDirectory(prefix="bossa-") as folder:
        members |= {f"tokenizer/{file}": data for file, data in source.tokenizer_files(Path(folder)).items()}
    if bundle:
        tell("pack")
        members["weights.bin"] = _packed(program, imported.ignored, model, cache_dir)
    return Pef.build(_manifest(plan, imported, source, precision, batch_size, list(dict.fromkeys(chosen))), members)


def _packed(program: Any, ignored: tuple[str, ...], model: Any, cache_dir: Any) -> memoryview:
    """The packed weights of the model itself."""
    from bossa.weights.bind import bind
    from bossa.weights.cache import WeightCache
    from bossa.weights.source import open_weights

    slots = list(program.slots.values())
    bound = bind(slots, open_weights(model, cache_dir=cache_dir), ignored=ignored, cache=WeightCache())
    return bound.blob


def _manifest(
    plan: Plan, imported: Any, source: Any, precision: str, batch_size: int, targets: list[str]
) -> dict[str, Any]:
    import torch
    import transformers

    program = plan.program
    return {
        "bossa_version": __version__,
        "name": program.name,
        "architecture": imported.architecture,
        "model_type": source.config.model_type or imported.architecture,
        "precision": precision,
        "max_seq_length": program.max_seq_length,
        "batch_size": batch_size,
        "vocab_size": program.vocab_size,
        "page_size": 32,
        "page_bytes": plan.page_floats * 4,
        "arena_bytes_per_row": plan.floats_per_row * 4,
        "targets": targets,
        "slots": [slot.to_json() for slot in program.slots.values()],
        "constants": [
            {
                "name": table,
                "dtype": array.dtype.name,
                "shape": list(array.shape),
                "offset": plan.constants[table] * 4,
                "bytes": array.nbytes,
            }
            for table, array in program.tables.items()
        ],
        "ignored_tensors": list(imported.ignored),
        "parameters": imported.parameters,
        "sections": plan.describe(),
        "torch_version": torch.__version__,
        "transformers_version": transformers.__version__,
    }


__all__ = ["ModelError", "compile"]
