"""Runs requests on a program: the loop of schedule, step, sample, stop, and the calls built on it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from bossa.checks.arguments import whole
from bossa.engine.batch import Chunk
from bossa.engine.limits import Limits
from bossa.engine.outcome import Outcome, grow, learn, replay
from bossa.engine.pages import PagePool
from bossa.engine.program import Detokenizer, MakeDetokenizer, ModelRunner, Tokenizer
from bossa.engine.request import Completion, Observer, Request, State
from bossa.engine.scheduler import Scheduler
from bossa.engine.states import StatePool
from bossa.engine.steps import Steps
from bossa.engine.stopping import Stopper
from bossa.errors import BossaError, RequestError, RuntimeFailure
from bossa.host.process import Process
from bossa.sampling.parameters import SamplingParams

if TYPE_CHECKING:
    from bossa.sampling.grammar import Grammars, MaskPool


def detokenize(tokenizer: Any, prompt: Sequence[int]) -> Detokenizer:
    """Bossa's own detokenizer, imported where text is followed and nowhere else."""
    from bossa.tokenizer import Detokenizer as Ours

    return Ours(tokenizer, prompt)


class Engine:
    """Runs any number of requests, from any number of threads, on one program.

    There is no thread of its own. Of the threads that wait for a result one drives: it runs a step for all requests,
    and the others wait for what it brings. Whoever has what it waits for returns, and another takes over. A call that
    is cut off, by Ctrl-C for one, takes its own requests out; the others are computed again where that is needed,
    which gives the same bits. What is wrong with one request, such as logits that are no numbers, is told to those who
    wait for it, and nobody else.

    A process that was forked from the one it was made in has a copy of it without the threads that compute, and with
    locks that nobody may ever open: there every call is refused before it takes one.

    Args:
        program: the engine owns it from now on and closes it.
        tokenizer: gives completions their text; without one their text is empty and they cannot stop at strings.
        batch_size: the most sequences in one step.
        max_rows: the most rows in one step, if fewer than the program allows.
        max_seq_length: the most positions of a sequence, if fewer than the program allows.
        detokenizer: makes what follows the text of one growing completion, from the tokenizer and the prompt.

    Attributes:
        process: the one that it was made in, and works in.
    """

    def __init__(
        self,
        program: ModelRunner,
        tokenizer: Tokenizer | None = None,
        *,
        batch_size: int,
        max_rows: int | None = None,
        max_seq_length: int | None = None,
        detokenizer: MakeDetokenizer = detokenize,
    ) -> None:
        whole("the batch size", batch_size, 1)
        self.program = program
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.max_seq_length = min(max_seq_length or program.max_seq_length, program.max_seq_length)
        self._detokenizer = detokenizer
        self._limits = Limits(
            program.vocab_size, self.max_seq_length, program.pages * program.page_size, tokenizer is not None
        )
        pool, states = PagePool(program.pages, program.page_size), None
        if program.state_bytes:
            states = StatePool(program.state_slots, program.copy_state)
            if not program.page_bytes:  # there is no memory to be spared
                pool.cold_pages = pool.pages
        rows = min(max_rows or program.max_rows, program.max_rows)
        self._scheduler = Scheduler(pool, rows, batch_size, states, program.state_drafts)
        self._steps = Steps(program)
        self._salt = program.adapter_hash
        self._changed = threading.Condition()  # guards all below and the scheduler; told of every step's end
        self._driver: int | None = None  # the thread that runs a step now
        self._settled = True  # False from the schedule of a step until all that it brought is taken
        self._closed = False
        self._grammars: dict[tuple[int, ...], Grammars] = {}  # by the tokens that end a completion
        self._masks: MaskPool | None = None
        self.process = Process()

    # Requests

    def check(self, request: Request) -> None:
        """Refuse what can never run.

        Raises:
            RequestError: says what is too long, empty, out of range or missing.
        """
        self._limits.check_prompt(request)
        self._prepare(request)
        self._limits.check(request)

    def check_constraint(self, params: SamplingParams) -> None:
        """Refuse choices, a regular expression or a schema that no prompt could be asked with.

        Raises:
            RequestError, TokenizerError: says why.
        """
        if params.constrained:
            request = Request(0, [0], params)
            self._limits.check_text(request)
            self._prepare(request)

    def submit(self, request: Request) -> None:
        """Put a new request in the queue.

        Raises:
            RequestError: it can never run, was submitted before, or the engine is closed.
        """
        self.process.check()
        self._check_outside()
        self.check(request)
        with self._changed:
            self._check_open()
            if request.state is not State.NEW:
                raise RequestError(f"request {request.id} was submitted before: make a new one")
            request.salt = request.salt or self._salt
            request.limit = self._limits.longest(request)
            request.stopper = self._stopper(request)
            self._scheduler.add(request)
            self._changed.notify_all()

    def abort(self, requests: Iterable[Request]) -> None:
        """Take out those that are not finished, and free their pages."""
        if self.process.is_another:
            return
        with self._changed:
            if not self._is_choosing():  # else the step goes on, without these
                self._settle()
            for request in requests:
                self._scheduler.remove(request, State.ABORTED)

    def step(self, failed: list[Request] | None = None) -> list[Request]:
        """Run one step, and return the requests that it finished; none when nothing waits or runs.

        Args:
            failed: takes those that failed in it, with their ``error``, instead of having it raised.

        Raises:
            RuntimeFailure: one has failed. The others are as they should be.
        """
        self.process.check()
        ended: list[Request] = []
        self._drive(lambda: not self._scheduler.unfinished, ended)
        for request in ended:
            if request.error is not None and failed is None:
                raise request.error
        if failed is not None:
            failed += [request for request in ended if request.error is not None]
        return [request for request in ended if request.error is None]

    # Calls

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Run the requests and give each completion when it is done; its ``index`` is its request's place.

        The requests are taken from the iterable as there is room for them, so that it may be long and lazy.

        Raises:
            RequestError: a request can never run.
            RuntimeFailure: one has failed. In either case those that are not finished are dropped.
        """
        source = enumerate(requests)
        indices: dict[Request, int] = {}  # of those in flight, in order
        ahead = 2 * self.batch_size  # that a free place is never waited for
        more = True
        try:
            while True:
                while more and len(indices) < ahead:
                    index, request = next(source, (0, None))
                    if request is None:
                        more = False
                    else:
                        indices[request] = index
                        self.submit(request)
                if not indices:
                    return
                ended = self._wait_for_any(indices)
                for request in ended:
                    if request.error is None:
                        yield request.completion(indices.pop(request))
                for request in ended:
                    if request.error is not None:
                        raise request.error
        finally:
            self.abort(indices)

    def stream(self, request: Request) -> Generator[str, None, Completion]:
        """Run one request and give its text as it grows; joined, the pieces are the completion's text.

        The generator's return value is the completion.
        """
        request.stream = True
        try:
            self.submit(request)
            sent = 0
            while True:
                self._drive_until(partial(_has_news, request, sent))
                if request.error is not None:
                    raise request.error
                finished = request.finish_reason is not None
                text = request.text
                if len(text) > sent:
                    yield text[sent:]
                    sent = len(text)
                if finished:
                    return request.completion(0)
        finally:
            self.abort([request])

    def observe(self, token_ids: Sequence[int], observer: Observer) -> None:
        """Run the tokens once, and give the observer their logits.

        Raises:
            RequestError: there are no tokens, too many, or some that are not in the vocabulary.
        """
        request = Request(0, token_ids, observer=observer)
        try:
            self.submit(request)
            self._drive_until(lambda: request.state is State.FINISHED or request.error is not None)
            if request.error is not None:
                raise request.error
        finally:
            self.abort([request])

    def close(self) -> None:
        """Free the program. Calls that still run end with a RequestError; closing again does nothing."""
        if self.process.is_another:
            if not self._closed:
                self._closed = True
                self.program.close()
            return
        self._check_outside()
        with self._changed:
            if self._closed:
                return
            self._settle()
            self._closed = True
            while self._driver is not None:
                self._changed.wait()
            self._changed.notify_all()
            self.program.close()

    # The loop

    def _wait_for_any(self, requests: Iterable[Request]) -> list[Request]:
        """Run until one of these is finished; all of them that are."""
        self._drive_until(lambda: any(request.ended for request in requests))
        return [request for request in requests if request.ended]

    def _drive_until(self, ready: Callable[[], bool]) -> None:
        self.process.check()
        while not self._drive(ready, []):
            pass

    def _drive(self, ready: Callable[[], bool], finished: list[Request]) -> bool:
        """Unless ``ready`` holds, run one step, after the one that another thread runs. Whether ``ready`` held."""
        me = threading.get_ident()
        self._check_outside()
        try:
            with self._changed:
                self._settle()
                while not ready() and self._driver is not None:
                    self._changed.wait()
                if ready():
                    return True
                self._check_open()
                self._settle()
                self._driver = me
                self._settled = False
                chunks = self._scheduler.schedule()
                steps = self._scheduler.reserve_steps(chunks, self._steps.most)
            if not chunks:
                raise RuntimeFailure("the scheduler found nothing to run: a request was lost")
            ran, outcome = self._steps.decode(chunks, steps, self._mask)
            if outcome is None:
                return False  # as if it had been cut off
            with self._changed:
                self._take(ran, outcome, finished)
                self._settled = True
            return False
        finally:
            if self._driver == me:
                with self._changed:
                    self._driver = None
                    self._changed.notify_all()

    def _settle(self) -> None:
        """After a step that was cut off, anywhere: keep the tokens that there are, and derive all else from them.

        It is done by the next who touches the state, since what cut the step off may cut this off too.
        """
        if self._driver == threading.get_ident():
            self._driver = None  # this thread was cut off as it left
        if self._settled or self._driver is not None:
            return
        self._scheduler.restart()
        for request in tuple(self._scheduler.unfinished):
            if request.observer is not None:
                continue
            try:
                request.stopper = self._stopper(request)
                replay(request)
            except BossaError as error:
                self._fail(request, error)
            if request.finish_reason is not None:
                self._scheduler.remove(request, State.FINISHED)
        self._settled = True

    def _take(self, chunks: Sequence[Chunk], outcome: Outcome, finished: list[Request]) -> None:
        """Give every request of a step what it brought: computed positions, and logits or tokens."""
        row = 0
        for chunk in chunks:
            request = chunk.request
            first, row = row, row + chunk.logits
            moved = chunk.start + chunk.rows - chunk.guesses
            if request.state is not State.RUNNING:
                continue  # aborted during the step
            try:
                if request.observer is not None:
                    if chunk.logits:
                        assert outcome.logits is not None
                        request.observer.receive(chunk.start + chunk.rows - chunk.logits, outcome.logits[first:row])
                    self._scheduler.advance(request, moved, moved)
                    done = not request.pending
                elif request.chooser is not None:
                    self._learn(request, chunk, outcome, first)
                    done = request.finish_reason is not None
                elif chunk.logits:
                    grow(request, chunk.drafts, outcome, first)
                    self._scheduler.advance(request, len(request.tokens) - 1, moved)
                    done = request.finish_reason is not None
                else:
                    self._scheduler.advance(request, moved, moved)
                    done = False
            except BossaError as error:
                self._fail(request, error)
                finished.append(request)
                continue
            if done:
                self._scheduler.remove(request, State.FINISHED)
                finished.append(request)

    def _learn(self, request: Request, chunk: Chunk, outcome: Outcome, row: int) -> None:
        """Give a request with choices what its prompt or one of their branches brought."""
        assert request.chooser is not None
        length = len(request.prompt_token_ids)
        end = chunk.start + chunk.rows
        if not chunk.drafts:
            self._scheduler.advance(request, end, end)
            if chunk.logits:
                learn(request, (), outcome, row, 1)
            return
        whole = request.chooser.branch
        assert whole is not None
        branch = whole[: end - length]
        if chunk.logits:
            learn(request, branch, outcome, row, chunk.logits)
        if request.finish_reason is None:
            self._scheduler.lay(request, branch)

    def _fail(self, request: Request, error: BossaError) -> None:
        """Take out a request that cannot go on, and keep the reason for those who wait for it."""
        request.error = error
        self._steps.needs_logits = False
        self._scheduler.remove(request, State.ABORTED)

    def _prepare(self, request: Request) -> None:
        """Make what a constrained request is followed by, once.

        Raises:
            RequestError: there are choices that cannot be.
        """
        params, tokenizer = request.params, self.tokenizer
        if tokenizer is None or request.observer is not None:
            return
        if params.choices and request.chooser is None:
            from bossa.engine.choices import Chooser, choice_tokens  # which most requests do without

            prompt = request.prompt_token_ids
            tokens = [choice_tokens(tokenizer, choice, prompt) for choice in params.choices]
            request.chooser = Chooser(params.choices, tokens, params, request.weigh_all)
        if params.has_grammar and request.constraint is None:
            from bossa.sampling.grammar import Forced

            request.constraint = self._grammars_of(params).constraint(params)
            request.drafter = Forced(request.constraint, len(request.prompt_token_ids), request.drafter)

    def _grammars_of(self, params: SamplingParams) -> Grammars:
        """What compiles grammars over the tokens of this model; made once, which takes a good part of a second."""
        from bossa.sampling.grammar import Grammars

        ends = params.eos_token_ids
        if not ends:
            raise RequestError(
                "regex and json_schema need an end token behind the answer, and the model has none: load one whose"
                " config names its eos_token_id"
            )
        if ends not in self._grammars:
            tokenizer: Any = self.tokenizer  # one that lacks what is read of it is refused
            self._grammars[ends] = Grammars(tokenizer, self.program.vocab_size, ends)
        return self._grammars[ends]

    def _mask(self, chunks: Sequence[Chunk]) -> None:
        """Have the masks of all requests with a grammar computed, before the step that gives them logits."""
        wanted = [
            (request.constraint, request.output_ids, chunk.drafts)
            for chunk in chunks
            if (request := chunk.request).constraint is not None and chunk.logits
        ]
        if wanted:
            if self._masks is None:
                from bossa.sampling.grammar import MaskPool

                self._masks = MaskPool()
            self._masks.prepare(wanted)

    def _stopper(self, request: Request) -> Stopper:
        follow = self.tokenizer is not None and (request.stream or request.params.stop)
        return Stopper(
            request.params,
            request.prompt_token_ids,
            request.limit - len(request.prompt_token_ids),
            self.tokenizer,
            self._detokenizer(self.tokenizer, request.prompt_token_ids) if follow else None,
        )

    def _check_outside(self) -> None:
        """Refuse a call from a logits processor of this engine, which would wait for itself."""
        if self._is_choosing():
            raise RequestError(
                "a logits processor cannot use the model whose tokens it helps to choose: load it a second time"
            )

    def _is_choosing(self) -> bool:
        """Whether this call comes from within the choice of a token, as from a logits processor.

        A mark would not do: what cuts a step off, anywhere, could leave it behind.
        """
        frame = sys._getframe() if self._driver == threading.get_ident() else None
        while frame is not None:
            if frame.f_code is Engine._take.__code__ and frame.f_locals["self"] is self:
                return True
            frame = frame.f_back
        return False

    def _check_open(self) -> None:
        if self._closed:
            raise RequestError("the model is closed: load it again")


def _has_news(request: Request, sent: int) -> bool:
    return request.ended or len(request.text) > sent
