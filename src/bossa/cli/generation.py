"""From records to predictions: requests made as there is room for them, results written in the records' order."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from bossa.cli.progress import Bar
from bossa.cli.text import put, say
from bossa.dataset import (
    SEPARATOR,
    BadRecord,
    JsonlWriter,
    Record,
    Source,
    TextWriter,
    answer_fields,
    completion_fields,
    error_fields,
)
from bossa.errors import RequestError, TokenizerError

if TYPE_CHECKING:
    from bossa.engine.request import Completion, Request
    from bossa.engine.truncation import Truncation
    from bossa.language_model import LanguageModel
    from bossa.sampling.parameters import SamplingParams


@dataclass(frozen=True)
class Ask:
    """How each prompt is asked.

    Attributes:
        sampling: keyword arguments of ``LanguageModel.params`` and ``stream``.
        chat: whether a prompt is a user's message in the model's chat template.
        truncation: the side on which prompts that are too long are cut.
        samples: completions of each prompt.
    """

    sampling: dict[str, Any]
    chat: bool = False
    truncation: Truncation | None = None
    samples: int = 1

    def check(self, model: LanguageModel) -> None:
        """Refuse what no prompt could be asked with.

        Raises:
            TokenizerError: ``chat`` is wanted, and there is no template.
        """
        if self.chat and getattr(model.tokenizer, "chat_template", "") is None:
            raise TokenizerError("--chat needs a chat template, and the model's tokenizer has none: leave it out")

    def token_ids(
        self,
        model: LanguageModel,
        params: SamplingParams,
        prompt: str,
        messages: list[dict[str, Any]] | None = None,
        tools: list[dict[str, Any]] | None = None,
    ) -> list[int]:
        """The tokens of a prompt, or of a conversation with its tools, which the chat template makes one of."""
        if messages is None:
            if not self.chat:
                return model.encode(prompt)
            messages = [{"role": "user", "content": prompt}]
        chat = getattr(model.tokenizer, "chat", None)
        if chat is None:
            raise TokenizerError("a chat needs the model's tokenizer, and there is none: give --model_name_or_path")
        from bossa.engine.prompts import fit_conversation

        most = params.longest(model.max_seq_length)
        return fit_conversation(model.tokenizer, messages, most, model.room(params), self.truncation, tools)


@dataclass
class Tally:
    """What was done, for the summary."""

    prompts: int = 0
    tokens: int = 0
    failed: int = 0
    interrupted: KeyboardInterrupt | None = None
    seconds: float = 0.0

    def add(self, completions: Sequence[Completion]) -> None:
        """Count one prompt and what it got."""
        self.prompts += 1
        self.tokens += sum(len(completion.token_ids) for completion in completions)

    def __str__(self) -> str:
        rate = self.tokens / self.seconds if self.seconds > 0 else 0.0
        prompts = f"{self.prompts:,} prompt{'s' if self.prompts != 1 else ''}"
        line = f"{prompts}, {self.tokens:,} tokens in {self.seconds:.2f} s: {rate:,.1f} tokens/s"
        if self.failed:
            line += f"; {self.failed:,} record{'s were errors' if self.failed != 1 else ' was an error'}"
        return line


class Sink(Protocol):
    """Where results go."""

    def put(self, record: Record, completions: Sequence[Completion]) -> None:
        """Take the result of a record: its samples, in their order."""

    def fail(self, record: Record | BadRecord, reason: str) -> None:
        """Take a record that could not be run."""


@dataclass(frozen=True)
class TextSink:
    """Whole sequences as text on standard output; what failed on stderr, a line each."""

    writer: TextWriter
    model: LanguageModel
    bar: Bar

    def put(self, record: Record, completions: Sequence[Completion]) -> None:
        with self.bar.hidden(sys.stdout):
            self.writer.put(record.index, SEPARATOR.join(map(self.model.whole_text, completions)))

    def fail(self, record: Record | BadRecord, reason: str) -> None:
        self.writer.put(record.index, None)
        with self.bar.hidden(sys.stderr):
            say(f"bossa: {record.file}, line {record.line}: {reason}")


@dataclass(frozen=True)
class JsonlSink:
    """A JSON record a prompt, those that failed included."""

    writer: JsonlWriter

    def put(self, record: Record, completions: Sequence[Completion]) -> None:
        self.writer.put(record.index, completion_fields(record, *map(_fields, completions)))

    def fail(self, record: Record | BadRecord, reason: str) -> None:
        self.writer.put(record.index, error_fields(record, reason))


def generate(model: LanguageModel, records: Source[Record | BadRecord], ask: Ask, sink: Sink, bar: Bar) -> Tally:
    """Run the records, and give each result to the sink when it is done; never waits for a record beside work.

    Ctrl-C, or another signal that ends a run, ends it early: the tally then says so.
    """
    run = _Run(model, records, ask, sink, bar)
    started = time.perf_counter()
    try:
        while run.submit() or run.in_flight:
            failed: list[Request] = []
            run.deliver(model.engine.step(failed))
            run.give_up(failed)
    except KeyboardInterrupt as interrupt:
        run.tally.interrupted = interrupt
        model.engine.abort(run.in_flight)
        run.deliver([request for request in run.in_flight if request.finish_reason is not None])
    finally:
        model.engine.abort(run.in_flight)
    run.tally.seconds = time.perf_counter() - started
    return run.tally


class _Run:
    """Records on their way: which requests are in flight for which, and what is done of each."""

    def __init__(
        self, model: LanguageModel, records: Source[Record | BadRecord], ask: Ask, sink: Sink, bar: Bar
    ) -> None:
        self.tally = Tally()
        self.in_flight: dict[Request, tuple[Record, dict[int, Completion]]] = {}
        self._model, self._records, self._ask, self._sink, self._bar = model, records, ask, sink, bar
        self._params = model.params(**ask.sampling)
        self._ahead = 2 * model.batch_size  # that a free place is never waited for

    def submit(self) -> bool:
        """Take the records that have come, as there is room for them; whether there may be more."""
        while len(self.in_flight) < self._ahead:
            try:
                record = self._records.take(wait=not self.in_flight)
            except StopIteration:
                return False
            if record is None:
                return True
            if isinstance(record, BadRecord):
                self._fail(record, record.reason)
                continue
            try:
                ids = self._ask.token_ids(self._model, self._params, record.prompt, record.messages, record.tools)
                requests = self._model.requests(
                    ids, record.index, self._params, self._ask.truncation, self._ask.samples
                )
            except (RequestError, TokenizerError) as error:
                self._fail(record, str(error))
                continue
            done: dict[int, Completion] = {}
            for request in requests:
                self.in_flight[request] = record, done
                self._model.engine.submit(request)
        return True

    def deliver(self, finished: Iterable[Request]) -> None:
        """Give the sink each record of which all samples are done."""
        for request in finished:
            record, done = self.in_flight[request]
            done[request.sample] = request.completion(0)
            if len(done) == self._ask.samples:
                completions = [done[sample] for sample in sorted(done)]
                self._sink.put(record, completions)
                self.tally.add(completions)
                self._bar.advance(sum(len(completion.token_ids) for completion in completions))
            del self.in_flight[request]

    def give_up(self, failed: Iterable[Request]) -> None:
        """Give the sink each record of which a sample failed, and drop what is left of it."""
        for request in failed:
            if request in self.in_flight:  # else another sample of its record has failed
                record, _ = self.in_flight[request]
                rest = [other for other, (owner, _) in self.in_flight.items() if owner is record]
                self._model.engine.abort(rest)
                for other in rest:
                    del self.in_flight[other]
                self._fail(record, str(request.error))

    def _fail(self, record: Record | BadRecord, reason: str) -> None:
        self.tally.failed += 1
        self._sink.fail(record, reason)
        self._bar.advance(0)


def stream(model: LanguageModel, prompt: str, ask: Ask) -> Tally:
    """Write the completion of one prompt to standard output as it grows; several samples when all are done.

    Ctrl-C ends it early: the tally then says so, and counts nothing.
    """
    tally = Tally()
    started = time.perf_counter()
    ids = ask.token_ids(model, model.params(**ask.sampling), prompt)
    try:
        if ask.samples > 1:
            completions = model.generate([ids], n=ask.samples, truncation=ask.truncation, **ask.sampling)
            put(SEPARATOR.join(completion.text for completion in completions))
        else:
            completions = [_write_stream(model.stream(ids, truncation=ask.truncation, **ask.sampling))]
        tally.add(completions)
    except KeyboardInterrupt as interrupt:
        tally.interrupted = interrupt
    tally.seconds = time.perf_counter() - started
    put("\n")
    return tally


def _write_stream(pieces: Generator[str, None, Completion]) -> Completion:
    while True:
        try:
            piece = next(pieces)
        except StopIteration as end:
            completion: Completion = end.value
            return completion
        put(piece)


def _fields(completion: Completion) -> dict[str, Any]:
    logprobs = completion.logprobs
    tokens = None if logprobs is None else [asdict(token) for token in logprobs]
    return answer_fields(completion.text, completion.token_ids, completion.finish_reason, tokens)
