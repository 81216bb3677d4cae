"""The many models that are slow to compile run when they are asked for: ``pytest -m slow tests/models``."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "slow" in config.option.markexpr:
        return
    here = Path(__file__).parent
    left_out = [item for item in items if item.path.parent == here and item.get_closest_marker("slow")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
