"""The native program of a causal language model beside its sections, once both have been seen to agree."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from bossa.errors import CompileError, SambaError
from bossa.formats.precision import Precision, why_not
from bossa.pef.module import CausalPlan, ModulePef
from bossa.samba.causal.executor import NativeExecutor, constants_of
from bossa.samba.causal.inputs import Roles, check_shapes, roles_of
from bossa.samba.causal.weights import digest
from bossa.samba.logging import samba_logger
from bossa.samba.sections.program import SectionProgram

TOLERANCE = 1e-4
"""Of a row's largest logit: how far both may be apart. Sums in another order part by some 1e-6; what computes something
else parts by far more, since all weights are disturbed first."""

DISTURBANCE = 0.01


def with_native(
    pef: ModulePef,
    model: nn.Module,
    inputs: Sequence[Any] | Mapping[str, Any],
    names: Sequence[str],
    precision: str = "fp32",
) -> ModulePef:
    """The file with the native program in it; the file as it is, and a message why, where there can be none.

    Args:
        pef: the sections of ``model(*inputs)``, compiled for inference.
        precision: of the program's weights. What is compared is the same program in fp32.

    Raises:
        SambaError: there is no such precision.
    """
    if (line := why_not(precision)) is not None:
        raise SambaError(f"config_dict: {line}")
    if not _is_causal(model):
        return pef
    try:
        return _compiled(pef, model, inputs, names, cast("Precision", precision))
    except Exception as error:  # whatever stands against it, the sections do what the program would
        reason = str(error).partition("\n")[0] or type(error).__name__
        samba_logger.info(f"{pef.manifest.name}: the file has the traced sections alone: {reason}")
        return pef


def _is_causal(model: nn.Module) -> bool:
    transformers = sys.modules.get("transformers")
    return (
        transformers is not None
        and isinstance(model, transformers.PreTrainedModel)
        and bool(model.can_generate())
        and not model.config.is_encoder_decoder
    )


def _compiled(
    pef: ModulePef,
    model: Any,
    inputs: Sequence[Any] | Mapping[str, Any],
    names: Sequence[str],
    precision: Precision,
) -> ModulePef:
    """Compiles, and compares.

    Raises:
        CompileError: the model is none that can be compiled, or the two do not agree.
    """
    from bossa.compiler import compile_module

    roles = roles_of(model, inputs)
    sections = SectionProgram(pef, model, inputs, names, [])
    b, length = check_shapes(roles.numbers, sections.inputs)
    outputs = sections.graph.outputs
    if len(outputs) != 1 or outputs[0].shape[:2] != (b, length) or len(outputs[0].shape) != 3:
        found = ", ".join(map(str, outputs))
        raise CompileError(f"it returns {found}, and not the logits of all rows alone")
    if outputs[0].dtype != torch.float32:
        raise CompileError(f"it computes in {outputs[0].dtype}, and not in float32")
    if sections.graph.mutated:
        raise CompileError(f"its forward pass changes {sections.graph.mutated[0]}")
    compiled = partial(compile_module, model, _Call(roles), name=pef.manifest.name, max_seq_length=length, batch_size=b)
    native = compiled()
    if native.manifest.state_bytes:
        raise CompileError("it keeps recurrent state, which cannot be cut back to where two calls begin to differ")
    constants = digest(constants_of(sections.device, sections.graph.constants, native))
    numbers = roles.numbers
    plan = CausalPlan(numbers["input_ids"], numbers.get("attention_mask"), numbers.get("position_ids"), constants)
    executor = NativeExecutor(native, plan, sections.graph, sections.device, sections.executors[-1])
    _check_agreement(sections, executor, plan, native.manifest.vocab_size)
    if precision != "fp32":
        native = compiled(precision=precision)
    return pef.with_native(native, plan)


class _Call:
    """How the native program's trace calls the model: with ids, and what the program gives beside tensors."""

    def __init__(self, roles: Roles) -> None:
        self._options = roles.options

    def __call__(self, model: Any, input_ids: torch.Tensor) -> torch.Tensor:
        # Not model(…): a program may have put a step of its own in the place of the class's __call__.
        result = nn.Module.__call__(model, input_ids=input_ids, **self._options)
        logits = result[0] if isinstance(result, tuple | list) else next(iter(result.values()))
        assert isinstance(logits, torch.Tensor)
        return logits


@torch.no_grad()
def _check_agreement(sections: SectionProgram, executor: NativeExecutor, plan: CausalPlan, vocab_size: int) -> None:
    """Runs both on random tokens and weights, for sequences of several lengths.

    Raises:
        CompileError: a row's logits are further apart than `TOLERANCE`.
    """
    random = torch.Generator().manual_seed(0)
    for tensor in sections.device.parameters.values():
        # Biases of zeros and norms of ones would hide that one of the two leaves them out.
        spread = 0.1 * float(tensor.float().std(correction=0)) + DISTURBANCE
        tensor.add_(torch.randn(tensor.shape, generator=random) * spread)
    ids = sections.inputs[plan.input_ids].spec
    b, length = ids.shape
    for n in dict.fromkeys((length, max(1, length // 3), min(2, length))):
        lengths = [max(1, n - row) for row in range(b)]
        if plan.attention_mask is None:
            lengths = [length] * b
        inputs = [torch.zeros(argument.spec.shape, dtype=argument.spec.dtype) for argument in sections.inputs]
        most = min(vocab_size, torch.iinfo(ids.dtype).max)
        inputs[plan.input_ids].copy_(torch.randint(0, most, ids.shape, generator=random))
        if plan.attention_mask is not None:
            rows = inputs[plan.attention_mask].view(b, length)
            for row, count in zip(rows, lengths, strict=True):
                row[:count] = 1
        if plan.position_ids is not None:
            inputs[plan.position_ids].copy_(torch.arange(length))
        ours = executor.logits(inputs)
        if ours is None:
            raise CompileError("the native program does not take its weights")
        theirs = sections.executors[-1].run_forward(inputs, 0.0)[0]
        for row, count in enumerate(lengths):
            _compare(ours[row, :count], theirs[row, :count])


def _compare(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Logits ``[n, V]``, row by row."""
    size = theirs.abs().amax(dim=1)
    apart = (ours - theirs).abs().amax(dim=1) / size.clamp(min=torch.finfo(torch.float32).tiny)
    worst = float(apart.nan_to_num(nan=torch.inf).max())
    if not worst <= TOLERANCE:
        row = int(apart.nan_to_num(nan=torch.inf).argmax())
        raise CompileError(
            f"the native program and the traced sections do not agree: logits of row {row} of {len(ours)} are"
            f" {worst:.1e} of the largest apart, and {TOLERANCE:.0e} is allowed"
        )
