"""Which articles a step takes, and how they are packed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bossa.prepare.hdf5 import split_files
from bossa.train.articles import read_articles
from bossa.train.batches import Order, make_pass, pack, share, total_weight
from support.training import write_rows


def test_each_epoch_has_every_article_once_in_an_order_of_its_own():
    order = Order(articles=10, batch=4, seed=3)
    numbers = np.concatenate([order.of_step(step) for step in range(5)])
    assert sorted(numbers[:10]) == sorted(numbers[10:]) == list(range(10))
    assert numbers[:10].tolist() != numbers[10:].tolist()
    assert Order(10, 4, 3).of_step(3).tolist() == order.of_step(3).tolist()
    assert Order(10, 4, 4).of_step(0).tolist() != order.of_step(0).tolist()


def test_packing_keeps_to_the_budget_and_fills_it():
    lengths = np.random.default_rng(0).integers(1, 60, 200)
    bins = pack(np.arange(200), lengths, 64)
    assert sorted(number for group in bins for number in group) == list(range(200))
    assert all(lengths[group].sum() <= 64 for group in bins)
    assert len(bins) <= -(-lengths.sum() // 64) * 1.05
    assert pack(np.arange(3), np.array([100, 5, 5]), 64) == [[0], [1, 2]]


def test_processes_share_a_step_without_overlap_and_evenly():
    lengths = np.random.default_rng(0).integers(1, 60, 100)
    numbers = np.arange(10, 90)
    parts = [share(numbers, lengths, 3, rank) for rank in range(3)]
    assert sorted(np.concatenate(parts)) == numbers.tolist()
    loads = [lengths[part].sum() for part in parts]
    assert max(loads) - min(loads) <= 60


def test_a_label_is_the_next_token_of_the_same_article_and_weighs_by_its_type(tmp_path: Path):
    write_rows(
        tmp_path / "train_1_of_1.hdf5", [[10, 11, 12, 1, 0], [20, 21, 1, 0, 0]], [[0, 0, 1, 3, 2], [0, 1, 3, 2, 2]]
    )
    articles = read_articles(split_files(tmp_path, "train"), 99, 0.0)
    given = make_pass(articles, [1, 0], 0.0)
    assert given.tokens.tolist() == [20, 21, 1, 10, 11, 12, 1]
    assert given.labelled.tolist() == [0, 1, 4, 5]
    assert given.labels.tolist() == [21, 1, 12, 1]
    assert given.owners.tolist() == [0, 0, 1, 1]
    weighed = make_pass(articles, [1, 0], 0.25)
    assert weighed.weights.tolist() == [1, 1, 0.25, 1, 1]
    assert weighed.completions.tolist() == [True, True, False, True, True]
    assert total_weight(articles, np.array([1, 0]), 0.25) == weighed.weights.sum()
