"""The markers that tests of every part share."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "end_to_end: compiles a small model and runs it, with a real C++ compiler")
    config.addinivalue_line("markers", "slow: takes more than a few seconds; leave these out with -m 'not slow'")
