"""Makes what `compare.py` runs: an environment for each engine, and each model in each engine's own form.

    python benchmarks/setup_peers.py --work peers --model gpt2/ --model smollm2/

FOLDER/envs/ENGINE are virtual environments and FOLDER/models/MODEL/ the converted models. What is there already is left
alone; what fails is said, and the rest is made. Only this script uses the network (PyPI). llama-cpp-python is compiled
for this machine, which takes minutes. `--python llamacpp=PATH` uses an environment that exists already.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
CONSTRAINTS = HERE.parent / "constraints.txt"
PACKAGES = {
    "llamacpp": ["llama-cpp-python", "gguf", "safetensors"],
    "ctranslate2": ["ctranslate2", "torch", "transformers", "sentencepiece"],
    "openvino": ["torch", "optimum-intel[openvino]", "openvino-genai", "nncf"],
    "transformers": ["torch", "transformers"],
}
LLAMA_CPP_BUILD = "-DGGML_NATIVE=ON -DCMAKE_CXX_FLAGS='-fno-dse -fno-tree-dse'"
"""For this processor. GCC takes most of what ldtilecfg reads for unread and leaves it out: llama.cpp then ends with a
segmentation fault where there is AMX."""
PRECISIONS = {
    **{"fp32": ("fp32", "fp32"), "int8": ("int8", "fp32"), "int4": ("int4", "fp32")},
    **{"int8-kv8": ("int8", "int8"), "int4-kv8": ("int4", "int8")},
    **{"int4-a8-kv8": ("int4-a8", "int8")},
}
"""Bossa's own programs: how weights are stored, and how keys and values are (OpenVINO's are int8, llama.cpp's fp16)."""
BATCH, LONGEST = 64, 1024

Command = list[str]


def conversions(engine: str, python: str, model: Path, folder: Path) -> list[tuple[Path, Command]]:
    """What to make of a model for an engine: each target with its command, in order."""
    convert = HERE / "convert"
    if engine == "llamacpp":
        full = folder / "llamacpp-f32.gguf"
        made = [(full, [python, str(convert / "gguf_from_checkpoint.py"), str(model), "{target}"])]
        for kind in ("q8_0", "q4_0"):
            made.append((
                folder / f"llamacpp-{kind}.gguf",
                [python, str(convert / "gguf_quantize.py"), str(full), "{target}", kind],
            ))  # fmt: skip
        return made
    if engine == "ctranslate2":
        tool = str(Path(python).parent / "ct2-transformers-converter")
        return [
            (
                folder / f"ctranslate2-{kind}",
                [tool, "--model", str(model), "--quantization", kind, "--output_dir", "{target}"],
            )
            for kind in ("float32", "int8")
        ]
    if engine == "openvino":
        tool = [str(Path(python).parent / "optimum-cli"), "export", "openvino", "-m", str(model)]
        task = ["--task", "text-generation-with-past", "--weight-format"]
        # Groups of 128 where a matrix has them, else the next size that fits.
        more = {"int4": ["--group-size-fallback", "adjust"]}
        return [
            (folder / f"openvino-{kind}", [*tool, *task, kind, *more.get(kind, []), "{target}"])
            for kind in ("fp32", "int8", "int4")
        ]
    if engine == "bossa":
        tool = [python, "-m", "bossa", "compile", str(model), "-b", str(BATCH)]
        named = ["--max_seq_length", str(LONGEST), "--pef-name", model.resolve().name]
        return [
            (
                folder / f"bossa-{kind}.pef",
                [*tool, *named, "--precision", weights, "--kv-precision", kv, "--output-folder", "{target}"],
            )
            for kind, (weights, kv) in PRECISIONS.items()
        ]  # fmt: skip
    return []


def install(engine: str, python: str) -> Command:
    """What installs an engine. Only transformers shares our constraints; of torch all take the version in them."""
    pinned = next(line.strip() for line in CONSTRAINTS.read_text().splitlines() if line.startswith("torch=="))
    packages = [pinned if name == "torch" else name for name in PACKAGES[engine]]
    options = {
        "transformers": ["-c", str(CONSTRAINTS)],
        "llamacpp": ["--no-cache-dir"],  # what is in the cache may have been built otherwise
    }
    return [python, "-m", "pip", "install", "-q", *options.get(engine, []), *packages]


def make_environment(folder: Path, engine: str) -> str | None:
    """The Python of an engine's environment, made where it is not there; None when that failed."""
    python = folder / "bin" / "python"
    if python.exists():
        return str(python)
    for step in ([sys.executable, "-m", "venv", str(folder)], install(engine, str(python))):
        if not run(step, {"CMAKE_ARGS": LLAMA_CPP_BUILD}):
            shutil.rmtree(folder, ignore_errors=True)
            return None
    if engine == "openvino":  # comes along for pictures, and does not import beside every build of torch
        run([str(python), "-m", "pip", "uninstall", "-q", "-y", "torchvision"])
    return str(python)


def make(target: Path, command: Command) -> bool:
    """Run a conversion, into a name beside the target that it gets only at the end."""
    if target.exists():
        return True
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}")
    _remove(beside)
    if not run([part.replace("{target}", str(beside)) for part in command]):
        _remove(beside)
        return False
    programs = list(beside.glob("*/*.pef")) if target.suffix == ".pef" else []  # `bossa compile` makes folders
    if programs:
        programs[0].rename(target)
        _remove(beside)
    else:
        beside.rename(target)
    return True


def run(command: Command, variables: dict[str, str] | None = None) -> bool:
    """Whether a command succeeded; the end of what it wrote is shown when it did not."""
    print("  $", " ".join(command), flush=True)
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(variables or {})})
    if result.returncode != 0:
        print((result.stderr or result.stdout).strip()[-1500:], file=sys.stderr)
    return result.returncode == 0


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def named_pythons(given: Sequence[str]) -> dict[str, str]:
    """``ENGINE=PATH`` options as a mapping."""
    pairs = [item.partition("=") for item in given]
    wrong = [name for name, _, path in pairs if not path or name not in (*PACKAGES, "bossa")]
    if wrong:
        sys.exit(f"--python {wrong[0]}: write ENGINE=PATH, ENGINE one of bossa, {', '.join(PACKAGES)}")
    return {name: path for name, _, path in pairs}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--model", type=Path, action="append", required=True, help="a checkpoint's folder; may be repeated"
    )
    parser.add_argument("--python", action="append", default=[], metavar="ENGINE=PATH")
    parser.add_argument("--only", action="append", choices=["bossa", *PACKAGES], help="these engines alone")
    args = parser.parse_args(arguments)
    pythons = {"bossa": sys.executable, **named_pythons(args.python)}
    failed = []
    for engine in args.only or ["bossa", *PACKAGES]:
        print(engine, flush=True)
        python = pythons.get(engine) or make_environment(args.work / "envs" / engine, engine)
        if python is None:
            failed.append(engine)
            continue
        for model in args.model:
            folder = args.work / "models" / model.resolve().name
            failed += [
                str(target)
                for target, command in conversions(engine, python, model, folder)
                if not make(target, command)
            ]
    for name in failed:
        print(f"not made: {name}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
