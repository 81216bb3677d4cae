"""GGUF files: one line where one is cut, damaged, a part, or no language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bossa
from bossa.errors import WeightsError
from bossa.weights import open_weights
from bossa.weights.gguf_file import check_file
from bossa.weights.gguf_header import EXTENTS, check_gguf

SIZES = {int(kind): size for kind, size in gguf.GGML_QUANT_SIZES.items()}
SHAPES = {
    **{"token_embd": (40, 32), "output_norm": (32,), "output": (40, 32), "blk.0.attn_norm": (32,)},
    **{f"blk.0.attn_{part}": (32, 32) for part in ("q", "k", "v", "output")},
    **{"blk.0.ffn_norm": (32,), "blk.0.ffn_gate": (64, 32), "blk.0.ffn_up": (64, 32), "blk.0.ffn_down": (32, 64)},
}

FIELDS = {
    **{"llama.context_length": 64, "llama.embedding_length": 32, "llama.block_count": 1, "llama.vocab_size": 40},
    **{"llama.feed_forward_length": 64, "llama.attention.head_count": 2, "llama.attention.head_count_kv": 2},
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write(tmp_path_factory.mktemp("gguf") / "x.gguf", "llama").read_bytes()


def write(path: Path, architecture: str, order: gguf.GGUFEndian = gguf.GGUFEndian.LITTLE, **more: int) -> Path:
    writer = gguf.GGUFWriter(path, architecture, endianess=order)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(16)
    writer.add_vocab_size(40)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{i}" for i in range(40)])
    writer.add_token_merges(["t 1"])
    for name, value in more.items():
        writer.add_uint16(name.replace("_", "."), value)
    _write_tensors(writer)
    return path


def _write_tensors(writer: Any) -> None:
    generator = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        writer.add_tensor(f"{name}.weight", generator.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def check(path: Path, data: bytes) -> str:
    """Why a file is refused, or nothing."""
    path.write_bytes(data)
    refusal = ""
    try:
        check_gguf(path, SIZES)
    except WeightsError as error:
        refusal = str(error)
    assert refusal.isprintable()
    return refusal


def test_a_whole_file_is_read(tmp_path: Path):
    source = open_weights(write(tmp_path / "x.gguf", "llama"))
    assert len(source.names()) == len(SHAPES)
    assert source.shape("model.layers.0.mlp.up_proj.weight") == (64, 32)


@pytest.mark.parametrize(
    ("architecture", "more", "reason"),
    [
        ("clip", {}, "is the part of a model that sees or hears \\(mmproj\\), not a language model"),
        ("llama", {"split_count": 3}, "is one of 3 parts: join them"),
    ],
)
def test_a_file_that_is_no_whole_language_model_is_named(
    tmp_path: Path, architecture: str, more: dict[str, int], reason: str
):
    with pytest.raises(WeightsError, match=reason):
        open_weights(write(tmp_path / "x.gguf", architecture, **more)).names()


@given(st.floats(0, 1, exclude_max=True))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_that_is_cut_anywhere_is_called_that(tmp_path: Path, raw: bytes, share: float):
    cut = raw[: max(4, int(share * len(raw)))]
    assert "is cut short" in check(tmp_path / "y.gguf", cut)


@given(st.lists(st.tuples(st.integers(4, 2500), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_mutated_header_is_refused_in_a_line_or_lies_within_the_file(
    tmp_path: Path, raw: bytes, changes: list[tuple[int, int]]
):
    data = bytearray(raw)
    for at, value in changes:
        data[at] = value
    check(tmp_path / "z.gguf", bytes(data))


def test_tensors_that_lie_over_each_other_are_refused(tmp_path: Path, raw: bytes):
    at = raw.index(b"output_norm.weight") + len(b"output_norm.weight") + 4 + 8 + 4
    data = raw[:at] + bytes(8) + raw[at + 8 :]
    assert "lies over another" in check(tmp_path / "x.gguf", data)


def test_what_the_file_lacks_is_missing_and_not_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shapes: dict[str, Any] = dict(SHAPES)
    del shapes["blk.0.ffn_up"]
    monkeypatch.setitem(globals(), "SHAPES", shapes)
    source = open_weights(write(tmp_path / "x.gguf", "llama"))
    assert "model.layers.0.mlp.up_proj.weight" not in source.names()


@pytest.mark.parametrize("order", list(gguf.GGUFEndian))
@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("llama.block_count", None, "it lacks llama.block_count, which says how large the model is"),
        ("llama.embedding_length", None, "it lacks llama.embedding_length"),
        ("llama.block_count", 2**31, "its llama.block_count is 2147483648, and its tensors allow 4 at most"),
        ("llama.block_count", [2**31 - 1], "its llama.block_count is 2147483647"),
        ("qwen2.block_count", 2**31, "its qwen2.block_count is 2147483648"),
        ("llama.block_count", -1, "its llama.block_count is -1"),
        ("llama.block_count", 1.5, "its llama.block_count is 1.5"),
        ("llama.block_count", "x\n", r"its llama.block_count is x\\n, and"),
        ("llama.embedding_length", 10**6, "its llama.embedding_length is 1000000, and its tensors allow 64 at most"),
        *((f"llama.{name}", 10**9, f"its llama.{name} is 1000000000") for name in sorted(EXTENTS)),
    ],
)
def test_sizes_that_are_not_those_of_the_tensors_are_refused(
    tmp_path: Path, order: gguf.GGUFEndian, key: str, value: Any, reason: str
):
    path = rewritten(tmp_path / "x.gguf", order, key, value)
    with pytest.raises(WeightsError, match=rf"^[^\n]*x\.gguf: is damaged: {reason}"):
        open_weights(path).names()
    with pytest.raises(WeightsError, match=reason):
        bossa.compile(path)


def test_sizes_that_differ_from_layer_to_layer_are_looked_at_each(tmp_path: Path):
    check_file(rewritten(tmp_path / "x.gguf", gguf.GGUFEndian.LITTLE, "llama.attention.head_count_kv", [2, 0]))
    with pytest.raises(WeightsError, match="head_count_kv is 65"):
        check_file(rewritten(tmp_path / "x.gguf", gguf.GGUFEndian.LITTLE, "llama.attention.head_count_kv", [2, 65]))


def test_metadata_of_a_model_that_is_far_larger_than_the_file_are_refused(tmp_path: Path):
    """A file without the size of its inner layers, for which transformers has one of its own."""
    path = rewritten(tmp_path / "x.gguf", gguf.GGUFEndian.LITTLE, "llama.feed_forward_length", None)
    with pytest.raises(WeightsError, match=r"is damaged: its metadata describe a model of [\d,]+ numbers, and"):
        open_weights(path).names()


def rewritten(path: Path, order: gguf.GGUFEndian, key: str, value: Any) -> Path:
    """The file with a key that has another value, or is not there."""
    plain = {name: kind for name, kind in FIELDS.items() if name != key}
    writer = gguf.GGUFWriter(path, "llama", endianess=order)
    for name, each in plain.items():
        writer.add_uint32(name, each)
    match value:
        case str():
            writer.add_string(key, value)
        case list():
            writer.add_array(key, value)
        case float():
            writer.add_float32(key, value)
        case int():
            writer.add_int64(key, value)
    writer.add_token_list([f"t{i}" for i in range(40)])
    _write_tensors(writer)
    return path
