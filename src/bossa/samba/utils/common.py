"""What programs do the same: compile, or measure."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from torch import nn

from bossa.errors import SambaError

_ITERATIONS = 100


def common_app_driver(
    args: Namespace, model: nn.Module, inputs: Sequence[Any], optim: Any = None, name: str | None = None, **options: Any
) -> None:
    """Do what the command asks: ``compile`` a PEF, or ``measure-performance`` of one and print it.

    Args:
        args: What `parse_app_args` gave; ``n_iters`` says how many iterations are measured, 100 without it.
        model: A converted model.
        inputs: Those that it is traced with, and measured.
        optim: Its optimizers; the sections of training are measured where there are any.
        name: The model's, for ``compile``.
        options: Further ones of ``session.compile``.

    Raises:
        SambaError: The command is another one.
    """
    from bossa.samba.session import session

    if args.command == "compile":
        session.compile(model, inputs, optim, name=name, **options)
    elif args.command == "measure-performance":
        outputs = session.trace_graph(model, inputs, optim, pef=args.pef)
        session.run(input_tensors=inputs, output_tensors=outputs)  # what happens once, first
        iterations = args.n_iters or _ITERATIONS
        start = time.perf_counter()
        for _ in range(iterations):
            session.run(input_tensors=inputs, output_tensors=outputs)
        seconds = (time.perf_counter() - start) / iterations
        print(f"latency: {1000 * seconds:.3f} ms, throughput: {args.batch_size / seconds:.1f} samples/s")
    else:
        raise SambaError(f"common_app_driver compiles or measures; {args.command} is left to the program")
