"""One loaded model used from several threads, with a real program."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

import bossa
from bossa.errors import RequestError
from bossa.runtime.memory import FEWEST_ROWS, fixed

pytestmark = pytest.mark.end_to_end

NEW_TOKENS = 24


@pytest.fixture(scope="module")
def model_and_pef(tmp_path_factory):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=101,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
    )
    folder = tmp_path_factory.mktemp("llama")
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder, bossa.compile(config, batch_size=4)


@pytest.fixture
def load(model_and_pef, tmp_path_factory, monkeypatch):
    folder, pef = model_and_pef
    monkeypatch.setenv("BOSSA_CACHE", str(folder / "cache"))
    return lambda **options: bossa.load(pef, weights=folder, threads=2, **options)


def test_threads_get_the_same_bits_together_as_alone(load):
    work = {
        name: [[int(token) for token in np.random.default_rng(name).integers(3, 101, size)] for size in (1, 9, 40)]
        for name in range(4)
    }
    with load() as model:
        alone = {
            name: (model.generate(prompts, max_new_tokens=NEW_TOKENS, ignore_eos=True), model.logits(prompts[2]))
            for name, prompts in work.items()
        }
        together = {}

        def run(name: int) -> None:
            prompts = work[name]
            for _ in range(3):
                completions = model.generate(prompts, max_new_tokens=NEW_TOKENS, ignore_eos=True)
                together[name] = (completions, model.logits(prompts[2]), model.score(prompts[1], prompts[2]))

        threads = [threading.Thread(target=run, args=(name,)) for name in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        for name, (completions, logits) in alone.items():
            assert together[name][0] == completions
            np.testing.assert_array_equal(together[name][1], logits)
            assert together[name][2] == model.score(work[name][1], work[name][2])


@pytest.mark.parametrize("pause", [0.0, 0.01, 0.05])
def test_closing_while_other_threads_generate_is_an_error_there_and_no_crash(load, pause):
    model = load()
    ended: list[Exception] = []

    def run() -> None:
        try:
            while True:
                model.generate([[3, 4, 5]] * 6, max_new_tokens=100, ignore_eos=True)
        except Exception as error:
            ended.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(pause)
    model.close()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert [type(error) for error in ended] == [RequestError] * 3
    assert all("closed" in str(error) for error in ended)


def test_little_kv_memory_changes_the_order_of_work_and_no_token(load, model_and_pef):
    prompts = [[int(token) for token in np.random.default_rng(size).integers(3, 101, size)] for size in range(1, 60, 7)]
    manifest = model_and_pef[1].manifest
    budget = 4 * manifest.page_bytes + fixed(manifest, FEWEST_ROWS, 4)
    with load() as model:
        roomy = model.generate(prompts, max_new_tokens=40, ignore_eos=True)
    with load(memory=budget) as model:
        assert (model.engine.program.pages, model.engine.program.max_rows) == (4, FEWEST_ROWS)
        assert model.generate(prompts, max_new_tokens=40, ignore_eos=True) == roomy


def test_memory_for_less_than_one_page_is_refused_in_words(load):
    with pytest.raises(RequestError, match="100 bytes of memory are too few: one page of keys and values takes"):
        load(memory=100)
