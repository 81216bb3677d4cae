"""The kernels, built for several targets, and the formats that a class of tests is about."""

import pytest

from support.kernels import builds, on_every_build


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test of a class of formats that takes a ``name`` runs for each of them."""
    if metafunc.cls is not None and "name" in metafunc.fixturenames:
        metafunc.parametrize("name", metafunc.cls.names)


__all__ = ["builds", "on_every_build"]
