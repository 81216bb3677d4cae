"""Small random models with LoRA adapters against PEFT, in fp32 with eager attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bossa
from bossa.formats.precision import Precision
from bossa.loading import load
from bossa.pef import Pef
from support import zoo
from support.adapters import make_adapter

pytestmark = pytest.mark.end_to_end

TOLERANCE = 1e-4
"""Of the largest logit of a row: what is promised."""
MATTERS = 1e-2
"""How far the adapter must move the logits at least, in the same measure."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOSSA_CACHE", str(tmp_path / "cache"))


def _ids(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng([seed, length]).integers(3, zoo.VOCABULARY, length).tolist()


def _compiled(name: str, **options: Any) -> Pef:
    return bossa.compile(zoo.MODELS[name].config(), max_seq_length=zoo.LENGTH, batch_size=3, adapters=True, **options)


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2 everywhere": ("gpt2", {"r": 16}),
    "gpt2 in one layer": ("gpt2", {"target_modules": ["c_attn", "c_proj"], "layers_to_transform": [1], "r": 3}),
    "llama everywhere, its head too": (
        "llama",
        {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"]},
    ),
    "llama beside some of what is joined": (
        "llama",
        {"target_modules": ["q_proj", "v_proj", "up_proj"], "r": 8, "rank_pattern": {"v_proj": 20, "0.mlp.up_proj": 1}},
    ),
    "gemma by its own scales": (
        "gemma2",
        {"r": 5, "use_rslora": True, "lora_alpha": 3, "alpha_pattern": {"layers.1.self_attn.q_proj": 12}},
    ),
    "lfm2 beside convolutions": ("lfm2", {"target_modules": ["in_proj", "out_proj", "k_proj", "w1", "w2"], "r": 17}),
}


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_peft_s(case: str, tmp_path: Path) -> None:
    name, config = CASES[case]
    model = zoo.build(zoo.MODELS[name].config())
    model.save_pretrained(tmp_path / "model")
    adapted = make_adapter(model, tmp_path / "adapter", **config)
    with load(_compiled(name), weights=tmp_path / "model", adapter=tmp_path / "adapter", threads=2) as lm:
        for length in (1, 33, 64):
            ids = _ids(length)
            expected = zoo.reference(adapted, ids)
            assert zoo.error(lm.logits(ids), expected) < TOLERANCE, f"{length} tokens"
            assert zoo.error(zoo.reference(model, ids), expected) > MATTERS


def test_without_an_adapter_logits_have_the_bits_of_a_program_that_takes_none(tmp_path: Path) -> None:
    model = zoo.build(zoo.MODELS["llama"].config())
    model.save_pretrained(tmp_path)
    plain = bossa.compile(zoo.MODELS["llama"].config(), max_seq_length=zoo.LENGTH, batch_size=3)
    assert "adapted" not in plain.program_json()
    with load(plain, weights=tmp_path) as expected, load(_compiled("llama"), weights=tmp_path) as lm:
        np.testing.assert_array_equal(lm.logits(_ids(40)).view(np.int32), expected.logits(_ids(40)).view(np.int32))


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantized_weights_stay_as_they_are_beside_an_adapter(precision: Precision, tmp_path: Path) -> None:
    model = zoo.build(zoo.MODELS["llama"].config())
    model.save_pretrained(tmp_path / "model")
    adapted = make_adapter(model, tmp_path / "adapter", r=8)
    pef = _compiled("llama", precision=precision)
    ids = _ids(40)
    with load(pef, weights=tmp_path / "model") as lm:
        plain = lm.logits(ids)
    with load(pef, weights=tmp_path / "model", adapter=tmp_path / "adapter") as lm:
        got = lm.logits(ids)
    lost = zoo.error(plain, zoo.reference(model, ids))
    assert zoo.error(got, zoo.reference(adapted, ids)) < 2 * lost
    assert zoo.error(plain, zoo.reference(adapted, ids)) > 3 * lost


def test_the_bits_of_an_adapted_sequence_do_not_depend_on_batch_chunks_or_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = zoo.build(zoo.MODELS["gpt2"].config())
    model.save_pretrained(tmp_path / "model")
    make_adapter(model, tmp_path / "adapter", r=16)
    pef = _compiled("gpt2", precision="int8")
    places = {"weights": tmp_path / "model", "adapter": tmp_path / "adapter"}
    sequences = [_ids(length, seed=2) for length in (1, 5, 32, 50)]
    with load(pef, **places, threads=1, batch_size=1) as lm:
        alone = [lm.logits(ids) for ids in sequences]
        greedy = [lm.generate([ids], max_new_tokens=8, ignore_eos=True)[0].token_ids for ids in sequences]
    for rows, batch, threads in ((512, 4, 2), (7, 2, 3)):
        monkeypatch.setattr("bossa.runtime.memory.ROWS_OF_A_STEP", rows)
        with load(pef, **places, threads=threads, batch_size=batch) as lm:
            completions = lm.generate(sequences, max_new_tokens=8, ignore_eos=True)
            together = [lm.logits(ids) for ids in sequences]
        for expected, got in zip(alone, together, strict=True):
            np.testing.assert_array_equal(expected, got)
        assert [c.token_ids for c in completions] == greedy


def test_a_program_that_is_compiled_anew_takes_adapters_too(tmp_path: Path) -> None:
    model = zoo.build(zoo.MODELS["gpt2"].config())
    model.save_pretrained(tmp_path / "model")
    make_adapter(model, tmp_path / "adapter")
    pef, places = _compiled("gpt2"), {"weights": tmp_path / "model", "adapter": tmp_path / "adapter"}
    with load(pef, **places) as lm, load(pef, **places, rebuild=True) as rebuilt:
        np.testing.assert_array_equal(rebuilt.logits(_ids(9)), lm.logits(_ids(9)))


def test_an_adapter_of_the_model_without_its_head_fits_the_program(tmp_path: Path) -> None:
    model = zoo.build(zoo.MODELS["llama"].config())
    model.save_pretrained(tmp_path / "model")
    adapted = make_adapter(model, tmp_path / "whole", target_modules=["q_proj"])
    make_adapter(model.model, tmp_path / "adapter", target_modules=["q_proj"], task_type=None)
    places = {"weights": tmp_path / "model", "adapter": tmp_path / "adapter"}
    with load(_compiled("llama"), **places) as lm:
        assert zoo.error(lm.logits(_ids(9)), zoo.reference(adapted, _ids(9))) < TOLERANCE
