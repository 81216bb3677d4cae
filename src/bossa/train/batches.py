"""Which articles a step takes, and how they are packed into passes of few padding tokens.

Everything here follows from the settings and the number of the step, so that a resumed run needs no state of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bossa.prepare.settings import COMPLETION, END, PADDING
from bossa.train.articles import Articles


@dataclass(frozen=True)
class Order:
    """The endless order of articles: each epoch a permutation of its own.

    Attributes:
        articles: how many there are.
        batch: articles of one step, of all processes together.
    """

    articles: int
    batch: int
    seed: int

    def of_step(self, step: int) -> NDArray[np.int64]:
        """The articles of step ``step``, counted from 0."""
        numbers = np.arange(step * self.batch, (step + 1) * self.batch)
        epochs, places = np.divmod(numbers, self.articles)
        shuffled = {int(epoch): self._permutation(int(epoch)) for epoch in np.unique(epochs)}
        return np.array([shuffled[int(epoch)][place] for epoch, place in zip(epochs, places, strict=True)])

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch]).permutation(self.articles)


@dataclass(frozen=True)
class Pass:
    """Articles that go through the model together.

    Attributes:
        tokens: ids, one article behind the other, int64 ``[T]``.
        lengths: tokens of each article.
        labelled: which tokens predict one that counts, int64 ``[labels]``.
        labels: the token to predict at each, int64 ``[labels]``.
        weights: what each weighs in the loss, float32 ``[labels]``.
        owners: the article, counted in this pass, that each label belongs to, int64 ``[labels]``.
        completions: whether a label belongs to a completion, bool ``[labels]``.
    """

    tokens: NDArray[np.int64]
    lengths: tuple[int, ...]
    labelled: NDArray[np.int64]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]
    owners: NDArray[np.int64]
    completions: NDArray[np.bool_]


def share(numbers: NDArray[np.int64], lengths: NDArray[np.int64], processes: int, rank: int) -> NDArray[np.int64]:
    """The part of a step's articles that one process takes: the longest first, each to who has the fewest tokens."""
    if processes == 1:
        return numbers
    loads, mine = [0] * processes, []
    for number in _longest_first(numbers, lengths):
        least = min(range(processes), key=lambda process: (loads[process], process))
        loads[least] += int(lengths[number])
        if least == rank:
            mine.append(number)
    return np.array(mine, np.int64)


def pack(numbers: Sequence[int] | NDArray[np.int64], lengths: NDArray[np.int64], budget: int) -> list[list[int]]:
    """Groups of articles of at most ``budget`` tokens each, by best fit decreasing; a longer article is alone."""
    bins: list[list[int]] = []
    left: list[int] = []
    for number in _longest_first(np.asarray(numbers, np.int64), lengths):
        length = int(lengths[number])
        fitting = [(room, place) for place, room in enumerate(left) if room >= length]
        if fitting:
            _, place = min(fitting)
        else:
            place = len(bins)
            bins.append([])
            left.append(budget)
        bins[place].append(int(number))
        left[place] -= length
    return bins


def _longest_first(numbers: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return numbers[np.lexsort((numbers, -lengths[numbers]))]


def make_pass(articles: Articles, numbers: Sequence[int], prompt_weight: float) -> Pass:
    """The articles of these numbers as one pass; a token's label is the token behind it in its article."""
    parts = [articles.of(number) for number in numbers]
    tokens = np.concatenate([ids for ids, _ in parts]).astype(np.int64)
    types = np.concatenate([kinds for _, kinds in parts])
    lengths = tuple(len(ids) for ids, _ in parts)
    owners = np.repeat(np.arange(len(lengths)), lengths)
    has_label = np.ones(len(tokens), bool)
    has_label[np.cumsum(lengths) - 1] = False
    label_types = np.roll(types, -1)
    weight = np.where((label_types == COMPLETION) | (label_types == END), 1.0, prompt_weight)
    weight[(label_types == PADDING) | ~has_label] = 0.0
    labelled = np.flatnonzero(weight > 0)
    return Pass(
        tokens=tokens,
        lengths=lengths,
        labelled=labelled,
        labels=tokens[labelled + 1],
        weights=weight[labelled].astype(np.float32),
        owners=owners[labelled],
        completions=(label_types[labelled] == COMPLETION) | (label_types[labelled] == END),
    )


def total_weight(articles: Articles, numbers: NDArray[np.int64], prompt_weight: float) -> float:
    """The sum of the weights of all labels of these articles: what a step's loss is divided by."""
    total = 0.0
    for number in numbers:
        kinds = articles.of(int(number))[1][1:]
        counted = int(((kinds == COMPLETION) | (kinds == END)).sum())
        total += counted + prompt_weight * (len(kinds) - counted)
    return total
