"""What a model's generation config sets: followed where no option says otherwise, as transformers' generate does it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bossa import load
from bossa.errors import RequestError
from bossa.language_model import LanguageModel
from support.toys import toy_model

SAMPLING = {"do_sample": True, "temperature": 1e9, "top_k": 2}


def test_what_the_model_sets_is_followed_and_said_in_one_line(bossa, loading):
    loading.model.generation_config = {"suppress_tokens": [4], "max_new_tokens": 3, "stop_strings": ["f"]}
    result = bossa("run", "-p", "x.pef", "--prompt", "a")
    assert result.out == "bc\n"  # d cannot come, and then the end does
    first, second = result.err.splitlines()
    assert first == (
        "bossa: as generation_config.json has it: suppress_tokens [4], max_new_tokens 3, stop_strings ['f'];"
        " --generation-config none leaves it out"
    )
    assert second.startswith("1 prompt, 3 tokens in")


@pytest.mark.parametrize(
    ("options", "out", "said"),
    [
        (["--generation-config", "none"], "bcdefghijklmnopqrstu\n", None),
        (["--temperature", "0", "--max_tokens_to_generate", "2"], "bc\n", None),
        (["--temperature", "0"], "bcde\n", "max_new_tokens 4"),
        (["--top-k", "1"], "bcde\n", "max_new_tokens 4, temperature 1000000000.0"),
        (["--temperature", "0", "--max_tokens_to_generate", "20"], "bcdefghijklmnopqrstu\n", None),  # though it is 20
    ],
)
def test_an_option_goes_before_what_the_model_sets_field_by_field(bossa, loading, options, out, said):
    loading.model.generation_config = SAMPLING | {"max_new_tokens": 4}
    result = bossa("run", "-p", "x.pef", "--prompt", "a", *options)
    assert (result.code, result.out) == (0, out)
    lines = result.err.splitlines()[:-1]
    expected = f"bossa: as generation_config.json has it: {said}; --generation-config none leaves it out"
    assert lines == ([] if said is None else [expected])


def test_several_samples_are_drawn_at_the_models_temperature_if_it_has_one(bossa, loading, tmp_path):
    prompts, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    prompts.write_text('{"prompt": "a"}\n')
    for own, alike in (({"do_sample": True, "temperature": 1e-9}, True), ({}, False)):  # else at 1
        loading.use()
        loading.model.generation_config = own
        assert bossa("run", "-p", "x.pef", "--data_dir", prompts, "--output", output, "-n", "3").code == 0
        found = [each["completion"] for each in json.loads(output.read_text())["completions"]]
        assert (found == ["bcdefghijklmnopqrstu"] * 3) is alike
    loading.use()
    loading.model.generation_config = SAMPLING
    drawn = bossa("run", "-p", "x.pef", "--prompt", "a", "--seed", "5").out
    with toy_model() as model:
        [completion] = model.generate(["a"], temperature=1e9, top_k=2, seed=5)
    assert drawn == completion.text + "\n"
    assert drawn != "bcdefghijklmnopqrstu\n"


def test_a_model_without_settings_says_nothing(bossa, loading):
    loading.model.generation_config = {"eos_token_id": 0, "temperature": 0.7, "repetition_penalty": 1.0}
    assert len(bossa("run", "-p", "x.pef", "--prompt", "a").err.splitlines()) == 1


# Greedy generation, token for token

PROMPTS = [[72, 101, 108, 108, 111], [32], [5, 6, 5, 6, 5]]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"repetition_penalty": 1.3},
    {"no_repeat_ngram_size": 2, "encoder_repetition_penalty": 1.5},
    {"no_repeat_ngram_size": 1, "encoder_no_repeat_ngram_size": 1, "max_new_tokens": 40},
    {"bad_words_ids": [[7], [256], [30, 31]], "sequence_bias": [[[12], 3.0], [[12, 12], -9.5], [[40], -1.5]]},
    {"suppress_tokens": [*range(0, 256, 2)], "begin_suppress_tokens": [*range(1, 100)], "min_new_tokens": 9},
    {"forced_bos_token_id": 65, "forced_eos_token_id": 256, "max_length": 13, "begin_suppress_tokens": [70, 71]},
    {"exponential_decay_length_penalty": [3, 1.4], "max_new_tokens": 30},
    {"min_length": 12, "exponential_decay_length_penalty": [1, 3.0], "repetition_penalty": 0.9},
    {"min_length": 30, "min_new_tokens": 0, "exponential_decay_length_penalty": [0, 9.0], "max_new_tokens": 25},
    {"temperature": 3.0, "top_k": 3, "top_p": 0.1},  # of sampling, which is not asked for
]


@pytest.fixture(scope="module")
def both(tiny_model: Path, tiny_pef: Path) -> Iterator[tuple[LanguageModel, Any]]:
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(tiny_model, attn_implementation="eager").eval()
    with load(tiny_pef, weights=tiny_model) as model:
        yield model, reference


@pytest.mark.end_to_end
@pytest.mark.filterwarnings("ignore:.*model-agnostic default:UserWarning")
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(settings) or "none")
def test_greedy_tokens_are_those_of_transformers(both, settings):
    import torch
    from transformers import GenerationConfig

    model, reference = both
    model.generation_config = {"eos_token_id": 256, **settings}
    reference.generation_config = GenerationConfig(eos_token_id=256, pad_token_id=256, **settings)
    found = model.generate(PROMPTS)
    for prompt, completion in zip(PROMPTS, found, strict=True):
        made = reference.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.int64))
        assert completion.token_ids == made[0, len(prompt) :].tolist()


@pytest.mark.end_to_end
def test_stop_strings_end_where_transformers_ends(both, tiny_model):
    import torch
    from transformers import AutoTokenizer, GenerationConfig

    model, reference = both
    model.generation_config = {}
    [whole] = model.generate(PROMPTS[:1], max_new_tokens=30)
    stop = next(whole.text[at : at + 2] for at in range(5, 29) if whole.text[at : at + 2].isascii())
    model.generation_config = {"stop_strings": [stop], "max_new_tokens": 30}
    reference.generation_config = GenerationConfig(pad_token_id=256, **model.generation_config)
    ids = torch.tensor(PROMPTS[:1])
    made = reference.generate(
        ids, attention_mask=torch.ones_like(ids), tokenizer=AutoTokenizer.from_pretrained(tiny_model)
    )
    [cut] = model.generate(PROMPTS[:1])
    assert cut.token_ids == made[0, len(PROMPTS[0]) :].tolist()
    assert len(cut.token_ids) < 30
    assert whole.text.startswith(cut.text + stop)


@pytest.mark.end_to_end
def test_a_program_file_is_loaded_with_its_models_settings_or_without(both, tiny_model, tiny_pef, tmp_path):
    from bossa.compiler import compile as compile_model

    settings = {"eos_token_id": 256, "suppress_tokens": [*range(0, 256, 2)], "do_sample": False}
    for source in tiny_model.iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    (tmp_path / "generation_config.json").write_text(json.dumps(settings))
    pef = compile_model(tmp_path, name="tiny")
    with load(pef, weights=tmp_path) as model:
        followed = model.generate(PROMPTS, max_new_tokens=9)
        assert model.generation_defaults.line({}) == "suppress_tokens"
    with load(pef, weights=tmp_path, generation_config="none") as model:
        plain = model.generate(PROMPTS, max_new_tokens=9)
        assert model.generation_config["suppress_tokens"] == settings["suppress_tokens"]
        assert model.generate(PROMPTS, max_new_tokens=9, suppress_tokens=settings["suppress_tokens"]) == followed
    model, _ = both
    model.generation_config = {}
    assert plain == model.generate(PROMPTS, max_new_tokens=9) != followed
    with pytest.raises(RequestError, match='generation_config must be "model" or "none", and is \'file\''):
        load(tiny_pef, weights=tiny_model, generation_config="file")  # type: ignore[arg-type]
