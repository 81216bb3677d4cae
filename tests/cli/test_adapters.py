"""A model with an adapter by the commands: compile, run, fuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bossa.compiler import compile as compile_model
from support.adapters import make_adapter
from support.lora_files import factors, write_adapter

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def adapted(tiny_model, tmp_path_factory) -> Path:
    """A program that takes adapters."""
    pef = compile_model(tiny_model, batch_size=3, name="tiny", adapters=True)
    return pef.save(tmp_path_factory.mktemp("adapted") / "tiny.pef")


@pytest.fixture(autouse=True)
def _cache(weight_cache, monkeypatch):
    monkeypatch.setenv("BOSSA_CACHE", str(weight_cache))


def _answers(bossa, pef, model, *more) -> list[str]:
    prompts = Path(pef).parent / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in ("The film was", "A", "good")))
    result = bossa("run", "--pef", pef, "--model_name_or_path", model, "--data_dir", prompts, *more)
    assert result.code == 0, result.err
    return result.out


def test_a_run_with_an_adapter_answers_as_the_fused_model_does(bossa, adapted, tiny_pef, tiny_model, tmp_path):
    from transformers import AutoModelForCausalLM

    make_adapter(AutoModelForCausalLM.from_pretrained(tiny_model), tmp_path / "adapter", r=3)
    result = bossa("fuse", tiny_model, "--adapter", tmp_path / "adapter", "--output", tmp_path / "fused")
    assert (result.code, result.out) == (0, f"{tmp_path / 'fused'}\n")
    plain = _answers(bossa, tiny_pef, tiny_model)
    fused = _answers(bossa, tiny_pef, tmp_path / "fused")
    assert fused != plain
    assert _answers(bossa, adapted, tiny_model) == plain
    assert _answers(bossa, adapted, tiny_model, "--adapter", tmp_path / "adapter") == fused


@pytest.mark.parametrize(
    ("config", "module", "message"),
    [
        ({"use_dora": True}, "transformer.h.0.attn.c_attn", "the adapter has DoRA"),
        ({}, "model.layers.0.self_attn.q_proj", "adapts 1 of 1 modules that are no linears of the program"),
        ({}, "transformer.h.0.attn.c_attn", "as a matrix of 4 by 3, and the program's has 96 by 32"),
    ],
)
def test_an_adapter_that_does_not_fit_is_one_line(bossa, adapted, tiny_model, tmp_path, config, module, message):
    folder = write_adapter(tmp_path / "adapter", factors(module), **config)
    result = bossa("run", "--pef", adapted, "--model_name_or_path", tiny_model, "--prompt", "a", "--adapter", folder)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert message in result.err
