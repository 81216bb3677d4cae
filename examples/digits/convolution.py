"""Digits by a small convolutional network, trained and tested in a session.

``compile`` and ``run`` train it and write a checkpoint; ``compile --inference`` and ``run --inference`` test that.
"""

from __future__ import annotations

import argparse

import torch
from data import digits
from torch import nn
from torch.nn import functional as F  # noqa: N812  as everyone calls it
from torch.utils.data import DataLoader

from bossa import samba
from bossa.samba.utils.argparser import parse_app_args


class Convolution(nn.Module):
    """Images `[b, 1, 8, 8]` to logits `[b, 10]`, with the loss before them where there are labels `[b]`."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Dropout(0.25), nn.Flatten()),
        )
        self.head = nn.Linear(32 * 4 * 4, 10)

    def forward(self, images: torch.Tensor, labels: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        logits = self.head(self.features(images))
        return (logits,) if labels is None else (F.cross_entropy(logits, labels), logits)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-b", "--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--dropout", type=float, default=0.25)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--checkpoint", default="digits.pt", help="written after training, read with --inference")


def train(args: argparse.Namespace, model: nn.Module) -> None:
    data, _ = digits()
    loader = DataLoader(data, batch_size=args.batch_size, shuffle=True, drop_last=True)
    for epoch in range(1, args.epochs + 1):
        total, right = 0.0, 0
        for images, labels in loader:
            loss, logits = samba.session.run(
                (
                    samba.from_torch_tensor(images.view(-1, 1, 8, 8), name="image"),
                    samba.from_torch_tensor(labels, name="label"),
                ),
                model.output_tensors,
                hyperparam_dict={"lr": args.lr, "p": args.dropout},
            )
            total += float(loss)
            right += int((samba.to_torch(logits).argmax(1) == labels).sum())
        print(f"epoch {epoch}: loss {total / len(loader):.4f}, accuracy {right / (len(loader) * args.batch_size):.3f}")


def test(args: argparse.Namespace, model: nn.Module) -> None:
    """Accuracy on the images that were not trained with; the last batch is filled up to the compiled shape."""
    _, data = digits()
    right = 0
    for images, labels in DataLoader(data, batch_size=args.batch_size):
        filled = F.pad(images, (0, 0, 0, args.batch_size - len(images))).view(-1, 1, 8, 8)
        logits = samba.session.run([samba.from_torch_tensor(filled, name="image")], model.output_tensors)[0]
        right += int((samba.to_torch(logits)[: len(labels)].argmax(1) == labels).sum())
    print(f"accuracy {right / len(data):.3f}")


def main() -> None:
    samba.utils.set_seed(1)
    args = parse_app_args(common_parser_fn=add_arguments, run_parser_fn=add_run_arguments)
    model = Convolution().train(not args.inference)  # a session keeps the mode that it was traced in
    samba.from_torch_model_(model)
    images = samba.randn(args.batch_size, 1, 8, 8, name="image", batch_dim=0)
    if args.inference:
        inputs, optimizer = (images,), None
    else:
        inputs = (images, samba.randint(10, (args.batch_size,), name="label", batch_dim=0))
        optimizer = samba.optim.SGD(model.parameters(), args.lr, args.momentum, weight_decay=1e-4)
    if args.command == "compile":
        samba.session.compile(model, inputs, optimizer, name="convolution", inference=args.inference)
    elif args.command == "run":
        if args.inference:
            model.load_state_dict(torch.load(args.checkpoint, weights_only=True))
        samba.utils.trace_graph(model, inputs, optimizer, pef=args.pef)
        if args.inference:
            test(args, model)
        else:
            train(args, model)
            samba.session.to_cpu(model)
            torch.save(model.state_dict(), args.checkpoint)


if __name__ == "__main__":
    main()
