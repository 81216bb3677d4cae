"""The seed's two commands on a small model: compile it, run it without torch, compare with Hugging Face."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.end_to_end

PROMPTS = [
    "The film was",
    "A",
    "REVIEW: dull, and long. QUESTION: Is this review positive or negative?\n\n",
    "né à l'été",
]
NEW_TOKENS = 12
BOSSA = [sys.executable, "-m", "bossa"]
WITHOUT_TORCH = [
    *(sys.executable, "-c"),
    "import sys; sys.modules.update(dict.fromkeys(['torch', 'transformers'])); from bossa.cli import main;"
    " sys.exit(main())",
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return {**os.environ, "BOSSA_CACHE": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="module")
def model(tiny_model) -> Path:
    return tiny_model


@pytest.fixture(scope="module")
def pef(model, cache, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out")
    environment = {name: value for name, value in cache.items() if name != "BOSSA_TEST_LIBRARIES"}  # as users compile
    arguments = ["compile", "--inference", "--model_name_or_path", str(model), "--pef-name", "tiny", "-b", "3"]
    result = subprocess.run(
        [*BOSSA, *arguments, "--output-folder", str(out)], capture_output=True, text=True, check=False, env=environment
    )
    assert result.returncode == 0, result.stderr
    path = Path(result.stdout.splitlines()[-1])
    assert path == out / "tiny" / "tiny.pef"
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    return path


@pytest.fixture(scope="module")
def expected(model) -> list[str]:
    """What the seed's loop predicts with transformers, in fp32 with eager attention."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager").eval()
    predictions = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        generated = reference.generate(ids, max_length=ids.shape[-1] + NEW_TOKENS, do_sample=False, pad_token_id=256)
        predictions.append(tokenizer.decode(generated[0]))
    return predictions


def run(pef: Path, model: Path, cache: dict[str, str], *options: str) -> subprocess.CompletedProcess[bytes]:
    """Bytes, since reading text would turn a generated carriage return into a newline."""
    arguments = ["run", "--inference", "--pef", str(pef), "--model_name_or_path", str(model), *options]
    return subprocess.run([*WITHOUT_TORCH, *arguments], capture_output=True, check=False, env=cache)


@pytest.mark.parametrize("batch", ["1", "3"])
def test_predictions_are_byte_for_byte_those_of_the_seeds_loop(pef, model, cache, data, expected, batch):
    result = run(pef, model, cache, "--data_dir", str(data), f"--max_tokens_to_generate={NEW_TOKENS}", "-b", batch)
    assert result.returncode == 0, result.stderr
    assert result.stdout.decode() == ("\n" + "-" * 20 + "\n").join(expected) + "\n"


def test_a_streamed_completion_is_the_one_of_the_text(pef, model, cache, expected):
    result = run(pef, model, cache, "--prompt", PROMPTS[0], "--max_tokens_to_generate", str(NEW_TOKENS))
    assert result.returncode == 0, result.stderr
    assert PROMPTS[0] + result.stdout.decode().removesuffix("\n") == expected[0].removesuffix("<|endoftext|>")


def test_inspect_shows_the_source_that_was_compiled(pef):
    result = subprocess.run([*BOSSA, "inspect", str(pef), "--source"], capture_output=True, text=True, check=True)
    assert "bossa_step_run" in result.stdout


def test_weights_of_another_architecture_are_refused_in_one_line(pef, tmp_path, cache, data):
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"lm_head.weight": np.zeros((3, 3), np.float32)}, tmp_path / "other.safetensors")
    result = run(pef, tmp_path / "other.safetensors", cache, "--data_dir", str(data))
    assert (result.returncode, result.stdout) == (2, b"")
    assert result.stderr.startswith(b"bossa: ")
    assert result.stderr.count(b"\n") == 1
