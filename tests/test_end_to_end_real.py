"""Real models, in the folder that ``BOSSA_TEST_MODELS`` names: the seed's job, compared with transformers.

Looked for are ``smollm2-135m`` (a directory of SmolLM2-135M-Instruct) and ``smollm2.gguf``; what is not there is
skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bossa

pytestmark = [pytest.mark.slow, pytest.mark.end_to_end]

REVIEWS = Path(__file__).parent.parent / "examples" / "movie_reviews" / "reviews.jsonl"
NEW_TOKENS = 40
TIE = 1e-5
"""Two logits of the reference this near to each other (relative to the larger) may change places: the one excuse."""
SEPARATOR = "\n" + "-" * 20 + "\n"
BOSSA = [sys.executable, "-m", "bossa"]
WITHOUT_TORCH = [
    *(sys.executable, "-c"),
    "import sys; sys.modules.update(dict.fromkeys(['torch', 'transformers', 'gguf'])); from bossa.cli import main;"
    " sys.exit(main())",
]


def real(name: str) -> Path:
    folder = os.environ.get("BOSSA_TEST_MODELS")
    if not folder:
        pytest.skip("BOSSA_TEST_MODELS names no folder of real models")
    path = Path(folder) / name
    if not path.exists():
        pytest.skip(f"BOSSA_TEST_MODELS has no {name}")
    return path


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return {**os.environ, "BOSSA_CACHE": str(tmp_path_factory.mktemp("cache"))}


def compiled(model: Path, name: str, folder: Path, environment: dict[str, str], *options: str) -> Path:
    arguments = ["compile", "--inference", "--model_name_or_path", str(model), "--max_seq_length", "512", "-b", "8"]
    result = subprocess.run(
        [*BOSSA, *arguments, "--output-folder", str(folder), "--pef-name", name, *options],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        check=True,
    )
    return Path(result.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def smollm2(environment, tmp_path_factory) -> tuple[Path, Path]:
    """The model, and its program."""
    model = real("smollm2-135m")
    return model, compiled(model, "smollm2", tmp_path_factory.mktemp("out"), environment)


@pytest.fixture(scope="module")
def reference():
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        real("smollm2-135m"), dtype=torch.float32, attn_implementation="eager"
    ).eval()


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(real("smollm2-135m"))


def prompts() -> list[str]:
    return [json.loads(line)["prompt"] for line in REVIEWS.read_text(encoding="utf-8").splitlines()]


def equal_but_for_ties(reference, theirs: list[int], ours: list[int], prompt: int) -> bool:
    """Whether the two are equal; where they first differ, the reference's own two best logits must be a tie."""
    import torch

    if theirs == ours:
        return True
    first = next(place for place, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b)
    with torch.no_grad():
        best, second = reference(torch.tensor([theirs[:first]])).logits[0, -1].topk(2).values.tolist()
    assert best - second <= TIE * abs(best), f"token {first - prompt} after the prompt differs"
    return False


def test_smollm2_predicts_byte_for_byte_what_the_seeds_loop_predicts(environment, smollm2, reference, tokenizer):
    model, pef = smollm2
    arguments = ["run", "--inference", "-p", str(pef), "--model_name_or_path", str(model), "--data_dir", str(REVIEWS)]
    command = [*WITHOUT_TORCH, *arguments, "--max_tokens_to_generate", str(NEW_TOKENS)]
    result = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True)
    predictions = result.stdout.decode().removesuffix("\n").split(SEPARATOR)
    excused = 0
    for prompt, prediction in zip(prompts(), predictions, strict=True):
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        generated = reference.generate(ids, max_length=ids.shape[-1] + NEW_TOKENS, do_sample=False)[0].tolist()
        if tokenizer.decode(generated) != prediction:
            ours = tokenizer(prediction)["input_ids"]
            assert not equal_but_for_ties(reference, generated, ours, ids.shape[-1])
            excused += 1
    print(f"{len(predictions) - excused} of {len(predictions)} predictions equal, {excused} excused by a tie")


def test_smollm2_generates_the_tokens_of_transformers_past_every_end(smollm2, reference, tokenizer, monkeypatch):
    model, pef = smollm2
    monkeypatch.setattr(reference.generation_config, "eos_token_id", None)
    with bossa.load(pef, weights=model) as language_model:
        ours = language_model.generate(prompts(), max_new_tokens=NEW_TOKENS, ignore_eos=True)
    equal = 0
    for prompt, completion in zip(prompts(), ours, strict=True):
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        generated = reference.generate(ids, max_new_tokens=NEW_TOKENS, do_sample=False)[0].tolist()
        assert len(completion.token_ids) == NEW_TOKENS
        tokens = [*completion.prompt_token_ids, *completion.token_ids]
        equal += equal_but_for_ties(reference, generated, tokens, ids.shape[-1])
    print(f"{NEW_TOKENS} tokens of {equal} of {len(ours)} prompts equal, the others excused by a tie")


@pytest.mark.parametrize("bundle", [True, False], ids=["bundled", "packed once"])
def test_a_gguf_file_runs_without_torch(environment, tmp_path, bundle):
    """Bundled at once; otherwise when it has run before, and its weights are kept packed."""
    model = real("smollm2.gguf")
    pef = compiled(model, "smollm2", tmp_path, environment, *(["--bundle"] if bundle else []))
    arguments = ["run", "-p", str(pef), *([] if bundle else ["--model_name_or_path", str(model)])]
    prompt = ["--prompt", "What is the capital of France?", "--chat"]
    if not bundle:
        subprocess.run([*BOSSA, *arguments, *prompt], stdout=subprocess.PIPE, env=environment, check=True)
    result = subprocess.run(
        [*WITHOUT_TORCH, *arguments, *prompt], capture_output=True, text=True, env=environment, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "Paris" in result.stdout
