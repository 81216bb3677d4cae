"""Named tensors: what a program gives to a session and gets from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from typing import Any, Self, cast

import torch

from bossa.errors import SambaError
from bossa.samba.indices import widened

_SAME_VALUES = frozenset(
    getattr(torch.Tensor, name)
    for name in ("to type cpu bool byte char short int long half bfloat16 float double contiguous clone detach".split())
)
"""What gives the same values in another form: the name goes with them."""


class SambaTensor(torch.Tensor):
    """A `torch.Tensor` with a name, by which `session.run` knows which input it is.

    Everything that torch does with a tensor it does with this one, and what comes of it is a `SambaTensor` too; the
    name stays through casts and copies.
    """

    sn_name: str | None = None
    """What the tensor is called among the inputs of a traced module."""

    batch_dim: int | None = None
    """Which of its dimensions counts the samples of a batch."""

    sn_grad: torch.Tensor | None = None
    """Of an output: the gradient with which `session.run` starts back-propagation there."""

    def __new__(cls, data: Any, name: str | None = None, batch_dim: int | None = None) -> Self:
        tensor = data if isinstance(data, torch.Tensor) else torch.as_tensor(data)
        made = tensor.as_subclass(cls)
        if made is data:
            made = tensor.as_subclass(torch.Tensor).as_subclass(cls)
        made.sn_name = name
        made.batch_dim = batch_dim
        return made

    def torch_tensor(self) -> torch.Tensor:
        """The same memory as a plain tensor, with its place in autograd's graph."""
        return self.as_subclass(torch.Tensor)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        args, kwargs = widened(func, args, kwargs or {})
        result = super().__torch_function__(func, types, args, kwargs)
        if func in _SAME_VALUES and isinstance(result, SambaTensor) and isinstance(args[0], SambaTensor):
            result.sn_name, result.batch_dim = args[0].sn_name, args[0].batch_dim
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> SambaTensor:
        if id(self) not in memo:
            memo[id(self)] = SambaTensor(deepcopy(self.torch_tensor(), memo), self.sn_name, self.batch_dim)
        return cast(SambaTensor, memo[id(self)])

    def __format__(self, spec: str) -> str:
        return self.detach().as_subclass(torch.Tensor).__format__(spec)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Saved as what it is without the name, so that `torch.load` needs to trust no class of ours.
        return self.as_subclass(torch.Tensor).__reduce_ex__(protocol)


def from_torch_tensor(tensor: torch.Tensor, name: str | None = None, batch_dim: int | None = None) -> SambaTensor:
    """A tensor under a name. The memory is shared; expanded and non-contiguous tensors stay what they are.

    Raises:
        SambaError: It is not a tensor.
    """
    if not isinstance(tensor, torch.Tensor):
        raise SambaError(f"samba.from_torch_tensor takes a torch.Tensor, not {type(tensor).__name__}")
    return SambaTensor(tensor, name, batch_dim)


def to_torch(tensor: torch.Tensor) -> torch.Tensor:
    """Exactly a `torch.Tensor`, detached, of the same memory; a plain tensor is returned as it is.

    Raises:
        SambaError: It is not a tensor.
    """
    if not isinstance(tensor, torch.Tensor):
        raise SambaError(f"samba.to_torch takes a tensor, not {type(tensor).__name__}")
    return tensor if type(tensor) is torch.Tensor else tensor.detach().as_subclass(torch.Tensor)


from_torch = from_torch_tensor
"""The older name."""


def randn(
    *shape: int | Sequence[int], name: str | None = None, batch_dim: int | None = None, **options: Any
) -> SambaTensor:
    """Normal random numbers, as `torch.randn` draws them."""
    return SambaTensor(torch.randn(*shape, **options), name, batch_dim)


def randint(*arguments: Any, name: str | None = None, batch_dim: int | None = None, **options: Any) -> SambaTensor:
    """int64 random numbers below ``high``: ``randint(high, shape)`` or ``randint(low, high, shape)``."""
    return SambaTensor(torch.randint(*arguments, **options), name, batch_dim)


def addmm(bias: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, is_transposed: bool = False) -> torch.Tensor:
    """``x @ weight + bias`` over the last dimension of x, of any rank.

    Args:
        bias: ``[out]``.
        x: ``[..., in]``.
        weight: ``[in, out]``, or ``[out, in]`` with ``is_transposed``.
    """
    return torch.nn.functional.linear(x, weight if is_transposed else weight.t(), bias)
