"""From records to predictions: requests made as there is room for them, results written in the records' order."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

from bossa.cli.progress import Bar
from bossa.dataset import (
    SEPARATOR,
    BadRecord,
    JsonlWriter,
    Record,
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

    def token_ids(self, model: LanguageModel, prompt: str) -> list[int]:
        if not self.chat:
            return model.encode(prompt)
        chat = getattr(model.tokenizer, "chat", None)
        if chat is None:
            raise TokenizerError("--chat needs the model's tokenizer, and there is none: give --model_name_or_path")
        # A template writes the special tokens itself.
        return model.encode(chat([{"role": "user", "content": prompt}]), add_special_tokens=False)


@dataclass
class Tally:
    """What was done, for the summary."""

    prompts: int = 0
    tokens: int = 0
    failed: int = 0
    interrupted: bool = False
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
            print(f"bossa: {record.file}, line {record.line}: {reason}", file=sys.stderr)


@dataclass(frozen=True)
class JsonlSink:
    """A JSON record a prompt, those that failed included."""

    writer: JsonlWriter

    def put(self, record: Record, completions: Sequence[Completion]) -> None:
        self.writer.put(record.index, completion_fields(record, *map(_fields, completions)))

    def fail(self, record: Record | BadRecord, reason: str) -> None:
        self.writer.put(record.index, error_fields(record, reason))


def generate(model: LanguageModel, records: Iterable[Record | BadRecord], ask: Ask, sink: Sink, bar: Bar) -> Tally:
    """Run the records, and give each result to the sink when it is done.

    Ctrl-C ends it early: the tally then says so.
    """
    tally = Tally()
    started = time.perf_counter()
    params = model.params(**ask.sampling)
    waiting: dict[int, tuple[Record, list[Completion]]] = {}  # by the places of their requests
    places = count()

    def fail(record: Record | BadRecord, reason: str) -> None:
        tally.failed += 1
        sink.fail(record, reason)
        bar.advance(0)

    def requests() -> Iterator[Request]:
        for record in records:
            if isinstance(record, BadRecord):
                fail(record, record.reason)
                continue
            try:
                ids = ask.token_ids(model, record.prompt)
                samples = model.requests(ids, record.index, params, ask.truncation, ask.samples)
            except RequestError as error:
                fail(record, str(error))
                continue
            done: list[Completion] = []
            for request in samples:
                waiting[next(places)] = record, done
                yield request

    try:
        for completion in model.run(requests()):
            record, done = waiting.pop(completion.index)
            done.append(completion)
            if len(done) == ask.samples:
                tally.add(done)
                sink.put(record, sorted(done, key=lambda completion: completion.sample))
                bar.advance(sum(len(completion.token_ids) for completion in done))
    except KeyboardInterrupt:
        tally.interrupted = True
    tally.seconds = time.perf_counter() - started
    return tally


def stream(model: LanguageModel, prompt: str, ask: Ask) -> Tally:
    """Write the completion of one prompt to standard output as it grows; several samples when all are done.

    Ctrl-C ends it early: the tally then says so, and counts nothing.
    """
    tally = Tally()
    started = time.perf_counter()
    ids = ask.token_ids(model, prompt)
    try:
        if ask.samples > 1:
            completions = model.generate([ids], n=ask.samples, truncation=ask.truncation, **ask.sampling)
            sys.stdout.write(SEPARATOR.join(completion.text for completion in completions))
        else:
            completions = [_write_stream(model.stream(ids, truncation=ask.truncation, **ask.sampling))]
        tally.add(completions)
    except KeyboardInterrupt:
        tally.interrupted = True
    tally.seconds = time.perf_counter() - started
    sys.stdout.write("\n")
    sys.stdout.flush()
    return tally


def _write_stream(pieces: Generator[str, None, Completion]) -> Completion:
    while True:
        try:
            piece = next(pieces)
        except StopIteration as end:
            completion: Completion = end.value
            return completion
        sys.stdout.write(piece)
        sys.stdout.flush()


def _fields(completion: Completion) -> dict[str, Any]:
    logprobs = completion.logprobs
    tokens = None if logprobs is None else [asdict(token) for token in logprobs]
    return answer_fields(completion.text, completion.token_ids, completion.finish_reason, tokens)
