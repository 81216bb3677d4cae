"""Adapters read from files: scales as PEFT computes them, and what is refused, each in a line that names it."""

from __future__ import annotations

import json
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bossa.adapters import read
from bossa.errors import AdapterError
from support.lora_files import factors, write_adapter

A, B = "base_model.model.m.lora_A.weight", "base_model.model.m.lora_B.weight"


def test_factors_come_by_module_with_the_scale_in_the_second(tmp_path: Path) -> None:
    tensors = factors("layers.0.q_proj")
    adapter = read(write_adapter(tmp_path / "a", tensors, lora_alpha=6))
    (pair,) = adapter.pairs.values()
    assert list(adapter.pairs) == ["layers.0.q_proj"]
    np.testing.assert_array_equal(pair.down, tensors["base_model.model.layers.0.q_proj.lora_A.weight"])
    np.testing.assert_array_equal(pair.up, tensors["base_model.model.layers.0.q_proj.lora_B.weight"] * np.float32(3))


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"lora_alpha": 5}, 2.5),
        ({"lora_alpha": 5, "use_rslora": True}, 5 / sqrt(2)),
        ({"r": 9, "rank_pattern": {"q_proj": 2}, "lora_alpha": 5}, 2.5),
        ({"alpha_pattern": {"k_proj": 1, "0.q_proj": 3, "q_proj": 7}}, 1.5),
        ({"alpha_pattern": {r"layers\.[1-9]\.q_proj": 3}, "lora_alpha": 8}, 4),
        ({"alpha_pattern": {"proj": 3}, "lora_alpha": 8}, 4),
    ],
)
def test_scales_are_peft_s(config: dict[str, Any], scale: float, tmp_path: Path) -> None:
    tensors = factors("layers.0.q_proj")
    (pair,) = read(write_adapter(tmp_path / "a", tensors, **config)).pairs.values()
    np.testing.assert_allclose(pair.up, tensors["base_model.model.layers.0.q_proj.lora_B.weight"] * scale, rtol=1e-6)


def test_the_hash_is_of_all_that_an_adapter_does(tmp_path: Path) -> None:
    def hashed(name: str, module: str = "m", seed: int = 0, **config: Any) -> bytes:
        return read(write_adapter(tmp_path / name, factors(module, seed=seed), **config)).content_hash

    first = hashed("a")
    assert len(first) == 32
    assert hashed("b", target_modules=["m"]) == first
    others = [hashed("c", seed=1), hashed("d", "n"), hashed("e", lora_alpha=3)]
    assert len({first, *others}) == 4


def test_a_torch_file_is_read_too(tmp_path: Path) -> None:
    tensors = factors("m")
    folder = write_adapter(tmp_path / "a", tensors)
    expected = read(folder)
    (folder / "adapter_model.safetensors").unlink()
    torch.save({name: torch.tensor(tensor) for name, tensor in tensors.items()}, folder / "adapter_model.bin")
    assert read(folder).content_hash == expected.content_hash


def test_a_copy_of_an_adapted_head_is_no_tensor_of_the_adapter(tmp_path: Path) -> None:
    tensors = factors("lm_head") | {"base_model.model.lm_head.base_layer.weight": np.ones((4, 3), np.float32)}
    assert list(read(write_adapter(tmp_path / "a", tensors)).pairs) == ["lm_head"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "IA3"}, "is an adapter of type IA3: only LORA is supported"),
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "whole modules"),
        ({"bias": "all"}, "biases"),
        ({"lora_bias": True}, "biases beside its factors"),
        ({"layer_replication": [[0, 1]]}, "layers that are there several times"),
        ({"trainable_token_indices": [1]}, "tokens of the embedding"),
        ({"target_parameters": ["w"]}, "parameters that are no module's weight"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa' changes the model's own weights"),
        ({"r": 3}, "says that the factors of 'm' have rank 3, and they have rank 2"),
        ({"r": 0}, "r is 0, and not a whole number of 1 or more"),
        ({"lora_alpha": "x"}, "lora_alpha is x, and not a number"),
        ({"rank_pattern": {"m": "x"}}, "rank_pattern does not map names to ranks"),
        ({"alpha_pattern": {r"(m)\1": 2}}, "a pattern of rank_pattern or alpha_pattern is not matched"),
    ],
)
def test_configs_of_what_is_not_supported_are_refused_by_name(
    config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(AdapterError) as caught:
        read(write_adapter(tmp_path / "a", factors("m"), **config))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"base_model.model.wte.lora_embedding_A": np.ones((2, 3), np.float32)}, "is of an embedding"),
        ({"base_model.model.m.lora_magnitude_vector.weight": np.ones(4, np.float32)}, "is of DoRA"),
        ({"base_model.model.m.bias": np.ones(4, np.float32)}, "is a bias"),
        ({"base_model.model.lm_head.weight": np.ones((4, 3), np.float32)}, "is no factor of a low-rank pair"),
        ({A: np.ones((2, 3), np.float32)}, "'m' has no lora_B"),
        ({A: np.ones((2, 3, 1), np.float32), B: np.ones((4, 2), np.float32)}, "only linears take adapters"),
        ({A: np.ones((2, 3), np.float32), B: np.ones((4, 3), np.float32)}, "which do not multiply"),
        ({A: np.full((2, 3), np.nan, np.float32), B: np.ones((4, 2), np.float32)}, "hold NaN or infinity"),
        ({A: np.ones((2, 3), np.float32), B: np.full((4, 2), np.inf, np.float32)}, "hold NaN or infinity"),
        ({A: np.ones((2, 3), np.float32), A.replace("A.w", "A.default.w"): np.ones((2, 3), np.float32)}, "two names"),
        ({}, "holds no low-rank pairs"),
    ],
)
def test_tensors_of_what_is_not_supported_are_refused_by_name(
    tensors: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(AdapterError) as caught:
        read(write_adapter(tmp_path / "a", tensors))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "has no adapter_config.json"), ("{", "is not valid JSON"), ("[]", "is not a JSON object")],
)
def test_a_folder_that_is_no_adapter_is_refused(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(AdapterError, match=message):
        read(tmp_path)


def test_a_config_without_factors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(AdapterError, match=r"has no adapter_model\.safetensors and no adapter_model\.bin"):
        read(tmp_path)
