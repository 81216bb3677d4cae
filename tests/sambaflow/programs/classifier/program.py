"""Trains a linear classifier: the calls of SambaFlow's first tutorial, told again."""

import sys

import sambaflow.samba.utils as utils
import torch
from sambaflow import __version__ as sambaflow_version
from sambaflow import samba
from sambaflow.samba.utils.argparser import parse_app_args, parse_yaml_to_args
from sambaflow.samba.utils.dataset.mnist import dataset_transform
from sambaflow.samba.utils.pef_utils import get_pefmeta
from torch import nn
from utils.data import batches


class Classifier(nn.Module):
    def __init__(self, features, classes):
        super().__init__()
        self.lin_layer = nn.Linear(features, classes)
        self.criterion = nn.CrossEntropyLoss()

    def forward(self, inputs, targets):
        out = self.lin_layer(inputs)
        return self.criterion(out, targets), out


def add_args(parser):
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--momentum", type=float, default=0.0)
    parser.add_argument("--weight-decay", type=float, default=3e-4)
    parser.add_argument("--num-steps", type=int, default=20)
    parser.add_argument("--yaml-config", default=None, type=str)


def train(args, model, output_tensors):
    hyperparam_dict = {"lr": args.lr, "momentum": args.momentum, "weight_decay": args.weight_decay}
    sums = 0
    for images, labels in batches(args.batch_size, args.num_steps, dataset_transform(vars(args))):
        loss, outputs = samba.session.run(
            input_tensors=[
                samba.from_torch_tensor(images, name="image", batch_dim=0),
                samba.from_torch_tensor(labels, name="label", batch_dim=0),
            ],
            output_tensors=output_tensors,
            hyperparam_dict=hyperparam_dict,
            data_parallel=args.data_parallel,
            reduce_on_rdu=args.reduce_on_rdu,
        )
        loss, outputs = samba.to_torch(loss), samba.to_torch(outputs)
        sums += loss.mean()
    print("Loss: {:.4f}".format(sums / args.num_steps))  # noqa: UP032
    samba.session.to_cpu(model)
    correct = 0
    with torch.no_grad():
        for images, labels in batches(args.batch_size, 2, dataset_transform(vars(args))):
            loss, outputs = model(images, labels)
            loss, outputs = samba.to_torch(loss), samba.to_torch(outputs)
            correct += (torch.max(outputs.data, 1)[1] == labels).sum()
    print(f"Accuracy: {100.0 * correct / (2 * args.batch_size):.2f}")


def main(argv):
    utils.set_seed(256)
    args = parse_app_args(argv=argv, common_parser_fn=add_args)
    args = parse_yaml_to_args(args.yaml_config, args) if args.yaml_config else args
    ipt = samba.randn(args.batch_size, 784, name="image", batch_dim=0).bfloat16().float()
    tgt = samba.randint(2, (args.batch_size,), name="label", batch_dim=0)
    model = Classifier(784, 2)
    samba.from_torch_model_(model)
    optimizer = None
    if not args.inference:
        optimizer = samba.optim.SGD(
            model.parameters(), lr=args.lr, momentum=args.momentum, weight_decay=args.weight_decay
        )
    if args.command == "compile":
        print(f"SambaFlow {sambaflow_version}")
        samba.session.compile(
            model,
            (ipt, tgt),
            optimizer,
            name="classifier",
            app_dir=utils.get_file_dir(__file__),
            config_dict=vars(args),
            pef_metadata=get_pefmeta(args, model),
        )
    else:
        train(args, model, utils.trace_graph(model, (ipt, tgt), optimizer, pef=args.pef, mapping=args.mapping))


if __name__ == "__main__":
    main(sys.argv[1:])
