"""A logger that says a thing as often as it is asked to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bossa.errors import SambaError
from bossa.samba.logging import samba_logger, set_log_level


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The logger as it is at the start, before and after."""
    samba_logger._written.clear()
    yield
    samba_logger.setLevel("WARNING")


def test_a_text_is_written_to_stderr_as_often_as_its_limit_says(capsys: pytest.CaptureFixture[str]):
    for _ in range(3):
        samba_logger.warning("patched", log_limit=1)
        samba_logger.warning("twice %d", 2, log_limit=2)
        samba_logger.error("always")
        samba_logger.info("quiet", log_limit=1)
    error = capsys.readouterr().err
    assert error.count("WARNING: patched\n") == 1
    assert error.count("WARNING: twice 2\n") == 2
    assert error.count("ERROR: always\n") == 3
    assert "quiet" not in error


def test_a_text_below_the_level_does_not_use_up_its_limit(capsys: pytest.CaptureFixture[str]):
    samba_logger.info("later", log_limit=1)
    set_log_level("INFO")
    samba_logger.info("later", log_limit=1)
    assert capsys.readouterr().err == "INFO: later\n"


def test_an_unknown_level_is_refused():
    with pytest.raises(SambaError, match="--log-level loud: not one of debug, info, warning, error, critical"):
        set_log_level("loud")
