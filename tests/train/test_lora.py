"""Adapters: which linears get a pair, and PEFT's format in both directions."""

from __future__ import annotations

from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from bossa.errors import TrainError
from bossa.train import lora
from bossa.train.lora import LoraSettings, add_pairs, find_targets
from support import zoo
from support.training import run, save_model, write_data

IDS = torch.tensor([[5, 9, 17, 3, 120, 77]])
SETTINGS = LoraSettings(rank=4, alpha=6.0, dropout=0.0)


@pytest.mark.parametrize(("name", "endings"), [
    ("gpt2", {"c_attn", "c_proj", "c_fc"}),
    ("llama", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
    ("gpt_neox", {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}),
])  # fmt: skip
def test_every_linear_but_the_head_is_a_target(name: str, endings: set[str]):
    model = zoo.build(zoo.ASKED[name].config())
    found = find_targets(model, ())
    assert {target.rpartition(".")[2] for target in found} == endings
    assert len(found) == 2 * len([name for name in found if ".0." in name])


def test_named_targets_narrow_and_unknown_ones_are_refused():
    model = zoo.build(zoo.ASKED["llama"].config())
    assert find_targets(model, ("q_proj", "lm_head"))[-1] == "lm_head"
    with pytest.raises(TrainError, match=r"no linear is called query; the model has .*q_proj"):
        find_targets(model, ("q_proj", "query"))


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox"])
def test_peft_reads_an_adapter_of_a_run_and_computes_the_same(name: str, tmp_path: Path):
    base = save_model(tmp_path / "base", name)
    result = run(base, write_data(tmp_path / "data"), tmp_path / "out", lora_rank=4, lora_alpha=6.0)
    ours = AutoModelForCausalLM.from_pretrained(base)
    plain = ours(IDS).logits
    add_pairs(ours, find_targets(ours, ()), SETTINGS)
    lora.load_adapter(ours, result.checkpoint)
    theirs = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), result.checkpoint)
    torch.testing.assert_close(theirs.eval()(IDS).logits, ours.eval()(IDS).logits, rtol=1e-4, atol=1e-5)
    assert (ours(IDS).logits - plain).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_an_adapter_of_peft_reads_into_ours(name: str, tmp_path: Path):
    base = save_model(tmp_path / "base", name)
    targets = find_targets(AutoModelForCausalLM.from_pretrained(base), ())
    config = peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM",
        fan_in_fan_out=name == "gpt2",
    )  # fmt: skip
    theirs = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).eval()
    theirs.save_pretrained(tmp_path / "adapter")
    ours = AutoModelForCausalLM.from_pretrained(base)
    add_pairs(ours, targets, SETTINGS)
    lora.load_adapter(ours, tmp_path / "adapter")
    torch.testing.assert_close(ours.eval()(IDS).logits, theirs(IDS).logits, rtol=1e-4, atol=1e-5)


def test_frozen_weights_take_no_gradient():
    model = zoo.build(zoo.ASKED["llama"].config())
    add_pairs(model, find_targets(model, ()), SETTINGS)
    model(IDS, labels=IDS).loss.backward()
    assert all((given.grad is not None) == (".lora_" in name) for name, given in model.named_parameters())


def test_an_adapter_for_other_modules_is_refused(tmp_path: Path):
    base = save_model(tmp_path / "base")
    result = run(base, write_data(tmp_path / "data"), tmp_path / "out", lora_rank=2, lora_targets=("q_proj",))
    model = AutoModelForCausalLM.from_pretrained(base)
    add_pairs(model, find_targets(model, ("q_proj", "v_proj")), LoraSettings(2, 4.0, 0.0))
    with pytest.raises(TrainError, match=r"has nothing for .*v_proj"):
        lora.load_adapter(model, result.checkpoint)
