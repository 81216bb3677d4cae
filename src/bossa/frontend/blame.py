"""Where a model that `torch.export` cannot trace went wrong: the operator and the module that it was running."""

from __future__ import annotations

from typing import Any

import torch
from sympy import Function
from torch.overrides import TorchFunctionMode, resolve_name


class Blame(TorchFunctionMode):
    """Follows a forward under export: its modules, its operators, and the first to fix the sequence's length.

    Use it as a context around the forward. When export raises, :attr:`place` says where.
    """

    def __init__(self, model: torch.nn.Module, lengths: range) -> None:
        """`lengths`: the values that T must be free to take."""
        super().__init__()
        self._names = {module: name for name, module in model.named_modules()}
        self._running: list[torch.nn.Module] = []
        self._operator = ""
        self._lengths = lengths
        self._shapes: Any = None
        self._guards = 0
        self._fixed: str | None = None
        self._doubtful: str | None = None
        self._hooks: list[Any] = []

    def __enter__(self) -> Any:
        hooks = torch.nn.modules.module
        self._hooks = [
            hooks.register_module_forward_pre_hook(self._enter),
            hooks.register_module_forward_hook(self._leave),
        ]
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        super().__exit__(*error)

    @property
    def place(self) -> str:
        """The operator and the module to name.

        Where the forward broke off, those that ran last. Where it went through, those that made the graph one for some
        lengths only, or failing that, whose condition on the length is the first that is not a plain bound.
        """
        return self._place(self._operator) if self._running else self._fixed or self._doubtful or self._place("")

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._shapes is None:
            self._shapes = _shapes_of(args)
        self._look(f"before {_name(function)}")
        self._operator = _name(function)
        result = function(*args, **(kwargs or {}))
        self._look(self._operator)
        return result

    def _enter(self, module: torch.nn.Module, inputs: Any) -> None:
        self._look(f"after {self._operator}")
        if module in self._names:
            self._running.append(module)

    def _leave(self, module: torch.nn.Module, inputs: Any, result: Any) -> None:
        self._look(f"after {self._operator}")
        if module in self._names and self._running:
            self._running.pop()

    def _place(self, operator: str) -> str:
        if not self._running:
            return "the model's forward"
        module = self._running[-1]
        name = self._names[module] or "the model"
        return f"{operator or 'the forward'} in {name} ({type(module).__name__})"

    def _look(self, operator: str) -> None:
        """Note the first place after which the graph no longer holds for every length."""
        if self._fixed is not None or self._shapes is None or len(self._shapes.guards) == self._guards:
            return
        new = self._shapes.guards[self._guards :]
        self._guards = len(self._shapes.guards)
        if any(not self._holds(guard.expr) for guard in new):
            self._fixed = self._place(operator)
        if self._doubtful is None and any(guard.expr.atoms(Function) for guard in new):
            self._doubtful = self._place(operator)

    def _holds(self, guard: Any) -> bool:
        symbols = list(getattr(guard, "free_symbols", ()))
        if len(symbols) != 1:
            return True
        some = [*self._lengths[:64], self._lengths[-1]]
        return all(guard.subs(symbols[0], length) != False for length in some)  # noqa: E712 - sympy's own False


def _shapes_of(args: Any) -> Any:
    for value in args:
        mode = getattr(value, "fake_mode", None)
        if mode is not None and mode.shape_env is not None:
            return mode.shape_env
    return None


def _name(function: Any) -> str:
    name = resolve_name(function) or getattr(function, "__name__", str(function))
    return name.removeprefix("torch.nn.functional.").removeprefix("torch.Tensor.").removeprefix("torch.")
