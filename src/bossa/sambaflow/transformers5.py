"""What programs of SambaFlow's time find in transformers 4, and transformers 5 has no more.

Put back only when a program runs under ``bossa.sambaflow``, as soon as it has imported the module in question:

- ``transformers.modeling_utils.Conv1D``, now in ``transformers.pytorch_utils``: patches name it as the class of the
  layers whose ``forward`` they replace.
- ``GPT2Attention.bias``, the causal mask ``[1, 1, L, L]`` of bools that was a buffer of each attention, and
  ``masked_bias``, the number that stood for minus infinity. The class makes its masks elsewhere now; patches read the
  shape and set the attribute again. Here they are computed when read, so that a model that is built without memory
  and filled later has them too. They are attributes and not buffers: a loop over the buffers does not find them.

That ``generate`` gives a replaced step the ids and the mask that it needs is part of `bossa.samba.generation`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_MASKED = -1e4
"""What transformers 4 put in the place of masked scores."""


def _put_conv1d_back(modeling_utils: ModuleType) -> None:
    if not hasattr(modeling_utils, "Conv1D"):
        from transformers.pytorch_utils import Conv1D

        modeling_utils.Conv1D = Conv1D  # type: ignore[attr-defined]


def _put_masks_back(modeling_gpt2: ModuleType) -> None:
    attention = modeling_gpt2.GPT2Attention
    if not hasattr(attention, "bias"):
        attention.bias = _Computed(lambda module: _causal(module.config.max_position_embeddings))
        attention.masked_bias = _Computed(lambda _: _masked())


_RESTORED: dict[str, Callable[[ModuleType], None]] = {
    "transformers.modeling_utils": _put_conv1d_back,
    "transformers.models.gpt2.modeling_gpt2": _put_masks_back,
}
"""What to do with a module once it is imported."""


def restore() -> None:
    """Put the names back, now where their module is imported already, else when it is. Twice does no harm."""
    for name, put_back in _RESTORED.items():
        if name in sys.modules:
            put_back(sys.modules[name])
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Computed:
    """An attribute that is computed where an instance has none of its own; setting it gives the instance one."""

    def __init__(self, value: Callable[[Any], Any]) -> None:
        self.value = value

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else self.value(instance)


@functools.cache
def _causal(length: int) -> Any:
    import torch

    return torch.ones(length, length, dtype=torch.bool).tril().view(1, 1, length, length)


@functools.cache
def _masked() -> Any:
    import torch

    return torch.tensor(_MASKED)


class _Finder(MetaPathFinder):
    """Finds those modules as the other finders do, and sees to it that they are put right once they are loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _RESTORED:
            return None
        for finder in sys.meta_path:
            spec = None if isinstance(finder, _Finder) else finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Loader(spec.loader, _RESTORED[fullname])
                return spec
        return None


class _Loader(Loader):
    """A module's own loader, and then something more."""

    def __init__(self, loader: Loader, put_back: Callable[[ModuleType], None]) -> None:
        self.loader = loader
        self.put_back = put_back

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.loader
        assert module.__spec__ is not None
        module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        self.put_back(module)
