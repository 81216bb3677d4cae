"""Digits by a network of one hidden layer, or by logistic regression: ``compile``, then ``run`` to train and test."""

from __future__ import annotations

import argparse

import torch
from data import digits
from torch import nn
from torch.utils.data import DataLoader

from bossa import samba
from bossa.samba.utils.argparser import parse_app_args


class Classifier(nn.Module):
    """Images `[b, 64]` and labels `[b]` to the loss and the logits `[b, 10]`; without a hidden layer, a regression."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        if hidden:
            self.layers = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
        else:
            self.layers = nn.Sequential(nn.Linear(64, 10))
        self.criterion = nn.CrossEntropyLoss()

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.layers(images)
        return self.criterion(logits, labels), logits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-b", "--batch-size", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=64, help="units; 0 for logistic regression")
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--weight-decay", type=float, default=1e-4)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--epochs", type=int, default=10)


def train(args: argparse.Namespace, model: nn.Module) -> None:
    data, _ = digits()
    loader = DataLoader(data, batch_size=args.batch_size, shuffle=True, drop_last=True)
    hyperparameters = {"lr": args.lr, "momentum": args.momentum, "weight_decay": args.weight_decay}
    for epoch in range(1, args.epochs + 1):
        total = 0.0
        for images, labels in loader:
            loss, _ = samba.session.run(
                [samba.from_torch_tensor(images, name="image"), samba.from_torch_tensor(labels, name="label")],
                model.output_tensors,
                hyperparam_dict=hyperparameters,
            )
            total += float(loss)
        print(f"epoch {epoch}: loss {total / len(loader):.4f}")


def test(model: nn.Module) -> None:
    """Accuracy of the module itself, which has the trained weights after `to_cpu`, on all images at once."""
    samba.session.to_cpu(model)
    _, data = digits()
    with torch.no_grad():
        _, logits = model(*data.tensors)
    print(f"accuracy {(logits.argmax(1) == data.tensors[1]).float().mean():.3f}")


def main() -> None:
    samba.utils.set_seed(1)
    args = parse_app_args(common_parser_fn=add_arguments, run_parser_fn=add_run_arguments)
    model = samba.from_torch_model_(Classifier(args.hidden))
    inputs = (
        samba.randn(args.batch_size, 64, name="image", batch_dim=0),
        samba.randint(10, (args.batch_size,), name="label", batch_dim=0),
    )
    optimizer = samba.optim.SGD(model.parameters(), args.lr, args.momentum, args.weight_decay)
    if args.command == "compile":
        samba.session.compile(model, inputs, optimizer, name="classifier")
    elif args.command == "run":
        samba.utils.trace_graph(model, inputs, optimizer, pef=args.pef)
        train(args, model)
        test(model)


if __name__ == "__main__":
    main()
