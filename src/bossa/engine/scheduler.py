"""Continuous batching: which rows of which sequences run in the next step, and in which pages."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bossa.engine.pages import PagePool
from bossa.engine.program import Ints
from bossa.engine.request import Request, State

OBSERVED_ROWS = 128
"""Rows a step of a request whose logits are read: a bound on the memory of one block of logits."""


@dataclass(frozen=True)
class Chunk:
    """Positions ``start`` to ``start + rows - 1`` of a request; the last ``logits`` of them give logits."""

    request: Request
    start: int
    rows: int
    logits: int


@dataclass(frozen=True)
class Batch:
    """The arguments of one step, and the chunks that they were made from, in the same order."""

    chunks: Sequence[Chunk]
    tokens: Ints  # [T]
    positions: Ints  # [T]
    starts: Ints  # [S + 1]
    block_tables: Ints  # [S, B]
    logit_rows: Ints  # [n]


class Scheduler:
    """Holds the requests that wait and those that run. Same calls, same schedule.

    A running request holds the pages of all its tokens, so that only a growing output asks for more. When none is left,
    the youngest running request gives its pages up and waits to be computed again, which gives the same bits. The
    oldest can therefore always go on.
    """

    def __init__(self, pool: PagePool, max_rows: int, batch_size: int) -> None:
        self.pool = pool
        self.max_rows = max_rows
        self.max_running = min(batch_size, max_rows)
        self.waiting: deque[Request] = deque()  # oldest first
        self.running: list[Request] = []  # oldest first
        self.unfinished: dict[Request, None] = {}  # a set that keeps its order
        self._arrivals = 0

    def add(self, request: Request) -> None:
        request.arrival = self._arrivals
        self._arrivals += 1
        request.state = State.WAITING
        self.unfinished[request] = None
        self.waiting.append(request)

    def remove(self, request: Request, state: State) -> None:
        """Take a request out, finished or aborted, and its pages with it."""
        if request not in self.unfinished:
            return
        if request in self.running:
            self.running.remove(request)
        elif request in self.waiting:  # it is in neither where adding it was cut off
            self.waiting.remove(request)
        self._take_pages(request)
        request.state = state
        del self.unfinished[request]

    def restart(self) -> None:
        """Forget what is in the pages, after a step that was cut off: everything unfinished is computed again."""
        self.pool.reset()
        self.running = []
        for request in self.unfinished:
            request.blocks = []
            request.computed = 0
            request.state = State.WAITING
        self.waiting = deque(sorted(self.unfinished, key=lambda request: request.arrival))

    def schedule(self) -> list[Chunk]:
        """The next step's chunks: a row of each request that decodes, then prompts, then prompts that waited."""
        self._grow()
        budget = self.max_rows
        chunks: list[Chunk] = []
        decoding = [request for request in self.running if request.pending == 1]
        prefilling = [request for request in self.running if request.pending > 1]
        for request in decoding + prefilling:
            if budget:
                chunks.append(_chunk(request, budget))
                budget -= chunks[-1].rows
        while budget and self._admit():
            chunks.append(_chunk(self.running[-1], budget))
            budget -= chunks[-1].rows
        return chunks

    def _grow(self) -> None:
        """Give every running request the pages of its tokens, the oldest first, at the youngest's expense."""
        for request in tuple(self.running):
            while request.state is State.RUNNING:
                missing = self.pool.pages_for(len(request.tokens)) - len(request.blocks)
                if missing <= self.pool.free_count:
                    request.blocks += self.pool.alloc(missing)
                    break
                self._preempt(self.running[-1])

    def _preempt(self, request: Request) -> None:
        self.running.remove(request)
        self._take_pages(request)
        request.state = State.WAITING
        self.waiting.appendleft(request)

    def _admit(self) -> bool:
        """Start the request that has waited longest, if there is room: a page each is left for those that run."""
        if not self.waiting or len(self.running) >= self.max_running:
            return False
        request = self.waiting[0]
        needed = self.pool.pages_for(len(request.tokens))
        if needed + len(self.running) > self.pool.free_count:
            return False
        request.blocks = self.pool.alloc(needed)
        self.waiting.popleft()
        self.running.append(request)
        request.state = State.RUNNING
        return True

    def _take_pages(self, request: Request) -> None:
        self.pool.free(request.blocks)
        request.blocks = []
        request.computed = 0


def _chunk(request: Request, budget: int) -> Chunk:
    rows = min(request.pending, budget)
    if request.observer is not None:
        rows = min(rows, OBSERVED_ROWS)
        logits = min(rows, max(0, request.computed + rows - request.observer.first))
    else:
        logits = int(rows == request.pending)
    return Chunk(request, request.computed, rows, logits)


def pack(chunks: Sequence[Chunk]) -> Batch:
    """Lay the chunks out as the arguments of a step."""
    tokens: list[int] = []
    positions: list[int] = []
    starts = [0]
    logit_rows: list[int] = []
    block_tables = np.zeros((len(chunks), max(len(chunk.request.blocks) for chunk in chunks)), np.int32)
    for sequence, chunk in enumerate(chunks):
        end = chunk.start + chunk.rows
        if chunk.rows == 1:
            tokens.append(chunk.request.tokens[chunk.start])
            positions.append(chunk.start)
        else:
            tokens += chunk.request.tokens[chunk.start : end]
            positions += range(chunk.start, end)
        block_tables[sequence, : len(chunk.request.blocks)] = chunk.request.blocks
        starts.append(len(tokens))
        logit_rows += range(len(tokens) - chunk.logits, len(tokens))
    return Batch(
        chunks,
        np.array(tokens, np.int32),
        np.array(positions, np.int32),
        np.array(starts, np.int32),
        block_tables,
        np.array(logit_rows, np.int32),
    )
