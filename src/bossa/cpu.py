"""What this machine's CPU can do, and which targets it runs."""

from __future__ import annotations

import ctypes
import functools
import platform
import sys
from pathlib import Path

_V3 = {"avx2", "fma", "bmi1", "bmi2", "f16c", "movbe"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_VNNI = _V4 | {"avx512_vnni"}
_AMX = _VNNI | {"amx_tile", "amx_int8"}
_NEEDS = {"x86-64-v3": _V3, "x86-64-v4": _V4, "x86-64-v4-vnni": _VNNI, "x86-64-v4-amx": _AMX}

PREFERENCE = ("x86-64-v4-amx", "x86-64-v4-vnni", "x86-64-v4", "x86-64-v3", "aarch64", "portable")
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
        able = platform.machine() in ("x86_64", "AMD64") and features >= _NEEDS[target]
        return able and (target != "x86-64-v4-amx" or may_use_tiles())
    return target == "portable"


@functools.cache
def may_use_tiles() -> bool:
    """Ask the system for the AMX tiles, which a process may use only after it has asked; whether it granted them."""
    if not sys.platform.startswith("linux"):
        return False
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    return bool(ctypes.CDLL(None).syscall(arch_prctl, request_permission, tile_data) == 0)


def best_target(available: list[str]) -> str | None:
    """The fastest of the available targets that this machine runs; None where it runs none."""
    return next((target for target in PREFERENCE if target in available and supports(target)), None)
