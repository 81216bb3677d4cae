"""Native programs from memory: several row programs built into one library, with weights given as arrays."""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bossa.adapters.match import Matched
from bossa.formats.registry import FORMATS
from bossa.ir.program import Program
from bossa.targets.cpu.emit.source import generate
from bossa.targets.cpu.layout import PAGE, Plan
from bossa.targets.cpu.loader import Step
from bossa.targets.cpu.low_rank import LoadedAdapters
from bossa.targets.cpu.plan import make_plan, pack_constants
from bossa.targets.cpu.toolchain import FLAGS, KERNELS, TARGETS, find_compiler
from bossa.weights.bind import blob_layout
from support.arrays import dequantize


class Native:
    """One program of a library."""

    def __init__(self, library: ctypes.CDLL, number: int, plan: Plan) -> None:
        self.plan = plan
        self._open = library[f"bossa_open_{number}"]
        self._open.restype = ctypes.c_void_p
        self._run = library[f"bossa_step_run_{number}"]
        self._close = library[f"bossa_close_{number}"]
        self._adapt = library[f"bossa_adapt_{number}"] if plan.takes_adapters else None

    def run(
        self,
        weights: dict[str, NDArray[np.float32]],
        sequences: Sequence[Sequence[int]],
        *,
        threads: int = 2,
        chunks: Sequence[Sequence[int]] | None = None,
        best: bool = False,
        adapters: Sequence[Matched] = (),
        adapter_of: Sequence[int] | None = None,
    ) -> NDArray[Any]:
        """Logits ``[n, V]`` of all rows of packed sequences; `chunks` says how many rows of each go into each step.

        With `best`, the likeliest token ``[n]`` of each row instead, as the program finds it. `adapter_of` says which
        of the adapters each sequence has, or -1; the first, if it is left out and there is one.
        """
        program = self.plan.program
        blob = _aligned(_pack(program, weights))
        offsets, _ = blob_layout(list(program.slots.values()))
        slots = (ctypes.c_void_p * (len(offsets) + 1))(*(blob.ctypes.data + offset for offset in offsets))
        constants = _aligned(pack_constants(program) or bytes(64))
        blocks = -(-max(map(len, sequences)) // PAGE)
        tables = np.arange(len(sequences) * blocks, dtype=np.int32)[::-1].reshape(len(sequences), blocks).copy()
        kv = _aligned(bytes(max(self.plan.page_bytes * tables.size, 64)))
        most = sum(map(len, sequences))
        handle = ctypes.c_void_p(
            self._open(threads, most, slots, ctypes.c_void_p(constants.ctypes.data), ctypes.c_void_p(kv.ctypes.data))
        )
        assert handle
        loaded = LoadedAdapters(list(program.slots.values()), adapters, most)
        if adapters:
            self._adapt(handle, ctypes.byref(loaded.struct))
        having = np.asarray([0] * len(sequences) if adapter_of is None else adapter_of, np.int32)
        states = np.full(len(sequences) * self.plan.state_bytes + 128, 0xFF, np.uint8)  # not to be read at first
        slots_of = np.arange(len(sequences), dtype=np.int32)[::-1].copy()
        done = [0] * len(sequences)
        parts: list[list[NDArray[Any]]] = [[] for _ in sequences]
        for step in chunks if chunks is not None else [[len(s) for s in sequences]]:
            chosen = [i for i, count in enumerate(step) if count]
            tokens = np.concatenate([np.asarray(sequences[i][done[i] : done[i] + step[i]], np.int32) for i in chosen])
            positions = np.concatenate([np.arange(done[i], done[i] + step[i], dtype=np.int32) for i in chosen])
            starts = np.concatenate([[0], np.cumsum([step[i] for i in chosen])]).astype(np.int32)
            rows = np.arange(len(tokens), dtype=np.int32)
            logits = np.empty((len(tokens), program.vocab_size), np.float32)
            likeliest = np.empty(len(tokens), np.int32)
            table = tables[chosen].copy()
            wanted = (None, likeliest.ctypes.data) if best else (logits.ctypes.data, None)
            arrays = (tokens, positions, starts, table, rows)
            held = slots_of[chosen].copy()
            state = (states.ctypes.data + -states.ctypes.data % 64, held.ctypes.data, None, None)
            data = Step(
                *(len(tokens), len(chosen), blocks, len(rows)),
                *(array.ctypes.data for array in arrays),
                *wanted,
                *(state if self.plan.state_bytes else ()),
            )
            if adapters:
                loaded.choose(having[chosen])
            assert self._run(handle, ctypes.byref(data)) == 0
            for place, i in enumerate(chosen):
                parts[i].append((likeliest if best else logits)[starts[place] : starts[place + 1]])
                done[i] += step[i]
        self._close(handle)
        return np.concatenate([np.concatenate(part) for part in parts])


def build(
    programs: Sequence[Program], folder: Path, target: str, *, optimize: str = "-O1", kv_precision: str = "fp32"
) -> list[Native]:
    """One library of several programs. Bits do not depend on how the compiler optimizes, so it hardly does."""
    plans = [make_plan(program, kv_precision) for program in programs]
    sources = [generate(plan) for plan in plans]
    includes = dict.fromkeys(line for source in sources for line in source.splitlines() if line.startswith("#include"))
    parts = []
    for number, source in enumerate(sources):
        text = "\n".join(line for line in source.splitlines() if not line.startswith("#include"))
        text = re.sub(
            r"\b(bossa_abi|bossa_signature|bossa_finds_best|bossa_pack|bossa_pack_table|bossa_open|bossa_pin|bossa_step_run|bossa_decode|bossa_close|bossa_adapt)\b",
            rf"\1_{number}",
            text,
        )
        parts.append(f"namespace program_{number} {{\n{text}\n}}\n")
    path, library = folder / f"programs-{target}.cc", folder / f"programs-{target}.so"
    path.write_text("\n".join([*includes, *parts]))
    flags = [optimize if flag == "-O3" else flag for flag in FLAGS]
    exported = "-fvisibility=default"
    command = [
        *find_compiler(),
        *flags,
        exported,
        *TARGETS[target].flags,
        "-iquote",
        str(KERNELS),
        str(path),
        "-o",
        str(library),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[:3000]
    loaded = ctypes.CDLL(str(library))
    return [Native(loaded, number, plan) for number, plan in enumerate(plans)]


def _pack(program: Program, weights: dict[str, NDArray[np.float32]]) -> bytes:
    """The blob of packed weights, by the definition of the layouts."""
    slots = list(program.slots.values())
    offsets, total = blob_layout(slots)
    blob = np.zeros(total, np.uint8)
    for slot, offset in zip(slots, offsets, strict=True):
        array: NDArray[Any] = np.asarray(weights[slot.name], np.float32).reshape(slot.shape)
        part, kind = blob[offset : offset + slot.nbytes], FORMATS[slot.dtype]
        if slot.layout == "panels":
            kind.put(array, part, 0)
        else:
            height = slot.shape[0] if slot.shape else 1
            kind.put_table(array.reshape(height, -1), part, height, 0)
    return blob.tobytes()


def stored(program: Program, weights: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """The weights as the program's formats keep them."""
    slots = list(program.slots.values())
    blob = np.frombuffer(_pack(program, weights), np.uint8)
    offsets, _ = blob_layout(slots)
    return {
        slot.name: dequantize(slot, blob[offset : offset + slot.nbytes]).reshape(slot.shape)
        for slot, offset in zip(slots, offsets, strict=True)
    }


def _aligned(data: bytes) -> NDArray[np.uint8]:
    room = np.zeros(len(data) + 128, np.uint8)
    start = -room.ctypes.data % 64
    room[start : start + len(data)] = np.frombuffer(data, np.uint8)
    return room[start : start + len(data)]
