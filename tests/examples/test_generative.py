"""A tiny GPT-2 tuned on movie reviews, and generated from, by the commands of the example's document."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.nn import functional as F  # noqa: N812
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

EXAMPLES = Path(__file__).parents[2] / "examples"
GENERATIVE = EXAMPLES / "generative"
CONFIG = GENERATIVE / "configuration" / "gpt2_tiny_config.json"
REVIEWS = EXAMPLES / "movie_reviews" / "reviews.jsonl"
BETWEEN = f"\n{'-' * 20}\n"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tiny() -> torch.nn.Module:
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(CONFIG, initializer_range=0.2)
    return AutoModelForCausalLM.from_config(config).eval()


def test_the_patch_computes_what_the_class_computes_and_the_loss_of_each_token():
    model, ids = tiny(), torch.randint(512, (2, 12))
    expected = model(ids).logits
    patched = load(GENERATIVE / "configuration" / "gpt2_patch.py").gpt2_patch_helper(
        model, 2, inference=True, max_length=12, max_pef_length=12
    )
    # fp32; the activation is one operator instead of eight
    torch.testing.assert_close(patched(ids)[0], expected, rtol=1e-4, atol=1e-4)
    labels = F.pad(ids[:, 1:], (0, 1), value=-100)
    losses, logits = patched(ids, *[None] * 8, labels)
    torch.testing.assert_close(losses, F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none"))
    assert set(patched.state_dict()) == set(tiny().state_dict())


def test_a_file_without_prompts_and_a_missing_one_are_named(tmp_path: Path):
    dataset = load(GENERATIVE / "utils" / "datasets.py").GenerativeDataset
    assert len(dataset(str(REVIEWS))) == len(dataset(str(REVIEWS.parent))) == 20
    with pytest.raises(ValueError, match=r"none\.jsonl: no JSONL file"):
        dataset(str(tmp_path / "none.jsonl"))
    (tmp_path / "text.jsonl").write_text('{"prompt": "a"}\n{"text": "b"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"text\.jsonl:2: the record has no prompt"):
        dataset(str(tmp_path))


@pytest.mark.long
def test_tuned_and_generated_text_is_that_of_transformers(run: Callable[[str, str], list[str]], tmp_path: Path):
    prepared, compiled, trained, _, generated = run("generative", "train.py")
    assert prepared.startswith("20 of 20 records, 4 of them to evaluate on")
    assert compiled.splitlines()[-1] == "out/train/train.pef"
    losses = [float(loss) for loss in re.findall(r"step \d+: loss ([\d.]+)", trained)]
    assert losses[-1] < losses[0] / 10
    exact = re.search(r"train: loss [\d.]+, exact match (\d+) of 16", trained)
    assert exact is not None
    assert int(exact[1]) >= 14

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / "reviews" / "tokenizer")
    model = tiny()
    model.load_state_dict(torch.load(tmp_path / "out" / "tuned.pt", weights_only=True))
    texts = []
    for line in REVIEWS.read_text(encoding="utf-8").splitlines():
        ids = tokenizer(json.loads(line)["prompt"], return_tensors="pt")["input_ids"]
        texts.append(tokenizer.decode(model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=5)[0]))
    assert generated == BETWEEN.join(texts) + "\n"
    assert " positive<|endoftext|>" in generated
    assert " negative<|endoftext|>" in generated
