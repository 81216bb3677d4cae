"""The parameters of a converted module, and parameters that are made when they are first used."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Self

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from bossa.errors import SambaError

Materializer = Callable[["SambaParameter"], torch.Tensor]


class SambaParameter(nn.Parameter):
    """A parameter with a name. To torch it is a parameter like any other, found by identity in sets and dicts.

    ``SambaParameter(shape=…, dtype=…, materializer=f)`` is made lazily: its shape and type are known at once, and
    ``f(parameter)`` is called for its values when they are first needed.

    Raises:
        SambaError: Neither values nor a shape and a materializer are given.
    """

    sn_name: str | None = None
    """Its name in the module, with two underscores for each dot: ``lin_layer__weight``."""

    sn_grad: torch.Tensor | None = None
    """The gradient that the last backward section of a session left, where it kept one."""

    def __new__(
        cls,
        data: torch.Tensor | None = None,
        requires_grad: bool = True,
        *,
        shape: Iterable[int] | None = None,
        dtype: torch.dtype | None = None,
        materializer: Materializer | None = None,
        name: str | None = None,
    ) -> Self:
        if data is not None:
            plain = data.detach().as_subclass(torch.Tensor)
            made = super().__new__(cls, plain if dtype is None else plain.to(dtype), requires_grad)
        elif shape is None or materializer is None:
            raise SambaError("a SambaParameter is made of a tensor, or of a shape and a materializer")
        else:
            # One element seen as all of them: the shape without the memory.
            outline = torch.zeros((), dtype=dtype).expand(tuple(shape))
            made = torch.Tensor._make_subclass(_LazyParameter, outline, requires_grad)
            made._materializer = materializer
        made.sn_name = name
        return made

    def torch_tensor(self) -> torch.Tensor:
        """The values as a plain tensor, of the same memory and outside autograd's graph."""
        return self.detach().as_subclass(torch.Tensor)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        if id(self) not in memo:
            values = self.data.clone(memory_format=torch.preserve_format)
            memo[id(self)] = type(self)(values, self.requires_grad, name=self.sn_name)
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        # A torch.nn.Parameter in files: `torch.load` needs to trust no class of ours.
        return torch._utils._rebuild_parameter, (self.torch_tensor(), self.requires_grad, {})


_ABOUT = frozenset(
    [
        getattr(torch.Tensor, name).__get__
        for name in ("shape", "dtype", "device", "requires_grad", "grad", "is_leaf", "ndim", "layout", "grad_fn")
    ]
    + [
        getattr(torch.Tensor, name)
        for name in ("size", "dim", "numel", "requires_grad_", "is_floating_point", "is_complex", "__hash__", "__len__")
    ]
)
"""What is known of a parameter that has no values yet."""


class _LazyParameter(SambaParameter):
    """A parameter before anyone has asked for its values; it then becomes a `SambaParameter`."""

    _materializer: Materializer

    def _materialize(self) -> None:
        shape, dtype, materializer = self.shape, self.dtype, self._materializer
        values = materializer(self)
        if values.shape != shape:
            raise SambaError(
                f"the materializer of {self.sn_name or 'a SambaParameter'} gave a tensor of shape "
                f"{list(values.shape)}, and the parameter was made with {list(shape)}"
            )
        self.__class__ = SambaParameter
        del self._materializer
        self.data = values.detach().as_subclass(torch.Tensor).to(dtype)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func not in _ABOUT:
            for leaf in tree_leaves((args, kwargs)):
                if type(leaf) is _LazyParameter:
                    leaf._materialize()
            return func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))
