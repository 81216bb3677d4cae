"""A session that does what is asked by running the module as it stands: the programs are under test here, not it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from bossa.samba import SambaTensor, arguments
from bossa.samba.indices import accepting_short_indices

PROGRAMS = Path(__file__).parent / "programs"


class EagerSession:
    """Keeps the module that was traced last, and calls it for each run."""

    def compile(self, model: nn.Module, inputs: Sequence[Any], optimizers: Any = None, **options: Any) -> str:
        path = arguments.compile_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        print(path)
        return str(path)

    def trace_graph(
        self, model: nn.Module, inputs: Sequence[Any], optim: Any = None, *, pef: str, **options: Any
    ) -> tuple[SambaTensor, ...]:
        assert Path(pef).is_file()
        self.model, self.optim, self.names = model, optim, [getattr(x, "sn_name", None) for x in inputs]
        model.output_tensors = tuple(map(SambaTensor, self._forward(inputs)))
        return model.output_tensors

    def run(
        self, input_tensors: Sequence[Any], output_tensors: Any, section_types: Sequence[str] = (), **options: Any
    ) -> list[SambaTensor]:
        given = {x.sn_name: x for x in input_tensors if x is not None}
        outputs = self._forward([given.get(name) for name in self.names])
        if self.optim is not None and not section_types:
            self.optim.zero_grad()
            outputs[0].mean().backward()
            self.optim.step()
        return [SambaTensor(x.detach()) for x in outputs]

    def to_cpu(self, model: nn.Module) -> None:
        assert model is self.model

    to_rdu = to_cpu

    def _forward(self, inputs: Sequence[Any]) -> Sequence[torch.Tensor]:
        plain = [x if x is None else x.torch_tensor() for x in inputs]
        was, p = self.model.training, {}
        self.model.eval()
        with accepting_short_indices():
            # not model(…): the program may have replaced the class's __call__ by a step that calls us
            outputs = nn.Module.__call__(self.model, *plain, **p)
        self.model.train(was)
        return outputs if isinstance(outputs, tuple) else tuple(outputs.values())


@pytest.fixture(autouse=True)
def eager_session(monkeypatch: pytest.MonkeyPatch) -> EagerSession:
    module = ModuleType("bossa.samba.session")
    session = EagerSession()
    module.session = session  # type: ignore[attr-defined]
    module.SambaSession = EagerSession  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bossa.samba.session", module)
    return session


@pytest.fixture(autouse=True)
def no_sambaflow() -> Iterator[None]:
    """What a program binds is unbound after the test, and with it what it kept of this test's session."""
    finders = list(sys.meta_path)
    yield
    sys.meta_path[:] = finders
    for name in [name for name in sys.modules if name.partition(".")[0] == "sambaflow"]:
        del sys.modules[name]


@pytest.fixture
def programs() -> Path:
    return PROGRAMS
