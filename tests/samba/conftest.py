"""For all tests of sessions."""

from __future__ import annotations

import os

import pytest

from samba import libraries


@pytest.fixture(scope="session", autouse=True)
def place_of_libraries(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What one process of a run compiles, the others do not."""
    place = tmp_path_factory.getbasetemp()
    libraries.keep_in((place.parent if "PYTEST_XDIST_WORKER" in os.environ else place) / "libraries")
