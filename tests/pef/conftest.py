"""A small PEF that has one of everything."""

from __future__ import annotations

from typing import Any

import pytest

from bossa.pef import Pef

SLOT = {
    "name": "layers.0.qkv",
    "layout": "panels",
    "shape": [48, 8],
    "dtype": "fp32",
    "interleave": True,
    "sources": [
        {"names": ["q.weight", "tied.weight"], "shape": [8, 16], "transpose": True},
        {"names": ["k.weight"], "shape": [16, 8], "transpose": False},
        {"names": ["v.weight"], "shape": [16, 8], "transpose": False},
    ],
}


@pytest.fixture
def manifest() -> dict[str, Any]:
    return {
        "bossa_version": "0.1.0",
        "name": "tiny",
        "architecture": "TinyForCausalLM",
        "model_type": "tiny",
        "precision": "fp32",
        "max_seq_length": 128,
        "batch_size": 4,
        "vocab_size": 100,
        "page_size": 32,
        "page_bytes": 4096,
        "kv_precision": "fp32",
        "arena_bytes_per_row": 512,
        "targets": ["x86-64-v3"],
        "slots": [SLOT],
        "constants": [{"name": "cos", "dtype": "fp32", "shape": [2, 3], "offset": 64, "bytes": 24}],
        "ignored_tensors": [r"attn\.(masked_)?bias"],
        "parameters": 384,
        "sections": [{"name": "layer", "kind": "loop", "text": "x → y"}],
        "torch_version": "2.13.0",
        "transformers_version": "5.23.0",
    }


@pytest.fixture
def members() -> dict[str, bytes]:
    return {
        "program.json": b'{"ops": []}',
        "program.cc": "int x; // ∑".encode(),
        "program.x86-64-v3.so": bytes(range(256)) * 5,
        "constants.bin": bytes(88),
        "config.json": b'{"model_type": "tiny"}',
        "tokenizer/tokenizer.json": b"{}",
        "weights.bin": b"w" * 1536,
    }


@pytest.fixture
def pef(manifest: dict[str, Any], members: dict[str, bytes]) -> Pef:
    return Pef.build(manifest, members)
