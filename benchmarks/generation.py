"""The loop of SambaFlow's generative inference program: a token from the whole padded sequence, again and again.

    python benchmarks/generation.py --model gpt2/ --prompts reviews.jsonl

The step that transformers' `generate` calls is replaced by one of a session, as such programs do. It is timed with the
program file of `session.compile`, and with one that has the traced sections alone; beside them `bossa.load` and its
`generate`, as `bossa run` does it, and transformers with its own cache. All predictions must be the same. Rounds take
turns but for the traced sections, whose every token costs seconds: of these a few are timed, once. Loading and packing
weights is not timed. OUT/generation.json has the figures, generation.md the table. Program files are left in OUT, and
used where they are there. OUT is `generation` among this machine's results unless it is given.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812  as everyone calls it
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions

import bossa
from bossa import samba
from bossa.samba import arguments
from bossa.samba.sections.binding import names_of
from bossa.samba.sections.compiler import compile_module
from comparison.machine import headed, measured, results_folder
from comparison.results import markdown

Generate = Callable[[Sequence[list[int]], int], list[list[int]]]
"""From prompts and the number of tokens to make, to whole sequences."""


def inputs_of(ids: torch.Tensor, mask: torch.Tensor, length: int) -> tuple[Any, ...]:
    rest = (0, length - ids.shape[1])
    ids, mask = F.pad(ids, rest).int(), F.pad(mask, rest)[:, None, :].to(torch.float32)
    positions = torch.arange(length).short().unsqueeze(0).expand(ids.shape)
    named = {"input_ids": ids, "attention_mask": mask, "input_position_ids": positions}
    first, second, third = (samba.from_torch_tensor(tensor, name) for name, tensor in named.items())
    return first, None, second, None, third


class Loop:
    """`generate` of a model whose step runs a session."""

    def __init__(self, folder: str, length: int, place: Path, *, native: bool) -> None:
        self.model = samba.from_torch_model_(AutoModelForCausalLM.from_pretrained(folder).train())
        self.length = length
        ids = torch.randint(0, 5000, (1, length))
        inputs = inputs_of(ids, torch.ones_like(ids), length)
        pef = place / "session" / "session.pef" if native else place / "sections.pef"
        if native and not pef.exists():
            arguments.keep(Namespace(output_folder=str(place), pef_name="session"))
            samba.session.compile(self.model, inputs, inference=True)
        elif not pef.exists():
            compile_module(self.model, inputs, names_of(inputs), [], name="sections", inference=True).save(pef)
        self.outputs = samba.utils.trace_graph(self.model, inputs, pef=pef)

    def __call__(self, prompts: Sequence[list[int]], new: int) -> list[list[int]]:
        def step(model: Any, *_inputs: Any, **given: Any) -> CausalLMOutputWithCrossAttentions:
            ids = given["input_ids"]
            logits = samba.session.run(
                input_tensors=inputs_of(ids, given["attention_mask"], self.length),
                output_tensors=self.outputs,
                hyperparam_dict={"p": 0.0},
                section_types=["fwd"],
            )[0]
            return CausalLMOutputWithCrossAttentions(logits=samba.to_torch(logits)[:, : ids.shape[1], :].float())

        cls: Any = type(self.model)
        try:
            cls.__call__ = step
            return [with_transformers(self.model, prompt, new) for prompt in prompts]
        finally:
            del cls.__call__


def with_transformers(model: Any, prompt: list[int], new: int) -> list[int]:
    ids = torch.tensor([prompt])
    made = model.generate(ids, max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=0)
    return list(made[0].tolist())


def native_engine(folder: str, length: int, place: Path) -> Generate:
    pef = place / "bossa.pef"
    if not pef.exists():
        bossa.compile(folder, max_seq_length=length).save(pef)
    model = bossa.load(pef, weights=folder, generation_config="none")

    def generate(prompts: Sequence[list[int]], new: int) -> list[list[int]]:
        made = [model.generate([prompt], max_new_tokens=new, ignore_eos=True)[0] for prompt in prompts]
        return [[*prompt, *completion.token_ids] for prompt, completion in zip(prompts, made, strict=True)]

    return generate


def read_prompts(path: Path, tokenizer: Any, count: int, longest: int) -> list[list[int]]:
    texts = [json.loads(line)["prompt"] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [tokenizer(text)["input_ids"][:longest] for text in texts[:count]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a directory in Hugging Face's layout")
    parser.add_argument("--prompts", type=Path, required=True, help="JSON lines with a key prompt")
    parser.add_argument("--out", type=Path, default=results_folder("generation"))
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--examples", type=int, default=20)
    parser.add_argument("--new", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sections-tokens", type=int, default=3, help="tokens that the traced sections make")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    prompts = read_prompts(
        args.prompts, AutoTokenizer.from_pretrained(args.model), args.examples, args.length - args.new
    )

    session = Loop(args.model, args.length, args.out, native=True)
    reference = AutoModelForCausalLM.from_pretrained(args.model).eval()
    ways: dict[str, Generate] = {
        "the loop in a session": session,
        "bossa run": native_engine(args.model, args.length, args.out),
        "transformers, its own cache": lambda some, new: [with_transformers(reference, one, new) for one in some],
    }
    session(prompts[:1], 1)  # packs the weights
    expected = ways["transformers, its own cache"](prompts, args.new)
    milliseconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(args.rounds):
        names = list(ways)
        for name in [*names[number % len(names) :], *names[: number % len(names)]]:
            start = time.perf_counter()
            made = ways[name](prompts, args.new)
            milliseconds[name].append(1000 * (time.perf_counter() - start) / (len(prompts) * args.new))
            assert made == expected, f"{name} makes other tokens"
    sections = Loop(args.model, args.length, args.out, native=False)
    start = time.perf_counter()
    assert sections(prompts[:1], args.sections_tokens)[0] == expected[0][: len(prompts[0]) + args.sections_tokens]
    full = "the loop on the traced sections"
    milliseconds[full] = [1000 * (time.perf_counter() - start) / args.sections_tokens]

    medians = {name: statistics.median(values) for name, values in milliseconds.items()}
    ours = medians["the loop in a session"]
    rows = [[name, f"{value:.1f}", f"{value / ours:.2f}"] for name, value in medians.items()]
    table = markdown(["", "ms a token, prompts included", "of the session's"], rows)
    figures = {
        "length": args.length, "examples": len(prompts), "new": args.new,
        "prompt_tokens": [len(prompt) for prompt in prompts], "milliseconds": milliseconds,
    }  # fmt: skip
    name = Path(args.model).resolve().name
    head = f"{measured(torch.get_num_threads())}; {name}, {args.length:,} positions, {len(prompts)} prompts"
    head += f", {args.new} tokens each, fp32"
    (args.out / "generation.md").write_text(headed(head, table))
    (args.out / "generation.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(table)


if __name__ == "__main__":
    main()
