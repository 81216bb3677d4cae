"""What this machine's CPU can do, and which targets it runs."""

from __future__ import annotations

import ctypes
import functools
import platform
import sys
from collections.abc import Iterable
from pathlib import Path

_V3 = {"avx2", "fma", "bmi1", "bmi2", "f16c", "movbe"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_VNNI = _V4 | {"avx512_vnni"}
_AMX = _VNNI | {"amx_tile", "amx_int8"}
_NEEDS = {"x86-64-v3": _V3, "x86-64-v4": _V4, "x86-64-v4-vnni": _VNNI, "x86-64-v4-amx": _AMX}

PREFERENCE = ("x86-64-v4-amx", "x86-64-v4-vnni", "x86-64-v4", "x86-64-v3", "aarch64", "portable")
"""Targets from the fastest down."""


_CPUINFO = Path("/proc/cpuinfo")
_BITS = {
    (1, 2): {"fma": 12, "movbe": 22, "f16c": 29},
    (7, 1): {
        **{"bmi1": 3, "avx2": 5, "bmi2": 8, "avx512f": 16, "avx512dq": 17, "avx512cd": 28, "avx512bw": 30},
        "avx512vl": 31,
    },
    (7, 2): {"avx512_vnni": 11},
    (7, 3): {"amx_tile": 24, "amx_int8": 25},
}
"""Flags by the leaf of CPUID and the register (eax, ebx, ecx, edx) that they are in, and their bits there."""
_LEAVES = {1: 0, 7: 1}
"""Numbers of leaves in ``sys/platform/x86.h`` of glibc."""


@functools.cache
def host_features() -> frozenset[str]:
    """The CPU's flags as Linux names them; none where they cannot be found out, and `portable` is used then.

    Without ``/proc``, glibc (2.33 on) says which flags the CPU has and the system lets programs use.
    """
    try:
        text = _CPUINFO.read_text()
    except OSError:
        return _flags_from_glibc()
    for line in text.splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def _flags_from_glibc() -> frozenset[str]:
    """Those of the flags that a target needs."""
    if not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "AMD64"):
        return frozenset()
    try:
        leaf_of = ctypes.CDLL(None).__getattr__("__x86_get_cpuid_feature_leaf")
    except (AttributeError, OSError):
        return frozenset()
    leaf_of.argtypes = [ctypes.c_uint]
    leaf_of.restype = ctypes.POINTER(ctypes.c_uint * 8)  # four registers as CPUID has them, four as the system allows
    found = set()
    for (leaf, register), bits in _BITS.items():
        registers = leaf_of(_LEAVES[leaf])
        active = registers.contents[4 + register] if registers else 0
        found |= {flag for flag, bit in bits.items() if active >> bit & 1}
    return frozenset(found)


def why_none_runs(targets: Iterable[str]) -> str:
    """Why this machine runs none of these targets, and what to do, to follow ``compiled for x86-64-v3, ``."""
    if not host_features() and any(target in _NEEDS for target in targets):
        return (
            "and what this CPU can do cannot be found out (/proc/cpuinfo is not there): mount /proc, compile the model"
            " with --target portable, or run it with --rebuild"
        )
    return "which this CPU does not run: compile the model here or with --target portable, or run it with --rebuild"


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
