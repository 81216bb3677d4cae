"""A model's config to its row program, by whichever way of writing attention can be compiled."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn
from transformers import PretrainedConfig

from bossa.checks.patterns import is_supported
from bossa.errors import BossaError, CompileError, ModelError
from bossa.frontend.build import build_model, copy_on_meta, fix_frequencies
from bossa.frontend.exclusive import alone
from bossa.frontend.lower import lower
from bossa.frontend.operators import IMPLEMENTATION
from bossa.frontend.reasons import NoSuchAttention, TooLong
from bossa.frontend.trace import Call, Trace, call_model, trace_model
from bossa.ir.program import Program

IMPLEMENTATIONS = (IMPLEMENTATION, "eager", "sdpa")
"""Tried in this order: attention through the interface, or written out and recognised by what it computes."""

SHORT = 256
"""What is refused at this length is refused at every one."""

_OLD_BUFFERS = (r"rotary_emb\.inv_freq$", r"\.attn(\.attention)?\.(masked_)?bias$", r"attention\.(masked_)?bias$")
"""What earlier transformers saved with a checkpoint although it is computed."""


@dataclass(frozen=True)
class Imported:
    """A model as a row program, before any pass.

    Attributes:
        architecture: the class that transformers built.
        parameters: how many weights it has.
        ignored: regular expressions of checkpoint tensors that are neither wanted nor missed.
    """

    program: Program
    architecture: str
    parameters: int
    ignored: tuple[str, ...]


def import_model(
    config: PretrainedConfig,
    *,
    name: str,
    max_seq_length: int,
    trust_remote_code: bool = False,
    progress: Callable[[str], None] = lambda stage: None,
) -> Imported:
    """Trace and lower the causal LM of `config`.

    Raises:
        ModelError: transformers cannot build it.
        CompileError: it cannot be compiled; the message names the operator and the module it came from.
    """
    build = partial(build_model, config, trust_remote_code=trust_remote_code)
    with alone():
        return _import(build, call_model, name, max_seq_length, progress)


def import_module(
    model: nn.Module,
    call: Call,
    *,
    name: str,
    max_seq_length: int,
    progress: Callable[[str], None] = lambda stage: None,
) -> Imported:
    """Trace and lower a causal LM that is there as a module, with whatever was replaced in it; it stays as it is.

    Args:
        model: a ``PreTrainedModel``.
        call: how the module is called for its logits.

    Raises:
        CompileError: it cannot be compiled; the message names the operator and the module it came from.
    """
    with alone():
        return _import(partial(copy_on_meta, model), call, name, max_seq_length, progress)


def _import(
    build: Callable[[str], nn.Module],
    call: Call,
    name: str,
    max_seq_length: int,
    progress: Callable[[str], None],
) -> Imported:
    """The first way of writing attention that can be compiled; `build` takes its name and gives a model on ``meta``."""
    failures: list[BossaError] = []
    for implementation in IMPLEMENTATIONS:
        try:
            progress("build")
            model = build(implementation)
            fix_frequencies(model, max_seq_length)
            buffers = [path for path, buffer in model.named_buffers() if not buffer.is_meta]
            progress("trace")
            trace = trace_model(model, max_seq_length, call)
            progress("lower")
            program = _lowered(trace, name, max_seq_length)
        except (ModelError, CompileError) as error:
            failures.append(error)
            continue
        used = {source for slot in program.slots.values() for s in slot.sources for source in s.names}
        unused = [path for path, _ in model.named_parameters(remove_duplicate=False) if path not in used]
        own = [re.escape(path) + "$" for path in (*buffers, *unused)]
        return Imported(
            program=program,
            architecture=type(model).__name__,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            ignored=tuple(dict.fromkeys((*_ignored_by_transformers(model), *own))),
        )
    refused = [error for error in failures if isinstance(error, CompileError)]
    telling = [error for error in failures if not isinstance(error, NoSuchAttention)]
    raise refused[-1] if refused else (telling or failures)[0]


def _lowered(trace: Trace, name: str, max_seq_length: int) -> Program:
    """The row program; a shorter length is only advised where nothing is refused for every length.

    Raises:
        CompileError: it cannot be lowered.
    """
    try:
        return lower(trace, name=name, max_seq_length=max_seq_length)
    except TooLong as error:
        if error.shorter >= 2:
            with suppress(TooLong):
                lower(trace, name=name, max_seq_length=min(error.shorter, SHORT))
        raise


def _ignored_by_transformers(model: Any) -> list[str]:
    """What transformers itself passes over in checkpoints of this model, and of the models inside it.

    A model's own code may have expressions that a program file cannot hold; tensors that they alone name are then
    refused when they are met.
    """
    patterns: list[str] = []
    for module in model.modules():
        own = getattr(module, "_keys_to_ignore_on_load_unexpected", None) or ()
        patterns += sorted(own) if isinstance(own, (set, frozenset)) else own
    return [*filter(is_supported, patterns), *_OLD_BUFFERS]
