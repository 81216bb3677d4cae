"""One call of a module as a graph: the module runs on tensors without values, and every operator is written down.

The module's own Python runs, so that replaced forwards, loops and hooks count as they are. What depends on values (an
``if`` on a tensor's contents) has no answer then, and is refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch._export.utils import _compiling_state_context
from torch._functorch.aot_autograd import aot_export_joint_simple
from torch._inductor import config as inductor_config
from torch._inductor.decomposition import select_decomp_table
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.fx import traceback
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils.stateless import _reparametrize_module
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from bossa.errors import BossaError, CompileError
from bossa.frontend.exclusive import alone
from bossa.samba.indices import accepting_short_indices
from bossa.samba.sections.draws import lift_constants, lift_draws
from bossa.samba.sections.dropout import DropoutSites, Site, Wanted
from bossa.samba.sections.graph import Argument, Graph, Spec


@alone()
def trace(
    model: nn.Module,
    inputs: Sequence[Any] | Mapping[str, Any],
    names: Sequence[str],
    *,
    wanted: Wanted = lambda _number, _rate: True,
    joint: bool = False,
) -> Graph:
    """The graph of ``model(*inputs)``, in the training or evaluation mode that each module is in.

    Threads that trace wait for one another.

    Args:
        inputs: arguments, nested as one likes, `None`s among them; a mapping holds keyword arguments.
        names: what the tensors among them are called, in order.
        wanted: which dropouts are in the graph, see `DropoutSites`.
        joint: with the gradients of the parameters that need them, in the operators that Inductor compiles.

    Raises:
        CompileError: the call depends on values, or fails.
    """
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    leaves, structure = tree_flatten(inputs)
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
    with torch.no_grad():
        specs = [
            *(Argument("parameter", name, device_layout(tensor)) for name, tensor in parameters.items()),
            *(Argument("buffer", name, device_layout(tensor)) for name, tensor in buffers.items()),
            *(Argument("input", name, device_layout(leaves[place])) for name, place in zip(names, places, strict=True)),
        ]
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        tensors = [argument.spec.empty() for argument in specs]
    trains = joint and any(parameter.requires_grad for parameter in parameters.values())
    for tensor, (_, parameter) in zip(tensors, parameters.items(), strict=False):
        tensor.requires_grad_(joint and parameter.requires_grad)

    call = _Call(model, list(parameters), list(buffers), leaves, places, structure, wanted)
    with _tracing(fake), call.modules_named():
        try:
            module = aot_export_joint_simple(
                call,
                tuple(tensors),
                trace_joint=trains,
                decompositions=select_decomp_table() if joint else _without_empty_parts(),
            )
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise CompileError(
                f"{call.place()} does what depends on the values of a tensor ({error.func}): the graph of a module"
                " is the same for all inputs, so choose by something else"
            ) from None
        except BossaError:
            raise
        except Exception as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise CompileError(f"{call.place()} cannot be traced: {type(error).__name__}: {reason}") from error
    assert isinstance(module, fx.GraphModule)
    module.graph.eliminate_dead_code()
    arguments = list(specs)
    constants = lift_constants(module, arguments)
    draws = lift_draws(module, arguments, call.sites)
    module.recompile()
    return Graph(
        module,
        arguments,
        call.outputs,
        call.mutated,
        call.sites,
        call.dropped,
        constants,
        draws,
        call.differentiable if trains else [],
    )


def _without_empty_parts() -> dict[torch._ops.OpOverload, Callable[..., Any]]:
    """What Inductor makes of ``cat``, also in the graph of the forward pass alone.

    It leaves out what is empty: the keys and values that a cache of transformers begins with are tensors that no
    input has, and a joint graph would have fewer of those than a forward one.
    """
    cat = torch.ops.aten.cat.default
    return {cat: select_decomp_table()[cat]}


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of no subclass, of the same memory, outside autograd's graph."""
    return tensor.detach().as_subclass(torch.Tensor)


def device_layout(tensor: torch.Tensor) -> Spec:
    """How a session takes a tensor: as it lies, or contiguous where its elements overlap."""
    return Spec.of(torch.empty_like(plain(tensor), device="meta"))


@contextlib.contextmanager
def _tracing(fake: FakeTensorMode) -> Iterator[None]:
    with (
        fake,
        _compiling_state_context(),  # transformers and others ask, and then leave out looks at values
        traceback.preserve_node_meta(),
        _without_onednn(),
        inductor_config.patch(fallback_random=True),
    ):
        yield


@contextlib.contextmanager
def _without_onednn() -> Iterator[None]:
    """Its LSTM is one operator with a state that no graph can save; others are chosen when they run, not here."""
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


class _Call:
    """``model(*inputs)`` as a function of flat tensors; what it found out at its last run is in its attributes."""

    def __init__(
        self,
        model: nn.Module,
        parameters: list[str],
        buffers: list[str],
        leaves: list[Any],
        places: list[int],
        structure: Any,
        wanted: Wanted,
    ) -> None:
        self.model = model
        self.parameters, self.buffers = parameters, buffers
        self.leaves, self.places, self.structure = leaves, places, structure
        self.wanted = wanted
        self.names = {id(module): name for name, module in model.named_modules()}
        self.path: list[str] = []
        self.callers: list[nn.Module] = []
        self.sites: list[Site] = []
        self.dropped: list[bool] = []
        self.outputs: list[Spec] = []
        self.mutated: list[str] = []
        self.differentiable: list[int] = []

    def __call__(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        """The outputs, then the buffers that changed."""
        count = len(self.parameters)
        self.callers.clear()
        self.path.clear()
        state = dict(zip(self.parameters, tensors, strict=False))
        # Copies, so that a changed buffer is one more output and not a changed input.
        copies = {name: tensor.clone() for name, tensor in zip(self.buffers, tensors[count:], strict=False)}
        leaves = list(self.leaves)
        for place, tensor in zip(self.places, tensors[count + len(self.buffers) :], strict=True):
            leaves[place] = tensor
        arguments = tree_unflatten(leaves, self.structure)
        sites = DropoutSites(self.callers, self.wanted)
        with _reparametrize_module(self.model, {**state, **copies}, tie_weights=True):
            with accepting_short_indices(), sites:
                # Not model(…): a program may have put a step of its own in the place of the class's __call__.
                if isinstance(arguments, Mapping):
                    result = nn.Module.__call__(self.model, **arguments)
                else:
                    result = nn.Module.__call__(self.model, *arguments)
            after = dict(self.model.named_buffers())
        self.sites, self.dropped = sites.sites, sites.dropped
        outputs = _apart(_tensors(result), tensors)
        if not outputs:
            raise CompileError("the module returns no tensor: a session can do nothing with it")
        self.outputs = [Spec.of(output) for output in outputs]
        self.differentiable = [number for number, output in enumerate(outputs) if output.requires_grad]
        self.mutated = [name for name in self.buffers if name in after and _changed(copies[name], after[name])]
        return [*outputs, *(after[name].detach() for name in self.mutated)]

    def place(self) -> str:
        """The module that failed, for messages."""
        # The hooks that would take it off are not called for a module that fails.
        name = self.path[-1] if self.path else ""
        kind = type(self.model.get_submodule(name)).__name__
        return f"module {name} ({kind})" if name else f"the model ({kind})"

    @contextlib.contextmanager
    def modules_named(self) -> Iterator[None]:
        """Writes the path of the module into each node, and keeps who is being called."""

        def enter(module: nn.Module, _args: Any) -> None:
            self.callers.append(module)
            self.path.append(self.names.get(id(module), self.path[-1] if self.path else ""))
            _annotate(self.path[-1])

        def leave(module: nn.Module, _args: Any, _result: Any) -> None:
            self.callers.pop()
            self.path.pop()
            _annotate(self.path[-1] if self.path else "")

        handles = [
            register_module_forward_pre_hook(enter),
            register_module_forward_hook(leave, always_call=True),
        ]
        before = traceback.current_meta.get("custom")
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self.callers.clear()
            traceback.current_meta.pop("custom", None)
            if before is not None:
                traceback.current_meta["custom"] = before


def _annotate(path: str) -> None:
    traceback.current_meta["custom"] = {"module": path}


def _tensors(result: Any) -> list[torch.Tensor]:
    """The tensors of a module's result, in order: of tuples, mappings, and dataclasses, however nested."""
    found: list[torch.Tensor] = []
    for leaf in tree_leaves(result):
        if isinstance(leaf, torch.Tensor):
            found.append(leaf)
        elif dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            found += _tensors([getattr(leaf, field.name) for field in dataclasses.fields(leaf)])
    return found


def _apart(outputs: list[torch.Tensor], inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The outputs, copied where they share memory with an input, or with another output."""
    seen = {_memory(tensor) for tensor in inputs}
    result = []
    for output in outputs:
        if output._base is not None or _memory(output) in seen:
            output = output.clone()
        seen.add(_memory(output))
        result.append(output)
    return result


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _changed(before: torch.Tensor, after: torch.Tensor) -> bool:
    if before is not after:
        return True
    if isinstance(after, FunctionalTensor):
        return bool(torch._functionalize_has_data_mutation(after.elem))
    return after._version > 0


def as_compiled(dropped: Sequence[bool]) -> Wanted:
    """The dropouts that an earlier trace had."""
    return lambda number, _rate: number >= len(dropped) or dropped[number]
