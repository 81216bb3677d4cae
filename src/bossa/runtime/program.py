"""A loaded program: its library, its bound weights, its KV pages and state slots, and steps over packed rows."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bossa.errors import PefError, RequestError, RuntimeFailure
from bossa.host.process import Process
from bossa.pef import Pef
from bossa.pef.signature import signature
from bossa.runtime.held import Held
from bossa.runtime.memory import ROWS_OF_A_STEP
from bossa.runtime.states import SequenceStates
from bossa.runtime.threads import chosen_threads
from bossa.targets.cpu.features import best_target, why_none_runs
from bossa.targets.cpu.loader import (
    Decoding,
    DecodingWithoutState,
    Library,
    Step,
    check,
    decoding,
    load_library,
)
from bossa.weights.bind import BoundWeights

if TYPE_CHECKING:
    from bossa.adapters.match import MatchedAdapter

Int32 = NDArray[np.int32]

_DECODING_STEPS = 16
"""Steps of decoding that run one after the other, at most."""
_DECODING_NANOSECONDS = 30_000_000
"""After so long no further step begins without the caller."""


def open_library(pef: Pef) -> tuple[str, Library]:
    """The native program of a file for this CPU, and the target that it was compiled for.

    Raises:
        PefError: there is none for this CPU, or it does not load.
    """
    target = best_target(list(pef.manifest.targets))
    if target is None:
        held = ", ".join(pef.manifest.targets) or "no CPU at all"
        raise PefError(f"{pef.where}: compiled for {held}, {why_none_runs(pef.manifest.targets)}")
    return target, load_library(pef.library(target), pef.where)


class LoadedProgram:
    """A compiled program ready to run.

    Attributes:
        page_size: positions of a KV page.
        page_bytes: bytes of one; 0 where nothing is kept of single positions.
        pages: KV pages there are.
        state_bytes: bytes of a slot of recurrent state; 0 where there is none.
        state_drafts: guessed tokens of a sequence that a slot has room for.
        state_slots: slots there are.
        vocab_size: logits of a row.
        max_seq_length: the longest sequence.
        max_rows: the most rows of a step.
        most_steps: the most steps of decoding that run one after the other.
        adapter_hash: what stands for its adapter where it has one, by which all that it computes differs.
    """

    def __init__(
        self,
        pef: Pef,
        weights: BoundWeights,
        *,
        threads: int | None = None,
        cpus: Sequence[int] | None = None,
        pages: int,
        max_rows: int = ROWS_OF_A_STEP,
        state_slots: int = 0,
        adapter: MatchedAdapter | None = None,
    ) -> None:
        """Starts the threads: as many as there are `cpus`, and one on each of them, where those are given.

        The thread that runs a step is one of them: the first time it does, it moves to the first of the CPUs for good.

        Raises:
            RequestError: the threads, CPUs, KV pages or state slots that are asked for are not to be had.
            RuntimeFailure: there is no memory for the activations.
            PefError: there is an adapter, and the program takes none.
        """
        manifest = pef.manifest
        asked, self._cpus = chosen_threads(threads, cpus)
        self._pinned: set[int] = set()
        self.page_size = manifest.page_size
        self.page_bytes = manifest.page_bytes
        self.pages = pages
        self.state_bytes = manifest.state_bytes
        self.state_drafts = manifest.state_drafts
        self.state_slots = state_slots if manifest.state_bytes else 0
        self.vocab_size = manifest.vocab_size
        self.max_seq_length = manifest.max_seq_length
        self.max_rows = max_rows
        self.weights = weights
        self._process = Process()
        self._lock = threading.RLock()  # a signal's handler may close what its thread runs
        self.target, library = open_library(pef)
        _check_layout(pef, library)
        self._constants = _aligned_copy(np.frombuffer(bytes(pef.constants()) or bytes(64), np.uint8))
        self._finds_best = bool(library.bossa_finds_best())
        self.most_steps = _DECODING_STEPS if self._finds_best else 1
        self._run_step, self._run_decoding = library.bossa_step_run, library.bossa_decode  # with the library alone
        self._abi = library.bossa_abi()
        self._logits = np.empty((0, self.vocab_size), np.float32)
        self._held = Held(library, weights, pages * manifest.page_bytes, self.state_slots * self.state_bytes)
        self._states = self._held.states_address()
        try:
            self._held.open(asked, max_rows, self._constants, pef.where)
            self._held.pin(self._cpus)
            self.adapter_hash = b"" if adapter is None else adapter.content_hash
            if adapter is not None:
                self._adapt(adapter, weights, pef.where)
        except BaseException:
            self._held.release()
            raise
        self._dropped = weakref.finalize(self, self._held.drop, pef.where)
        self._dropped.atexit = False  # the system frees all of it

    def _adapt(self, adapter: MatchedAdapter, weights: BoundWeights, where: str) -> None:
        """Let all sequences have this adapter."""
        from bossa.targets.cpu.low_rank import LoadedAdapters

        if not self._held.takes_adapters:
            raise _disagreement(where)
        self._adapters = LoadedAdapters(weights.slots, [adapter.pairs], self.max_rows)
        self._adapters.choose(np.zeros(self.max_rows, np.int32))
        self._held.adapt(self._adapters.struct)

    def step(
        self,
        tokens: Int32,
        positions: Int32,
        starts: Int32,
        block_tables: Int32,
        logit_rows: Int32,
        states: SequenceStates | None = None,
        *,
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Run packed rows.

        Args:
            tokens: ``[T]`` ids; `positions`: ``[T]``, consecutive within a sequence.
            starts: ``[S + 1]``, the rows of each sequence.
            block_tables: ``[S, B]`` page ids; page b of a sequence holds its positions ``b * page_size`` on.
            logit_rows: ``[n]`` rows whose logits are wanted.
            states: the recurrent state of the sequences, where the program keeps any.
            out: where to write the logits, contiguous ``[n, V]``; memory of the program's own if None.

        Returns:
            The logits, float32 ``[n, V]``, good until the next step where they are the program's own.
        """
        logits = self._logits_of(len(logit_rows)) if out is None else out
        assert logits.shape == (len(logit_rows), self.vocab_size)
        assert logits.flags.c_contiguous
        self._run(tokens, positions, starts, block_tables, logit_rows, states, logits.ctypes.data, 0)
        return logits

    def step_greedy(
        self,
        tokens: Int32,
        positions: Int32,
        starts: Int32,
        block_tables: Int32,
        logit_rows: Int32,
        states: SequenceStates | None = None,
    ) -> Int32:
        """Run packed rows as `step` does, and find the likeliest token of each row of `logit_rows`: int32 ``[n]``.

        Of equally likely ones it is the lowest.

        Raises:
            RuntimeFailure: a row's logits hold NaN or infinity.
        """
        if self._finds_best:
            best = np.empty(len(logit_rows), np.int32)
            self._run(tokens, positions, starts, block_tables, logit_rows, states, 0, best.ctypes.data)
        else:
            logits = self.step(tokens, positions, starts, block_tables, logit_rows, states)
            best = logits.argmax(axis=1).astype(np.int32)  # the first NaN, if there is any
            best[~np.isfinite(logits[np.arange(len(best)), best])] = -1
        _check_found(best, logit_rows)
        return best

    def decode_greedy(
        self,
        tokens: Int32,
        positions: Int32,
        block_tables: Int32,
        most_steps: int,
        ends: Sequence[int],
        states: SequenceStates | None = None,
    ) -> Int32:
        """Run steps of a row of each sequence one after the other, each with the tokens that the one before brought.

        They end after one that brings a token of `ends`, and with the first that is not over within 30 ms of the start:
        nobody is kept waiting for long.

        Args:
            tokens, positions: ``[S]`` of the first step.
            block_tables: ``[S, B]``, with the pages of all steps.
            most_steps: how many may run, 1 or more.
            ends: token ids.
            states: as `step` takes them, without guesses; of the first step.

        Returns:
            int32 ``[n, S]``, the likeliest tokens of the n steps that ran, 1 or more.

        Raises:
            RuntimeFailure: the logits of the first step hold NaN or infinity. Those of a later one end the steps; where
                there is recurrent state, which that step has moved, they raise this too.
        """
        rows = np.arange(len(tokens) + 1, dtype=np.int32)
        if not self._finds_best:
            return self.step_greedy(tokens, positions, rows, block_tables, rows[:-1], states)[None]
        best = np.zeros((most_steps, len(tokens)), np.int32)
        tokens, positions = tokens.copy(), positions.copy()
        last = np.array(ends, np.int32)
        first = self._checked(tokens, positions, rows, block_tables, rows[:-1], states, 0, best.ctypes.data)
        steps = decoding(
            self._abi, first, tokens.ctypes.data, positions.ctypes.data, best.ctypes.data, last.ctypes.data, len(last),
            most_steps, _DECODING_NANOSECONDS,
        )  # fmt: skip
        ran = self._call(self._run_decoding, steps)
        check(max(-ran, 0))
        if not ran or (self.state_bytes and ran < most_steps):
            _check_found(best[ran], rows)
        return best[:ran]

    def _logits_of(self, rows: int) -> NDArray[np.float32]:
        """Memory for the logits of some rows, the same at every step: the system gives new memory out slowly."""
        if len(self._logits) < rows:
            self._logits = np.empty((rows, self.vocab_size), np.float32)
        return self._logits[:rows]

    def _run(self, *arguments: Any) -> None:
        """Run one step, given as to `_checked`."""
        check(self._call(self._run_step, self._checked(*arguments)))

    def _checked(
        self,
        tokens: Int32,
        positions: Int32,
        starts: Int32,
        block_tables: Int32,
        logit_rows: Int32,
        states: SequenceStates | None,
        logits: int,
        best: int,
    ) -> Step:
        """The step as the library takes it; what it points to lives as long as it does, but for the results."""
        arrays = [np.ascontiguousarray(a, np.int32) for a in (tokens, positions, starts, block_tables, logit_rows)]
        tokens, positions, starts, block_tables, logit_rows = arrays
        recurrent: list[int] = []
        if self.state_bytes:
            assert states is not None
            assert len(states.slots) == 0 or 0 <= states.slots.min() <= states.slots.max() < self.state_slots
            kept = [np.ascontiguousarray(a, np.int32) for a in states]
            arrays += kept
            recurrent = [self._states, *(a.ctypes.data for a in kept)]
        if len(tokens) and not (int(tokens.min()) >= 0 and int(tokens.max()) < self.vocab_size):
            bad = tokens[(tokens < 0) | (tokens >= self.vocab_size)][0]
            raise RequestError(f"token id {bad} is outside the vocabulary of {self.vocab_size}")
        step = Step(
            len(tokens), len(starts) - 1, block_tables.shape[1], len(logit_rows), tokens.ctypes.data,
            positions.ctypes.data, starts.ctypes.data, block_tables.ctypes.data, logit_rows.ctypes.data,
            logits or None, best or None, *recurrent,
        )  # fmt: skip
        step.arrays = arrays
        return step

    def _call(self, function: Callable[..., int], argument: Step | Decoding | DecodingWithoutState) -> int:
        """What the library's function gives for this program, of which it is the only one that runs meanwhile."""
        self._process.check()
        with self._lock:
            if not self._held.handle:
                raise RequestError("the program is closed")
            if self._cpus and threading.get_ident() not in self._pinned:
                os.sched_setaffinity(0, self._cpus[:1])
                self._pinned.add(threading.get_ident())
            return function(self._held.handle, ctypes.byref(argument))

    def copy_state(self, source: int, target: int) -> None:
        """Copy what is in one slot of recurrent state into another, with its kept guesses."""
        self._process.check()
        with self._lock:
            if not self._held.handle:
                raise RequestError("the program is closed")
            assert 0 <= min(source, target) <= max(source, target) < self.state_slots
            self._held.copy_state(source, target, self.state_bytes)

    def close(self) -> None:
        """Stop the threads and give back the memory. Closing twice is harmless.

        In a process that was forked from the one that opened it, its threads and its lock are that one's.
        """
        with nullcontext() if self._process.is_another else self._lock:
            self._dropped.detach()
            self._held.release()

    def __enter__(self) -> LoadedProgram:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_found(best: Int32, logit_rows: Int32) -> None:
    """Refuse a step that found no likeliest token for some row."""
    if len(best) and int(best.min()) < 0:
        row = int(logit_rows[int(np.argmin(best))])
        raise RuntimeFailure(
            f"the logits of row {row} of a step are not finite: look for damaged weights, or use a precision"
            " with a wider range"
        )


def _check_layout(pef: Pef, library: Library) -> None:
    """Refuse a library that would read or write elsewhere than the manifest says.

    Raises:
        PefError: the two do not describe the same memory.
    """
    layout = pef.manifest.to_json()
    held = len(pef.constants())
    needed = max((constant.offset + constant.bytes for constant in pef.manifest.constants), default=0)
    if library.bossa_signature().decode() != signature(layout) or held < needed:
        raise _disagreement(pef.where)


def _disagreement(where: str) -> PefError:
    return PefError(
        f"{where}: its manifest and its program do not agree on how memory is laid out; compile the model again, or run"
        " with --rebuild"
    )


def _aligned_copy(data: NDArray[Any]) -> NDArray[np.uint8]:
    """A copy of the bytes at an address that is a multiple of 64."""
    room = np.empty(data.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    room[start : start + data.nbytes] = data
    return room[start : start + data.nbytes]
