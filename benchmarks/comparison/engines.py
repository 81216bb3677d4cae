"""The engines: which files of theirs are run, in which settings, by which Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comparison.cases import JobCase, RateCase

Settings = dict[str, Any]
WORKERS = Path(__file__).parent.parent / "workers"

FILES = {
    "Bossa": (
        "bossa",
        "bossa-{}.pef",
        {"fp32": 32, "int8": 8, "int8-kv8": 8, "int4": 4, "int4-kv8": 4, "int4-a8-kv8": 4},
    ),
    "llama.cpp": ("llamacpp", "llamacpp-{}.gguf", {"f32": 32, "q8_0": 8, "q4_0": 4}),
    "CTranslate2": ("ctranslate2", "ctranslate2-{}", {"float32": 32, "int8": 8}),
    "OpenVINO": ("openvino", "openvino-{}", {"fp32": 32, "bf16": 16, "int8": 8, "int4": 4}),
    "transformers": ("transformers", "", {"eager": 32, "compiled": 32, "bf16": 16}),
}
"""Of each engine: its worker, the names of its models, and its precisions with their bits."""
STORED = {("OpenVINO", "bf16"): "fp32"}
"""Precisions that run another one's model: only the arithmetic differs."""
HINTS = {"fp32": {"INFERENCE_PRECISION_HINT": "f32"}, "bf16": {"INFERENCE_PRECISION_HINT": "bf16"}}
"""OpenVINO's arithmetic, which is bf16 by itself where the processor has it: 32 bits are to be 32 bits."""


@dataclass(frozen=True)
class Engine:
    """One engine with one model in one precision.

    Attributes:
        name: ``llama.cpp q8_0``.
        family: ``llama.cpp``; Bossa's is ``Bossa``.
        bits: of a weight.
        python: of its environment.
        model: what it loads.
        tokenizer: the checkpoint's folder.
    """

    family: str
    precision: str
    bits: int
    python: str
    worker: str
    model: Path
    tokenizer: Path

    @property
    def name(self) -> str:
        return f"{self.family} {self.precision}"

    def command(self, threads: int) -> list[str]:
        """The worker's command, without its mode."""
        script = WORKERS / f"{self.worker}_worker.py"
        paths = ["--model", str(self.model), "--tokenizer", str(self.tokenizer)]
        return [self.python, str(script), *paths, "--threads", str(threads)]

    def rate_settings(self, case: RateCase) -> list[Settings]:
        """What is tried for a case; the fastest is then measured."""
        prefill, one = case.kind == "prefill", case.size == 1
        match self.family:
            case "llama.cpp" if prefill:
                return [{"flash": flash, "ubatch": ubatch} for flash in (False, True) for ubatch in (128, 512, 1024)]
            case "llama.cpp":
                kinds = [{"flash": flash, "unified": True} for flash in (False, True)]
                return kinds if one else [*kinds, {"flash": True, "unified": False}]
            case "CTranslate2":
                return [{}] if prefill or one else [{}, {"split": True}]
            case "OpenVINO":
                pipelines = [self._openvino("paged"), self._openvino("plain")]
                if self.bits < 16:
                    exact = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}  # activations stay as they are
                    pipelines.append({"pipeline": "paged", "properties": exact})
                return pipelines
            case "transformers" if self.precision == "compiled":
                return [{"attention": "sdpa", "compile": True}]
            case "transformers":
                dtype = {"dtype": "bfloat16"} if self.precision == "bf16" else {}
                return [{"attention": "sdpa", **dtype}, {"attention": "eager", **dtype}]
            case _:
                return [{}]

    def job_settings(self, case: JobCase) -> list[Settings]:
        """What is tried for a whole process: sequences side by side, mostly. Nothing where it makes no sense."""
        batches = sorted({min(batch, case.prompts) for batch in ((20,) if case.prompts <= 20 else (16, 32, 64))})
        match self.family:
            case "llama.cpp":
                return [
                    {"flash": True, "unified": unified, "batch": batch}
                    for batch in batches
                    for unified in (True, False)
                ]
            case "CTranslate2" if case.prompts > 1:
                return [{"batch": batch, "split": split} for batch in batches for split in (False, True)]
            case "OpenVINO" if case.prompts == 1:
                return [{**self._openvino("paged"), "cache_gb": 1}, self._openvino("plain")]
            case "OpenVINO":
                return [{**self._openvino("paged"), "cache_gb": 2, "batch": batch} for batch in batches]
            case "transformers" if self.precision == "compiled":
                return []  # it compiles for minutes before the first token
            case "transformers" if self.precision == "bf16":
                return [{"batch": batch, "dtype": "bfloat16"} for batch in batches]
            case _:
                return [{"batch": batch} for batch in batches]

    def _openvino(self, pipeline: str) -> Settings:
        hint = HINTS.get(self.precision)
        return {"pipeline": pipeline, **({"properties": hint} if hint else {})}


def find_engines(
    work: Path, checkpoint: Path, pythons: Mapping[str, str], wanted: Sequence[str] = ()
) -> tuple[list[Engine], list[str]]:
    """The engines that are there, and a line for each that is not.

    Args:
        work: what `setup_peers.py` made.
        checkpoint: the model's own folder; its name is that of the folder with the converted models.
        pythons: environments by worker, instead of those under ``work``.
        wanted: names or families; all when empty.
    """
    found, missing = [], []
    folder = work / "models" / checkpoint.resolve().name
    for family, (worker, file, precisions) in FILES.items():
        python = pythons.get(worker) or str(work / "envs" / worker / "bin" / "python")
        for precision, bits in precisions.items():
            model = folder / file.format(STORED.get((family, precision), precision)) if file else checkpoint
            engine = Engine(family, precision, bits, python, worker, model, checkpoint)
            if wanted and engine.name not in wanted and family not in wanted:
                continue
            if not Path(python).exists():
                missing.append(f"{engine.name}: left out, there is no {python}")
            elif not model.exists():
                missing.append(f"{engine.name}: left out, there is no {model}")
            else:
                found.append(engine)
    return found, missing
