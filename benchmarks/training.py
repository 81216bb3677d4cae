"""A training step of a small GPT-2 in eager torch, `torch.compile` and a session; and what compiling costs.

    python benchmarks/training.py

All three take the same step: forward, backward, clipping to a norm of 1, AdamW. Rounds take turns, and a figure is the
median over them. Dropout is measured at two rates, since a session compiles a program with dropout as eager torch draws
it, and without. OUT/training.json has the figures; steps.md and compile.md the tables. OUT is `training` among this
machine's results unless it is given.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from bossa import samba
from bossa.samba import arguments
from comparison.machine import headed, measured, results_folder
from comparison.results import markdown


@dataclass(frozen=True)
class Sizes:
    """Of a GPT-2 and what it is trained on; with ``--layers 12 --width 768 --vocabulary 50257`` it is GPT-2 small."""

    layers: int
    width: int
    vocabulary: int
    batch: int
    length: int


def model_of(rate: float, sizes: Sizes) -> nn.Module:
    torch.manual_seed(0)
    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), rate)
    config = GPT2Config(
        n_layer=sizes.layers, n_embd=sizes.width, n_head=sizes.width // 64, n_positions=sizes.length,
        vocab_size=sizes.vocabulary, use_cache=False, bos_token_id=0, eos_token_id=0, **rates,
    )  # fmt: skip
    return GPT2LMHeadModel(config).train()


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return samba.optim.AdamW(model.parameters(), lr=1e-4, max_grad_norm=1.0)


def inputs(sizes: Sizes) -> dict[str, torch.Tensor]:
    ids = torch.randint(0, sizes.vocabulary, (sizes.batch, sizes.length))
    return {name: samba.from_torch_tensor(ids.clone(), name) for name in ("input_ids", "labels")}


def steps_of(rate: float, sizes: Sizes, folder: Path) -> dict[str, Callable[[], Any]]:
    """A training step of each kind, ready to run."""
    batch = inputs(sizes)
    plain = {name: samba.to_torch(tensor) for name, tensor in batch.items()}

    def step(model: Callable[..., Any], optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(**plain).loss.backward()
        optimizer.step()

    eager, compiled, ours = (model_of(rate, sizes) for _ in range(3))
    first, second, third = (optimizer_of(model) for model in (eager, compiled, ours))
    fast = torch.compile(compiled)
    pef = compile_file(ours, batch, third, folder, inference=False)
    outputs = samba.utils.trace_graph(ours, batch, third, pef=pef)
    return {
        "eager": lambda: step(eager, first),
        "torch.compile": lambda: step(fast, second),
        "session.run": lambda: samba.session.run(batch, outputs),
    }


def compile_file(model: nn.Module, batch: Any, optimizer: Any, folder: Path, *, inference: bool) -> str:
    arguments.keep(Namespace(output_folder=str(folder), pef_name="gpt2-inference" if inference else "gpt2"))
    return samba.session.compile(model, batch, None if inference else optimizer, inference=inference)


def measure(steps: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Milliseconds of a step of each kind, the median of the rounds after two that are not counted."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if number >= 2:
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def compile_costs(sizes: Sizes) -> dict[str, dict[str, float]]:
    """Seconds and bytes of both kinds of program file, nothing cached."""
    costs = {}
    for inference in (True, False):
        model = model_of(0.1, sizes)
        with tempfile.TemporaryDirectory() as folder:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(folder) / "cache")
            start = time.perf_counter()
            path = compile_file(model, inputs(sizes), optimizer_of(model), Path(folder), inference=inference)
            seconds = time.perf_counter() - start
            costs["inference" if inference else "training"] = {"seconds": seconds, "bytes": os.path.getsize(path)}
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=results_folder("training"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--no-compile-costs", action="store_true", help="measure steps alone")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    sizes = Sizes(args.layers, args.width, args.vocabulary, args.batch, args.length)
    figures: dict[str, Any] = {**asdict(sizes), "steps": {}}
    for rate in (0.0, 0.1):
        figures["steps"][str(rate)] = measure(steps_of(rate, sizes, args.out / "pefs"), args.rounds)
    rows = [[f"dropout {rate}", *(f"{ms:.1f}" for ms in times.values())] for rate, times in figures["steps"].items()]
    columns = ["ms a step", *next(iter(figures["steps"].values()))]
    head = f"{measured(torch.get_num_threads())}; GPT-2 of {sizes.layers} layers, width {sizes.width}"
    head += f", {sizes.batch} x {sizes.length} tokens"
    (args.out / "steps.md").write_text(headed(head, markdown(columns, rows)))
    print((args.out / "steps.md").read_text())
    if not args.no_compile_costs:
        figures["compile"] = compile_costs(sizes)
        rows = [[kind, f"{c['seconds']:.0f}", f"{c['bytes'] / 1e6:.2f}"] for kind, c in figures["compile"].items()]
        (args.out / "compile.md").write_text(headed(head, markdown(["program file", "seconds", "MB"], rows)))
        print((args.out / "compile.md").read_text())
    (args.out / "training.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
