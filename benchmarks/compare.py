"""Bossa beside other engines on one machine in one run: rounds in turn, medians, ratios, and the machine's limits.

Each engine runs from an environment of its own; one that is not given is left out, and said. For example:

    python benchmarks/compare.py --pef gpt2.pef --model gpt2/ --parameters 124439808 --head 38597376 \\
        --vocabulary 50257 --llamacpp llamacpp-env/bin/python gpt2-f32.gguf \\
        --openvino openvino-env/bin/python gpt2-openvino/
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
CASES = ["prefill 128", "prefill 512", "prefill 1000", "decode 1", "decode 8", "decode 32"]


def output(command: list[str]) -> dict[str, float]:
    """What a command prints on its last line, as JSON."""
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def limits(threads: int) -> dict[str, float]:
    """Bytes read and fp32 operations a second, from a program compiled on the spot."""
    with tempfile.TemporaryDirectory() as folder:
        binary = str(Path(folder) / "limits")
        kernels = HERE.parent / "src" / "bossa" / "kernels"
        flags = ["-std=c++17", "-O3", "-march=native", "-ffp-contract=off", "-pthread", "-iquote", str(kernels)]
        subprocess.run(["c++", *flags, str(HERE / "limits.cc"), "-o", binary], check=True)
        return output([binary, str(threads)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pef", required=True)
    parser.add_argument("--model", required=True, help="the checkpoint, for Bossa")
    parser.add_argument("--parameters", type=int, required=True, help="weights read for each token")
    parser.add_argument("--head", type=int, required=True, help="those of them that only logits need")
    parser.add_argument("--vocabulary", type=int, required=True)
    parser.add_argument("--llamacpp", nargs=2, metavar=("PYTHON", "GGUF"))
    parser.add_argument("--openvino", nargs=2, metavar=("PYTHON", "FOLDER"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    threads = str(args.threads)
    engines = {"Bossa": [sys.executable, str(HERE / "bossa_rates.py"), args.pef, args.model, threads]}
    if args.llamacpp:
        engines["llama.cpp"] = [args.llamacpp[0], str(HERE / "llamacpp_rates.py"), args.llamacpp[1], threads]
    if args.openvino:
        python, folder = args.openvino
        engines["OpenVINO"] = [python, str(HERE / "openvino_rates.py"), folder, str(args.vocabulary)]
    for name in {"llama.cpp", "OpenVINO"} - engines.keys():
        print(f"{name}: not given, left out", file=sys.stderr)

    rounds: list[dict[str, dict[str, float]]] = []
    limit: dict[str, float] = {}
    for number in range(args.rounds):
        measured = limits(args.threads)
        limit = {key: max(value, limit.get(key, 0.0)) for key, value in measured.items()}
        rounds.append({name: output(command) for name, command in engines.items()})
        print(f"round {number + 1} of {args.rounds} done", file=sys.stderr)

    print(f"read {limit['read_bytes_per_s'] / 1e9:.1f} GB/s, multiply-add {limit['fma_flop_per_s'] / 1e9:.0f} GFLOP/s")
    header = ["case", *engines, *(f"vs {name}" for name in engines if name != "Bossa"), "limit", "of limit"]
    print("| " + " | ".join(header) + " |\n|" + " --- |" * len(header))
    for case in CASES:
        medians = {name: statistics.median(r[name][case] for r in rounds) for name in engines}
        ratios = [
            statistics.median(r["Bossa"][case] / r[name][case] for r in rounds) for name in engines if name != "Bossa"
        ]
        kind, rows = case.split()
        worked = args.parameters - args.head if kind == "prefill" else args.parameters  # one row's logits in a prompt
        compute = limit["fma_flop_per_s"] / (2 * worked)
        memory = limit["read_bytes_per_s"] / (4 * args.parameters) * int(rows)
        bound = compute if kind == "prefill" else min(compute, memory)
        cells = [case, *(f"{rate:.1f}" for rate in medians.values()), *(f"{ratio:.2f}x" for ratio in ratios)]
        print("| " + " | ".join([*cells, f"{bound:.0f}", f"{medians['Bossa'] / bound:.0%}"]) + " |")


if __name__ == "__main__":
    main()
