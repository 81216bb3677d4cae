"""Where models come from: a hub that cannot be reached."""

from __future__ import annotations

import time

import pytest

from bossa.errors import ModelError
from bossa.frontend import sources
from bossa.host import network


def test_a_model_on_a_hub_that_does_not_answer_is_refused_after_seconds(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(network, "PATIENCE", 0.5)
    start = time.perf_counter()
    with pytest.raises(ModelError, match="no such model could be fetched from the hub"):
        sources.find("someone/model", None, tmp_path, False)
    assert time.perf_counter() - start < 5
