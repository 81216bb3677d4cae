"""What this machine's CPU can do, and which targets it runs."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

_V3 = {"avx2", "fma", "bmi1", "bmi2", "f16c", "movbe"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_NEEDS = {"x86-64-v3": _V3, "x86-64-v4": _V4, "x86-64-v4-vnni": _V4 | {"avx512_vnni"}}

PREFERENCE = ("x86-64-v4-vnni", "x86-64-v4", "x86-64-v3", "aarch64", "portable")
"""Targets from the fastest down."""


@functools.cache
def host_features() -> frozenset[str]:
    """The CPU's flags as Linux names them; on other systems none are known and `portable` is used."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    for line in text.splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def supports(target: str, features: frozenset[str] | None = None) -> bool:
    """Whether this machine runs programs compiled for `target`."""
    features = host_features() if features is None else features
    if target == "aarch64":
        return platform.machine() in ("aarch64", "arm64")
    if target in _NEEDS:
        return platform.machine() in ("x86_64", "AMD64") and features >= _NEEDS[target]
    return target == "portable"


def best_target(available: list[str]) -> str | None:
    """The fastest of the available targets that this machine runs; None where it runs none."""
    return next((target for target in PREFERENCE if target in available and supports(target)), None)
