"""Loss and exact match on articles set aside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from bossa.train.articles import Articles
from bossa.train.batches import make_pass, pack, share
from bossa.train.forward import Forward
from bossa.train.processes import Processes


@dataclass(frozen=True)
class Evaluation:
    """Mean loss of the labels, and the part of the articles whose whole completion the model says by itself."""

    loss: float
    exact_match: float


def evaluate(
    forward: Forward, articles: Articles, limit: int | None, prompt_weight: float, budget: int, processes: Processes
) -> Evaluation:
    """Both over the first ``limit`` articles (None: all); tokens before each are the article's own."""
    numbers = np.arange(len(articles) if limit is None else min(limit, len(articles)))
    mine = share(numbers, articles.lengths, processes.count, processes.rank)
    sums = torch.zeros(4, dtype=torch.float64)  # loss, weights, articles answered, articles right
    was_training = forward.model.training
    forward.model.eval()
    try:
        with torch.no_grad():
            for group in pack(mine, articles.lengths, budget):
                given = make_pass(articles, group, prompt_weight)
                with forward.running(given) as counted:
                    right = counted.right.numpy()
                    wrong = np.unique(given.owners[given.completions & ~right])
                    answered = np.unique(given.owners[given.completions])
                    sums += torch.tensor(
                        [float(counted.loss), float(given.weights.sum()), len(answered), len(answered) - len(wrong)],
                        dtype=torch.float64,
                    )
    finally:
        forward.model.train(was_training)
    processes.add_up(sums)
    return Evaluation(float(sums[0] / sums[1]), float(sums[3] / max(1.0, float(sums[2]))))
