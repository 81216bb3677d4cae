"""Torch files of every shape that a state dict comes in, and hostile ones."""

from __future__ import annotations

import collections
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bossa.errors import WeightsError
from bossa.weights import Slot, Source, bind, open_weights

STATE = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.randn(5)}


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        open_weights(path).names()
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize(
    "saved",
    [
        {"model": STATE, "step": torch.tensor(3)},
        {"state_dict": {"module": STATE}, "rng": torch.zeros(8)},
        {"module": STATE, "args": {"lr": 1.0}, "ds_version": "0.1"},
        {"model_state_dict": collections.OrderedDict(STATE), "optimizer_state_dict": {"state": {0: STATE}}},
        STATE | {"epoch": 3},
    ],
)
def test_a_state_dict_is_found_among_other_things(tmp_path: Path, saved: Any):
    torch.save(saved, tmp_path / "x.pt")
    source = open_weights(tmp_path / "x.pt")
    assert sorted(source.names()) == ["a", "b"]
    np.testing.assert_array_equal(source.read("a"), STATE["a"].numpy())


BASE = torch.arange(24.0)


@pytest.mark.parametrize(
    "tensor",
    [
        BASE.reshape(4, 6).T,
        BASE.reshape(4, 6)[:, ::2],
        BASE[3:4].expand(5, 4),
        BASE.as_strided((3, 3), (1, 2)),
        BASE.reshape(2, 3, 4).permute(2, 0, 1)[1],
        torch.zeros(0, 3),
        torch.tensor(1.5),
        torch.nn.Parameter(BASE.reshape(4, 6)),
        torch._neg_view(BASE.reshape(4, 6)),
    ],
)
@pytest.mark.parametrize("modern", [True, False])
def test_a_tensor_of_any_strides_has_its_values(tmp_path: Path, tensor: torch.Tensor, modern: bool):
    torch.save({"a": tensor}, tmp_path / "x.pt", _use_new_zipfile_serialization=modern)
    array = open_weights(tmp_path / "x.pt").read("a")
    np.testing.assert_array_equal(array, tensor.detach().resolve_neg().numpy(), strict=True)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.eye(3).to_sparse_csr(),
        lambda: torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8),
        lambda: torch.empty(3, 3, device="meta"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_tensor_without_plain_data_is_refused(tmp_path: Path, make: Callable[[], torch.Tensor]):
    torch.save({"a": make()}, tmp_path / "x.pt")
    assert re.search(
        r"tensor 'a' is sparse, quantized, nested or has no data|could run code", refusal(tmp_path / "x.pt")
    )


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.complex64, torch.int64, torch.bool])
def test_a_tensor_of_other_numbers_is_refused_when_it_is_wanted(tmp_path: Path, dtype: torch.dtype):
    torch.save({"a": torch.zeros(3, dtype=dtype)}, tmp_path / "x.pt")
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(WeightsError, match=f"tensor 'a' is stored as {name}, which is not read"):
        bind([Slot("a", "flat", (3,), "fp32", (Source(("a",), (3,)),))], open_weights(tmp_path / "x.pt"))


class Beyond:
    """Claims more than its storage has."""

    def __init__(self, size: tuple[int, ...], stride: tuple[int, ...], offset: int) -> None:
        hooks: Any = collections.OrderedDict()
        self.claims = (offset, size, stride, False, hooks)

    def __reduce__(self) -> Any:
        storage = torch.storage.TypedStorage(
            wrap_storage=BASE.untyped_storage(),
            dtype=torch.float32,
            _internal=True,  # type: ignore[no-untyped-call]
        )
        return torch._utils._rebuild_tensor_v2, (storage, *self.claims)


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize("claims", [((1000, 1000), (1000, 1), 0), ((4,), (1,), 100), ((4,), (-1,), 3)])
def test_a_tensor_beyond_its_storage_is_refused(tmp_path: Path, claims: Any, modern: bool):
    torch.save({"a": Beyond(*claims)}, tmp_path / "x.pt", _use_new_zipfile_serialization=modern)
    assert "is not a torch state dict, or is damaged" in refusal(tmp_path / "x.pt")


@given(data=st.data(), modern=st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_cut_or_mutated_file_is_refused_in_a_line_or_read(data: st.DataObject, modern: bool, tmp_path: Path):
    path = tmp_path / "x.pt"
    torch.save(STATE, path, _use_new_zipfile_serialization=modern)
    raw = path.read_bytes()
    at = data.draw(st.integers(0, len(raw) - 1))
    rest = b"" if data.draw(st.booleans()) else raw[at + data.draw(st.integers(0, 4)) :]
    path.write_bytes(raw[:at] + data.draw(st.binary(max_size=4)) + rest)
    refused = ""
    try:
        source = open_weights(path)
        for name in source.names():
            if source.dtype(name) in ("F32", "F16", "BF16", "F64"):
                assert source.float32(name).shape == source.shape(name)
    except WeightsError as error:
        refused = str(error)
    assert refused.isprintable()
