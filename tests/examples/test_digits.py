"""Networks that tell digits, trained and tested by the commands of the example's document."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest


def numbers(name: str, text: str) -> list[float]:
    return [float(number) for number in re.findall(rf"{name} ([\d.]+)", text)]


@pytest.mark.long
@pytest.mark.parametrize(("program", "least"), [("classifier.py", 0.89), ("convolution.py", 0.92)])
def test_a_network_learns_and_tells_digits_that_it_has_not_seen(
    program: str, least: float, run: Callable[[str, str], list[str]]
):
    compiled, trained, *rest = run("digits", program)
    assert compiled.splitlines()[-1].endswith(".pef")
    losses = numbers("loss", trained)
    assert losses[-1] < losses[0] / 4
    tested = rest[-1] if rest else trained
    # Eager torch reaches 0.908 to 0.922 and 0.939 to 0.958 with six seeds.
    assert numbers("accuracy", tested)[-1] > least
