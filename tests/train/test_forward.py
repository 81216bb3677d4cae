"""Losses and gradients of packed passes are those that transformers gives for each article alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from bossa.prepare.hdf5 import split_files
from bossa.train import head
from bossa.train.articles import Articles, read_articles
from bossa.train.batches import make_pass
from bossa.train.forward import choose
from support import zoo
from support.training import write_data

PACKED = ("gpt2", "llama", "gemma2", "qwen2_windowed", "cohere", "granite", "opt", "phi")
PADDED = ("bloom", "lfm2")


def articles_of(folder: Path, longest: int = 40) -> Articles:
    return read_articles(
        split_files(write_data(folder, length=64, longest=longest), "train"), zoo.VOCABULARY, prompt_weight=0.5
    )


def plain(model: torch.nn.Module, articles: Articles, numbers: list[int]) -> float:
    """Loss of each article alone by the model's whole logits; adds gradients."""
    total = 0.0
    for number in numbers:
        ids, types = (torch.from_numpy(part.astype(np.int64)) for part in articles.of(number))
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
        weights = torch.where(types[1:] == 0, 0.5, 1.0)
        loss = (functional.cross_entropy(logits, ids[1:], reduction="none") * weights).sum()
        loss.backward()
        total += float(loss)
    return total


@pytest.mark.parametrize("name", [*PACKED, *PADDED])
def test_losses_and_gradients_are_those_of_each_article_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(head, "LOGITS_AT_ONCE", 16 * zoo.VOCABULARY)  # several chunks
    model = zoo.build((zoo.ASKED | zoo.MORE)[name].config()).eval()
    articles = articles_of(tmp_path)
    numbers = [3, 0, 7, 12, 5, 6]
    expected = plain(model, articles, numbers)
    gradients = {key: given.grad.clone() for key, given in model.named_parameters() if given.grad is not None}
    model.zero_grad()
    forward = choose(model, articles, packing=True)
    assert forward.is_packed == (name in PACKED)
    assert forward.head is not None
    given = make_pass(articles, numbers, 0.5)
    with forward.running(given) as counted:
        counted.loss.backward()
    assert float(counted.loss) == pytest.approx(expected, rel=1e-5)
    for key, parameter in model.named_parameters():
        if key in gradients:  # fp32 sums in another order
            torch.testing.assert_close(parameter.grad, gradients[key], rtol=2e-3, atol=2e-4, msg=key)


def test_without_packing_the_result_is_the_same(tmp_path: Path):
    model = zoo.build(zoo.ASKED["llama"].config()).eval()
    articles = articles_of(tmp_path)
    given = make_pass(articles, [1, 2, 3], 0.0)
    losses = []
    for packing in (True, False):
        forward = choose(model, articles, packing)
        assert forward.is_packed == packing
        with forward.running(given) as counted:
            losses.append(float(counted.loss))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_pass_computes_no_padding(tmp_path: Path):
    model = zoo.build(zoo.ASKED["llama"].config()).eval()
    articles = articles_of(tmp_path)
    given = make_pass(articles, [1, 2, 3], 0.0)
    assert choose(model, articles, True).computed(given) == len(given.tokens)
    assert choose(model, articles, False).computed(given) == 3 * max(given.lengths)
