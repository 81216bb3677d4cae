"""Signals: what ends a run at once, and what is only noted."""

from __future__ import annotations

import os
import signal

import pytest

from bossa.host import signals


def test_a_noted_signal_interrupts_nothing_until_a_second_one_comes():
    before = signal.getsignal(signal.SIGTERM)
    with signals.noted() as found:
        assert found.number is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert found.number == signal.SIGTERM
        with pytest.raises(signals.Interrupted):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before
