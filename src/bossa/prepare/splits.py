"""Which records are trained on, evaluated on, and set aside as text."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Literal

import numpy as np

from bossa.prepare.settings import Settings

Split = Literal["train", "dev", "test"]


def splits(settings: Settings) -> Iterator[Split]:
    """The split of the first record, of the second, and so on without end.

    Of each run of ``1 / (dev_ratio + test_ratio)`` records one is drawn; these go to dev and test in turn, in step with
    their ratios. So the parts are as large as they should be, whatever the number of records, which is not known yet.
    """
    ratio = settings.dev_ratio + settings.test_ratio
    if not ratio:
        while True:
            yield "train"
    rng = np.random.default_rng([settings.seed, 1])
    begin, drawn = 0, 0
    while True:
        end = ceil((drawn + 1) / ratio - 1e-9)
        chosen = begin + int(rng.integers(end - begin))
        share = settings.test_ratio / ratio
        for record in range(begin, end):
            if record != chosen:
                yield "train"
            else:
                yield "test" if int((drawn + 1) * share + 1e-9) > int(drawn * share + 1e-9) else "dev"
        begin, drawn = end, drawn + 1
