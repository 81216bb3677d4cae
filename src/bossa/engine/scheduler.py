"""Continuous batching: which rows of which sequences run in the next step, and in which pages."""

from __future__ import annotations

from array import array
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from bossa.engine.batch import Chunk
from bossa.engine.pages import PagePool
from bossa.engine.prefix import extend_hashes
from bossa.engine.request import Request, State
from bossa.engine.snapshots import aim_of_completion, aim_of_prompt, common
from bossa.engine.speculation import worth
from bossa.engine.states import StatePool
from bossa.runtime.memory import OBSERVED_ROWS, logit_rows

LOOK_AHEAD = 256
"""Requests that wait of which one is looked for that can start."""


@dataclass
class _Room:
    """What is left of a step.

    Attributes:
        rows: that may still run.
        extra_logits: rows that may have logits, besides one of each request.
    """

    rows: int
    extra_logits: int

    def chunk(self, request: Request) -> Chunk:
        """As many of a request's rows as there is room for."""
        if request.branches:
            return self._branch(request)
        rows = min(request.pending, self.rows)
        if request.aim > request.computed:
            rows = min(rows, request.aim - request.computed)
        if request.observer is not None:
            first = request.observer.first - request.computed
            rows = min(rows, OBSERVED_ROWS, max(0, first) + 1 + self.extra_logits)
            logits = min(rows, max(0, rows - first))
            self.extra_logits -= max(0, logits - 1)
        else:
            logits = int(rows == request.pending)
        self.rows -= rows
        return Chunk(request, request.computed, rows, logits)

    def _branch(self, request: Request) -> Chunk:
        """As many rows of the next branch of a request's choices, behind what it begins with that is laid already."""
        assert request.chooser is not None
        branch = request.chooser.branch
        assert branch is not None
        unread = request.chooser.unread(branch)
        laid = min(unread, _common(request.laid, branch))
        rows = min(len(branch) - laid, self.rows, unread - laid + 1 + self.extra_logits)
        logits = max(0, laid + rows - unread)
        self.rows -= rows
        self.extra_logits -= max(0, logits - 1)
        return Chunk(request, request.computed + laid, rows, logits, branch[laid : laid + rows])


class Scheduler:
    """Holds the requests that wait and those that run. Same calls, same schedule.

    A running request holds the pages of all its tokens, so that only a growing output asks for more. When none is left,
    the youngest running request gives its pages up and waits to be computed again, which gives the same bits. The
    oldest can therefore always go on.

    Full pages are registered by hash as they are computed, so that a request which begins with the same tokens starts
    behind them.

    Where the program keeps recurrent state, a running request holds a slot of it too, and starts at the end of the last
    block up to which there are both pages and a snapshot of that state.

    Args:
        pool: of pages.
        max_rows: of a step.
        batch_size: the most sequences that run.
        states: of recurrent state, where there is any.
        state_drafts: guesses of a sequence that recurrent state has room for.
    """

    def __init__(
        self, pool: PagePool, max_rows: int, batch_size: int, states: StatePool | None = None, state_drafts: int = 0
    ) -> None:
        self.pool = pool
        self.states = states
        self.state_drafts = state_drafts
        self.max_rows = max_rows
        self.max_running = min(batch_size, max_rows)
        if states is not None:
            self.max_running = min(self.max_running, states.slots)
        self.extra_logits = logit_rows(max_rows, batch_size) - self.max_running
        self.waiting: list[Request] = []  # oldest first
        self.running: list[Request] = []  # oldest first
        self.unfinished: dict[Request, None] = {}  # a set that keeps its order
        self._arrivals = 0

    def add(self, request: Request) -> None:
        """Let a request wait for its turn, and keep the pages that it may then share."""
        hashes = self._shareable_hashes(request)
        found = self.pool.find(hashes)
        self.pool.touch(hashes[:found])
        if self.states is not None and (found := self.states.find(hashes[:found])):
            self.states.touch(hashes[found - 1])
        request.arrival = self._arrivals
        self._arrivals += 1
        request.state = State.WAITING
        self.unfinished[request] = None
        self.waiting.append(request)

    def remove(self, request: Request, state: State) -> None:
        """Take a request out, finished or aborted, and its memory with it."""
        if request not in self.unfinished:
            return
        if request in self.running:
            self.running.remove(request)
        elif request in self.waiting:  # it is in neither where adding it was cut off
            self.waiting.remove(request)
        self._take_memory(request)
        request.state = state
        del self.unfinished[request]

    def restart(self) -> None:
        """Forget what is in the memory, after a step that was cut off: everything unfinished is computed again."""
        self.pool.reset()
        if self.states is not None:
            self.states.reset()
        self.running = []
        for request in self.unfinished:
            _forget_memory(request)
            request.state = State.WAITING
        self.waiting = sorted(self.unfinished, key=_age)

    def schedule(self) -> list[Chunk]:
        """The next step's chunks: a row of each request that decodes, then prompts, prompts that waited, and drafts."""
        self._grow()
        if self.states is not None:
            self._aim()
        room = _Room(self.max_rows, self.extra_logits)
        chunks = [Chunk(r, r.computed, 1, 1) for r in self.running if r.decodes]
        decoding = len(chunks)
        room.rows -= decoding
        if decoding < len(self.running):
            for request in self.running:
                if room.rows and not request.decodes:
                    chunks.append(room.chunk(request))
        if room.rows and self.waiting and len(self.running) < self.max_running:
            self._admit(chunks, room)
        if room.rows and room.extra_logits:
            self._draft(chunks, decoding, room)
        return chunks

    def reserve_steps(self, chunks: Sequence[Chunk], most: int) -> int:
        """Take pages for ``most`` steps of these chunks, each with the tokens that the one before found; how many run.

        That is so while every request decodes, wants its likeliest token alone and has no use for it before the last
        step, and nothing could come between. They get the pages of all these steps: new ones where there are so many
        that nobody else lacks them.
        """
        if most == 1 or not all(
            chunk.rows == 1 and chunk.logits == 1 and chunk.request.decodes_unseen for chunk in chunks
        ):
            return 1
        requests = [chunk.request for chunk in chunks]
        steps = min(most, min(request.limit - len(request.tokens) for request in requests))
        if self.states is not None:
            steps = min(steps, min(request.aim - request.computed for request in requests))
        missing = [self._missing(request, len(request.tokens) + steps - 1) for request in requests]
        if sum(missing) + len(requests) > self.pool.free_count:
            return min(steps, *(1 + self._room(request) for request in requests))
        for request, pages in zip(requests, missing, strict=True):
            request.blocks.extend(self.pool.alloc(pages))
        return steps

    def _missing(self, request: Request, tokens: int) -> int:
        """Pages that a request lacks for so many tokens."""
        return max(0, self.pool.pages_for(tokens) - len(request.blocks))

    def _room(self, request: Request) -> int:
        """Positions that a request's pages have room for, behind its tokens."""
        return len(request.blocks) * self.pool.page_size - len(request.tokens)

    def advance(self, request: Request, computed: int, moved: int) -> None:
        """Take note of what a step has left behind of a request.

        Args:
            computed: positions whose keys and values are there. The pages that this fills are registered.
            moved: positions by which recurrent state was moved: fewer, where guesses held.
        """
        request.computed = computed
        if computed >= (request.hashed_blocks + 1) * self.pool.page_size:
            hashes = self._hashes(request)
            for page in range(request.hashed_blocks, computed // self.pool.page_size):
                request.blocks[page] = self.pool.register(request.blocks[page], hashes[page])
                request.hashed_blocks = page + 1
        if self.states is not None:
            request.replays = computed - moved
            if moved == request.aim:
                self._snapshot(request)

    def lay(self, request: Request, laid: tuple[int, ...]) -> None:
        """Take note of what a step has laid of a branch behind a request's prompt.

        Recurrent state that this has moved cannot be moved back: before another branch, the request starts again.
        """
        assert request.chooser is not None
        request.laid = laid
        if self.states is not None and (request.chooser.branch or ())[: len(laid)] != laid:
            self._preempt(request)

    def _snapshot(self, request: Request) -> None:
        """Keep the state that a request has arrived at; within its output, in place of the one before."""
        assert self.states is not None
        block_hash = self._hashes(request)[request.aim // self.pool.page_size - 1]
        if request.aim > len(request.prompt_token_ids):
            self.states.keep(request.slot, block_hash, request.turn)
            request.turn = block_hash
        else:
            self.states.keep(request.slot, block_hash)
        request.snapshot_at = request.aim

    def _aim(self) -> None:
        """Find where each running request needs its next snapshot of recurrent state."""
        for request in self.running:
            if not request.decodes or request.aim <= request.computed:
                self._aim_for(request)

    def _aim_for(self, request: Request) -> None:
        size = self.pool.page_size
        if request.decodes:
            request.aim = aim_of_completion(request, len(self.running), size)
            return
        self._hashes(request)
        others = (self._shareable_hashes(other) for other in islice(self.waiting, LOOK_AHEAD))
        request.aim = aim_of_prompt(request, _shareable(request, size), others, size)

    def _grow(self) -> None:
        """Give every running request the pages of its tokens, the oldest first, at the youngest's expense."""
        room = self.pool.page_size
        for request in tuple(self.running):
            while request.reach > room * len(request.blocks) and request.state is State.RUNNING:
                missing = self._missing(request, request.reach)
                if missing <= self.pool.free_count:
                    request.blocks.extend(self.pool.alloc(missing))
                else:
                    self._preempt(self.running[-1])

    def _preempt(self, request: Request) -> None:
        self.running.remove(request)
        self._take_memory(request)
        request.state = State.WAITING
        insort(self.waiting, request, key=_age)

    def _admit(self, chunks: list[Chunk], room: _Room) -> None:
        """Start requests that wait, the oldest first, while there is room: a page each is left for those that run.

        One that would compute a page which a running request is about to compute is left waiting for that page: it
        gets it for nothing, at most as many steps later as the other takes to it. Those behind it may go first. With
        recurrent state it waits for the snapshot at the end of what both begin with.
        """
        size = self.pool.page_size
        prompts = [r for r in self.running if not r.decodes and self.states is None]
        computing = {block for r in prompts for block in self._hashes(r)[r.computed // size :]}
        for request in tuple(islice(self.waiting, LOOK_AHEAD)):
            if not room.rows or len(self.running) == self.max_running:
                return
            hashes = self._shareable_hashes(request)
            found = known = self.pool.find(hashes)
            if self.states is not None:
                found = self.states.find(hashes[:known])
                if self._is_coming(hashes, found):
                    continue
            elif found < len(hashes) and hashes[found] in computing:
                continue
            shared = self.pool.share(hashes[:found])
            needed = self.pool.pages_for(request.reach) - found
            if needed + len(self.running) > self.pool.free_count:
                self.pool.free(shared)
                return
            request.blocks = array("i", shared + self.pool.alloc(needed))
            request.hashed_blocks = found
            request.computed = found * size
            self.waiting.remove(request)
            if self.states is not None:
                request.slot = self.states.take(hashes[found - 1] if found else None)
                request.snapshot_at, request.branch = request.computed, known
                self._aim_for(request)
            insort(self.running, request, key=_age)
            request.state = State.RUNNING
            computing.update(request.block_hashes[found:])
            chunks.append(room.chunk(request))

    def _is_coming(self, hashes: Sequence[bytes], found: int) -> bool:
        """Whether a running request is about to compute more blocks of these than can be started from now."""
        size = self.pool.page_size
        for request in self.running:
            if not request.decodes:
                shared = common(request.block_hashes, hashes)
                if shared > found and shared * size > request.computed:
                    return True
        return False

    def _draft(self, chunks: list[Chunk], decoding: int, room: _Room) -> None:
        """Add guesses at the next tokens to the first chunks, those that decode, where there is room for them.

        A page is left for each that runs, so that nobody is preempted for the sake of a guess.
        """
        for place, (request, start, rows, *_) in enumerate(chunks[:decoding]):
            if request.drafter is None:
                continue
            length = len(request.tokens)
            most = min(room.rows, room.extra_logits, request.limit - length - 1)
            if self.pool.free_count - self.pool.pages_for(most) < len(self.running):
                most = min(most, self._room(request))
            if self.states is not None:
                most = min(most, self.state_drafts)
                if start + 1 < request.aim:  # else the state gets there in this step
                    most = min(most, request.aim - start - 2)
            if most <= 0:
                continue
            drafts = request.drafter.draft(request.tokens, most, worth(decoding))
            if drafts:
                request.blocks.extend(self.pool.alloc(self._missing(request, length + len(drafts))))
                chunks[place] = Chunk(request, start, rows + len(drafts), 1 + len(drafts), drafts, len(drafts))
                room.rows -= len(drafts)
                room.extra_logits -= len(drafts)

    def _hashes(self, request: Request) -> list[bytes]:
        """The hashes of all full blocks of a request's tokens."""
        extend_hashes(request.block_hashes, request.tokens, self.pool.page_size, request.salt)
        return request.block_hashes

    def _shareable_hashes(self, request: Request) -> list[bytes]:
        return self._hashes(request)[: _shareable(request, self.pool.page_size)]

    def _take_memory(self, request: Request) -> None:
        self.pool.free(request.blocks)
        if self.states is not None and request.slot >= 0:
            self.states.give_back(request.slot)
        _forget_memory(request)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two branches begin with alike."""
    same = 0
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    return same


def _age(request: Request) -> int:
    return request.arrival


def _forget_memory(request: Request) -> None:
    request.blocks = array("i")
    request.slot = -1
    request.computed = request.hashed_blocks = 0
    request.replays = request.aim = request.snapshot_at = request.branch = 0
    request.laid = ()


def _shareable(request: Request, page_size: int) -> int:
    """Pages that a request may take as others left them: a row is left to run, and those whose logits are read."""
    last = len(request.tokens) - 1
    return (last if request.observer is None else min(last, request.observer.first)) // page_size
