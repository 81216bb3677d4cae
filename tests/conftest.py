"""The markers that tests of every part share, and the compiler that they all use."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

COMPILER = Path(__file__).parent / "support" / "c++"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "end_to_end: compiles a small model and runs it, with a real C++ compiler")
    config.addinivalue_line("markers", "slow: takes more than a few seconds; leave these out with -m 'not slow'")
    config.addinivalue_line("markers", "long: takes minutes; make test leaves it out, and make test-long runs it")
    if not hasattr(config, "workerinput"):  # the workers of a run share its compiler
        folder = tempfile.mkdtemp(prefix="bossa-test-libraries-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        os.environ["BOSSA_TEST_LIBRARIES"] = folder
        os.environ.setdefault("CXX", str(COMPILER))
