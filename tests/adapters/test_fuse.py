"""Merged checkpoints against PEFT's own merge, and against the adapter beside the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from bossa.adapters.fuse import fuse
from bossa.errors import AdapterError
from support import zoo
from support.adapters import make_adapter


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("gpt2", {"target_modules": ["c_attn", "c_proj", "c_fc"], "r": 3}),
        ("gpt2", {"target_modules": ["attn.c_proj"], "fan_in_fan_out": True}),  # square matrices alone
        ("llama", {"use_rslora": True}),
    ],
)
def test_a_fused_checkpoint_is_what_peft_merges(name: str, config: dict[str, Any], tmp_path: Path) -> None:
    model = zoo.build(zoo.MODELS[name].config())
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "tokenizer_config.json").write_text("{}")
    adapted = make_adapter(model, tmp_path / "adapter", **config)
    before = load_file(tmp_path / "model" / "model.safetensors")
    folder = fuse(tmp_path / "model", tmp_path / "adapter", tmp_path / "fused")
    after = load_file(folder / "model.safetensors")
    assert after.keys() == before.keys()
    expected = adapted.merge_and_unload().state_dict()  # type: ignore[operator]
    changed = 0
    for tensor, got in after.items():
        torch.testing.assert_close(got, expected[tensor], atol=1e-6, rtol=1e-5)
        changed += not torch.equal(got, before[tensor])
    assert changed >= 2
    loaded = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    ids = list(range(3, 20))
    assert zoo.error(zoo.reference(loaded, ids), zoo.reference(adapted, ids)) < 1e-5
    assert {file.name for file in folder.iterdir()} == {file.name for file in (tmp_path / "model").iterdir()}


def test_shards_come_out_as_shards_and_numbers_as_they_were_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = zoo.build(zoo.MODELS["llama"].config()).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "model", max_shard_size="40KB")
    adapted = make_adapter(model.float(), tmp_path / "adapter")
    monkeypatch.setattr("bossa.adapters.fuse.SHARD_BYTES", 50_000)
    folder = fuse(tmp_path / "model", tmp_path / "adapter", tmp_path / "fused")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert loaded.dtype == torch.bfloat16
    expected = adapted.merge_and_unload().state_dict()  # type: ignore[operator]
    for name, tensor in loaded.state_dict().items():
        torch.testing.assert_close(tensor, expected[name].to(torch.bfloat16), atol=0, rtol=2**-7)
    exact = sum(torch.equal(t, expected[n].to(torch.bfloat16)) for n, t in loaded.state_dict().items())
    assert exact > len(expected) // 2  # but for products that NumPy and torch round differently


def _small(folder: Path, **tensors: torch.Tensor) -> Path:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text('{"tie_word_embeddings": true}')
    return folder


def _adapter(folder: Path, module: str, n: int, k: int, scale: float = 1.0) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 2}')
    factors = {"A": torch.ones(2, k) * scale, "B": torch.ones(n, 2)}
    save_file(
        {f"base_model.model.{module}.lora_{factor}.weight": tensor for factor, tensor in factors.items()},
        folder / "adapter_model.safetensors",
    )
    return folder


@pytest.mark.parametrize(
    ("module", "shape", "scale", "message"),
    [
        ("other", (4, 3), 1.0, "adapts 1 of 1 modules that .* has no matrix of \\(other\\)"),
        ("linear", (5, 3), 1.0, "adapts linear as a matrix of 5 by 3, and .* has \\[4, 3\\]"),
        ("lm_head", (4, 3), 1.0, "adapts lm_head, which the model's config ties to its embedding"),
        ("linear", (4, 3), 1e6, "'linear.weight' with the adapter does not fit F16"),
    ],
)
def test_what_cannot_be_merged_is_refused_and_leaves_nothing(
    module: str, shape: tuple[int, int], scale: float, message: str, tmp_path: Path
) -> None:
    weights = {f"{name}.weight": torch.ones(4, 3, dtype=torch.float16) for name in ("linear", "lm_head")}
    model, adapter = _small(tmp_path / "model", **weights), _adapter(tmp_path / "adapter", module, *shape, scale)
    with pytest.raises(AdapterError, match=message):
        fuse(model, adapter, tmp_path / "fused")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "model"]


def test_a_folder_that_holds_files_is_not_written_into(tmp_path: Path) -> None:
    model = _small(tmp_path / "model", **{"linear.weight": torch.ones(4, 3)})
    adapter = _adapter(tmp_path / "adapter", "linear", 4, 3)
    with pytest.raises(AdapterError, match="holds files already"):
        fuse(model, adapter, model)
    (tmp_path / "empty").mkdir()
    folder = fuse(model, adapter, tmp_path / "empty")
    np.testing.assert_array_equal(load_file(folder / "model.safetensors")["linear.weight"], np.full((4, 3), 3.0))
