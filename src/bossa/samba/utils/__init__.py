"""Arguments, seeds, paths and metadata of programs, and the tracing of a graph for a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bossa.samba.seed import set_seed
from bossa.samba.utils import argparser, benchmark_acc, common, dataset, pef_utils
from bossa.samba.utils.comparison import assert_close
from bossa.samba.utils.paths import get_file_dir
from bossa.sambaflow.missing import NoSuchAttribute

if TYPE_CHECKING:
    trace_graph: Callable[..., Any]

__all__ = [
    "argparser",
    "assert_close",
    "benchmark_acc",
    "common",
    "dataset",
    "get_file_dir",
    "pef_utils",
    "set_seed",
    "trace_graph",
]


def __getattr__(name: str) -> Any:
    if name == "trace_graph":
        from importlib import import_module

        return import_module("bossa.samba.session").session.trace_graph
    raise NoSuchAttribute("samba.utils", name)
