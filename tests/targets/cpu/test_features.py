"""What this CPU can do, with and without the file that Linux says it in."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bossa.targets.cpu import features as cpu

X86_LINUX = sys.platform.startswith("linux") and platform.machine() in ("x86_64", "AMD64")


@pytest.fixture
def without_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "cpuinfo")
    cpu.host_features.cache_clear()
    yield
    cpu.host_features.cache_clear()


@pytest.mark.skipif(not X86_LINUX, reason="glibc answers for x86-64")
@pytest.mark.skipif(platform.libc_ver() < ("glibc", "2.33"), reason="glibc does not say it")
def test_without_proc_the_same_targets_run(without_proc: None, monkeypatch: pytest.MonkeyPatch) -> None:
    found = cpu.host_features()
    runs = {target for target in cpu.PREFERENCE if cpu.supports(target)}
    monkeypatch.undo()
    cpu.host_features.cache_clear()
    known = {flag for needed in cpu._NEEDS.values() for flag in needed}
    assert found == cpu.host_features() & known
    assert runs == {target for target in cpu.PREFERENCE if cpu.supports(target)}


def test_where_nothing_says_it_the_message_does_not_blame_the_cpu(
    without_proc: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "_flags_from_glibc", frozenset)
    why = cpu.why_none_runs(["x86-64-v3"])
    assert "cannot be found out" in why
    assert "does not run" not in why
    assert "does not run" in cpu.why_none_runs(["sparc"])
    assert cpu.best_target(["portable", "x86-64-v3"]) == "portable"
