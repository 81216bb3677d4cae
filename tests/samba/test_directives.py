"""Hints are taken and change nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bossa.errors import SambaError
from bossa.samba.directives import op_fusion


def test_a_hint_leaves_the_module_as_it_is():
    module = nn.Linear(2, 2)
    before, attributes = module(torch.ones(2)), set(vars(module))
    assert op_fusion(module, "Encoder") is module
    assert set(vars(module)) == attributes
    assert torch.equal(module(torch.ones(2)), before)


def test_a_hint_about_anything_else_is_refused():
    with pytest.raises(SambaError, match=r"op_fusion takes a torch\.nn\.Module, not str"):
        op_fusion("layer", "Encoder")  # type: ignore[arg-type]
