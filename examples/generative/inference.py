"""Completes prompts with a causal language model: ``compile`` writes its program file, ``run`` generates from it."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from configuration.gpt2_patch import gpt2_patch_helper
from torch import nn
from torch.nn import functional as F  # noqa: N812  as everyone calls it
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions
from utils.checkpoint_utils import load_checkpoint
from utils.datasets import GenerativeDataset

from bossa import samba
from bossa.samba.utils.argparser import parse_app_args


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model_name_or_path", required=True, help="the model's weights, and always its tokenizer")
    parser.add_argument("--config_name", help="a model of this config, without weights of its own, instead")
    parser.add_argument("--max_seq_length", type=int, required=True, help="tokens of a prompt and its completion")


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data_dir", required=True, help="a JSONL file, or a directory of them")
    parser.add_argument("--checkpoint_name", help="weights that train.py has written")
    parser.add_argument("--examples_to_generate", type=int, default=20, help="prompts at most")
    parser.add_argument("--max_tokens_to_generate", type=int, default=20, help="tokens of a completion at most")


def build_model(args: argparse.Namespace) -> nn.Module:
    if args.config_name:
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(args.config_name))
    else:
        model = AutoModelForCausalLM.from_pretrained(args.model_name_or_path)
    return samba.from_torch_model_(gpt2_patch_helper(model.eval()))


def padded(ids: torch.Tensor, mask: torch.Tensor, length: int) -> tuple[Any, ...]:
    """The arguments of the compiled call: ids int32 `[1, L]`, mask fp32 `[1, 1, L]`, positions int16 `[1, L]`."""
    right = (0, length - ids.shape[1])
    positions = torch.arange(length).short().expand(1, length)
    return (
        samba.from_torch_tensor(F.pad(ids, right).int(), name="input_ids"),
        None,
        samba.from_torch_tensor(F.pad(mask, right)[:, None, :].float(), name="attention_mask"),
        None,
        samba.from_torch_tensor(positions, name="input_position_ids"),
    )


def complete(args: argparse.Namespace, model: nn.Module, traced: tuple[torch.Tensor, ...]) -> list[str]:
    """The prompts, each with its completion."""

    def step(input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> CausalLMOutputWithCrossAttentions:
        inputs = padded(input_ids, attention_mask, args.max_seq_length)
        logits = samba.session.run(inputs, traced, section_types=["fwd"])[0]
        return CausalLMOutputWithCrossAttentions(logits=samba.to_torch(logits)[:, : input_ids.shape[1]])

    model.forward = step  # what generate calls for each token is the session from here on
    tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path)
    texts = []
    for record in GenerativeDataset(args.data_dir).records[: args.examples_to_generate]:
        ids = tokenizer(record["prompt"], return_tensors="pt")["input_ids"]
        if ids.shape[1] + args.max_tokens_to_generate > args.max_seq_length:
            raise SystemExit(
                f"a prompt of {ids.shape[1]} tokens and {args.max_tokens_to_generate} more"
                f" do not fit into --max_seq_length {args.max_seq_length}"
            )
        made = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=args.max_tokens_to_generate,
            do_sample=False,
            pad_token_id=tokenizer.eos_token_id,
        )
        texts.append(tokenizer.decode(made[0]))
    return texts


def main() -> None:
    args = parse_app_args(common_parser_fn=add_common_arguments, run_parser_fn=add_run_arguments)
    model = build_model(args)
    ids = torch.zeros(args.batch_size, args.max_seq_length, dtype=torch.int64)
    inputs = padded(ids, torch.ones_like(ids), args.max_seq_length)
    if args.command == "compile":
        samba.session.compile(model, inputs, inference=True)
    elif args.command == "run":
        traced = samba.utils.trace_graph(model, inputs, pef=args.pef)
        if args.checkpoint_name:
            load_checkpoint(model, args.checkpoint_name)
        print(*complete(args, model, traced), sep=f"\n{'-' * 20}\n")


if __name__ == "__main__":
    main()
