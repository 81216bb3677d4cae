"""Tunes a causal language model on prompts with completions: ``compile`` writes its program file, ``run`` trains."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from configuration.gpt2_patch import gpt2_patch_helper
from torch import nn
from torch.nn import functional as F  # noqa: N812  as everyone calls it
from torch.utils.data import ConcatDataset, DataLoader
from transformers import AutoConfig, AutoModelForCausalLM
from utils.checkpoint_utils import save_checkpoint
from utils.datasets import PretrainingGenerativeDataset

from bossa import samba
from bossa.samba.utils.argparser import parse_app_args

PROMPT, COMPLETION, PADDING, END = range(4)
"""The types of tokens; END is the token that closes a record."""

IGNORED = -100


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model_name_or_path", help="the model's weights")
    parser.add_argument("--config_name", help="a model of this config, with random weights, instead")
    parser.add_argument("--max_seq_length", type=int, required=True, help="tokens of a sequence, as the data have it")
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    parser.add_argument("--weight_decay", type=float, default=0.1, help="of matrices and embeddings")
    parser.add_argument("--max_grad_norm_clip", type=float, default=1.0, help="of each optimizer's gradients")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument(
        "--prompt_loss_weight", type=float, default=0.0, help="of a prompt's token; a completion's is 1"
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data_dir", required=True, type=Path, help="train and dev files, as prepare_data.py writes them"
    )
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--checkpoint_name", default="checkpoint.pt", help="the file for the trained weights")


def build_model(args: argparse.Namespace) -> nn.Module:
    if args.config_name:
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(args.config_name))
    elif args.model_name_or_path:
        model = AutoModelForCausalLM.from_pretrained(args.model_name_or_path)
    else:
        raise SystemExit("a model is needed: --model_name_or_path, or --config_name")
    return samba.from_torch_model_(gpt2_patch_helper(model.train()))


def build_optimizers(args: argparse.Namespace, model: nn.Module) -> list[samba.optim.AdamW]:
    """One for the embeddings, one for the other matrices, and one without decay for biases and norms."""
    embeddings = {p for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    others = [p for p in model.parameters() if p not in embeddings]
    groups = [
        ([p for p in model.parameters() if p in embeddings], args.weight_decay),
        ([p for p in others if p.ndim > 1], args.weight_decay),
        ([p for p in others if p.ndim == 1], 0.0),
    ]
    return [
        samba.optim.AdamW(
            parameters,
            lr=args.learning_rate,
            betas=(0.9, 0.997),
            weight_decay=decay,
            max_grad_norm=args.max_grad_norm_clip,
        )
        for parameters, decay in groups
    ]


def named_inputs(ids: torch.Tensor) -> tuple[Any, ...]:
    """The arguments of the compiled call, of token ids `[b, L]`: ids int32, positions and labels int16.

    The label of a token is the next one. int16 has room for 65,536 ids, the upper half as negative numbers.
    """
    positions = torch.arange(ids.shape[1]).short().expand(ids.shape)
    labels = F.pad(ids[:, 1:].short(), (0, 1), value=IGNORED)
    return (
        samba.from_torch_tensor(ids.int(), name="input_ids"),
        *(None, None, None),
        samba.from_torch_tensor(positions, name="input_position_ids"),
        *(None, None, None, None),
        samba.from_torch_tensor(labels, name="labels"),
    )


def target_types(types: torch.Tensor) -> torch.Tensor:
    """The types of the labels, `[b, L]`."""
    return F.pad(types[:, 1:], (0, 1), value=PADDING)


def loss_scale(types: torch.Tensor, prompt_weight: float) -> torch.Tensor:
    """What the loss of each token counts, `[b·L]`, of sum 1: the gradient that back-propagation starts with."""
    weights = torch.tensor([prompt_weight, 1.0, 0.0, 1.0])[target_types(types)]
    return (weights / weights.sum()).bfloat16().float().flatten()


def batches(args: argparse.Namespace, split: str, shuffle: bool = False) -> DataLoader:
    files = sorted(args.data_dir.glob(f"{split}*.hdf5"))
    if not files:
        raise SystemExit(f"{args.data_dir}: no {split} file")
    data = ConcatDataset([PretrainingGenerativeDataset(str(file)) for file in files])
    if len(data) < args.batch_size:
        raise SystemExit(f"{args.data_dir}: {len(data)} {split} sequences are less than a batch of {args.batch_size}")
    return DataLoader(data, batch_size=args.batch_size, shuffle=shuffle, drop_last=True)


def training_batches(args: argparse.Namespace) -> Iterator[list[torch.Tensor]]:
    loader = batches(args, "train", shuffle=True)
    taken = 0
    while True:
        for batch in loader:
            if taken == args.steps:
                return
            taken += 1
            yield batch


def train(args: argparse.Namespace, traced: tuple[samba.SambaTensor, ...]) -> None:
    hyperparameters = {"lr": args.learning_rate, "p": args.dropout}
    for step, (ids, types) in enumerate(training_batches(args), 1):
        scale = loss_scale(types, args.prompt_loss_weight)
        traced[0].sn_grad = scale
        losses, _ = samba.session.run(
            named_inputs(ids), traced, hyperparameters, section_types=["fwd", "bckwd", "gradnorm", "opt"]
        )
        if step == 1 or step % 20 == 0 or step == args.steps:
            print(f"step {step}: loss {samba.to_torch(losses) @ scale:.4f}", flush=True)


def evaluate(args: argparse.Namespace, traced: tuple[samba.SambaTensor, ...], split: str) -> None:
    """Prints the mean loss, and how many completions the model would have said word for word."""
    total, exact, count, steps = 0.0, 0, 0, 0
    for ids, types in batches(args, split):
        inputs = named_inputs(ids)
        losses, logits = samba.session.run(inputs, traced, {"p": 0.0}, section_types=["fwd"])
        total += float(samba.to_torch(losses) @ loss_scale(types, args.prompt_loss_weight))
        right = samba.to_torch(logits).argmax(-1).short() == samba.to_torch(inputs[-1])
        exact += int((right | (target_types(types) != COMPLETION)).all(1).sum())
        count, steps = count + len(ids), steps + 1
    print(f"{split}: loss {total / steps:.4f}, exact match {exact} of {count}")


def main() -> None:
    args = parse_app_args(common_parser_fn=add_common_arguments, run_parser_fn=add_run_arguments)
    model = build_model(args)
    optimizers = build_optimizers(args, model)
    inputs = named_inputs(torch.zeros(args.batch_size, args.max_seq_length, dtype=torch.int64))
    if args.command == "compile":
        samba.session.compile(model, inputs, optimizers, init_output_grads=True)
    elif args.command == "run":
        traced = samba.utils.trace_graph(model, inputs, optimizers, pef=args.pef, init_output_grads=True)
        train(args, traced)
        evaluate(args, traced, "train")
        evaluate(args, traced, "dev")
        save_checkpoint(model, args.checkpoint_name)
        print(f"weights in {args.checkpoint_name}")


if __name__ == "__main__":
    main()
