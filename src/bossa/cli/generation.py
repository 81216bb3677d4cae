"""From records to predictions: requests made as there is room for them, results written in the records' order."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

from bossa.cli.progress import Bar
from bossa.dataset import BadRecord, JsonlWriter, Record, TextWriter, completion_fields, error_fields
from bossa.errors import RequestError, TokenizerError

if TYPE_CHECKING:
    from bossa.dataset.truncation import Truncation
    from bossa.engine.request import Completion, Request
    from bossa.language_model import LanguageModel


@dataclass(frozen=True)
class Ask:
    """How each prompt is asked.

    Attributes:
        sampling: keyword arguments of ``LanguageModel.params`` and ``stream``.
        chat: whether a prompt is a user's message in the model's chat template.
        truncation: the side on which prompts that are too long are cut.
    """

    sampling: dict[str, Any]
    chat: bool = False
    truncation: Truncation | None = None

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

    def add(self, completion: Completion) -> None:
        self.prompts += 1
        self.tokens += len(completion.token_ids)

    def __str__(self) -> str:
        rate = self.tokens / self.seconds if self.seconds > 0 else 0.0
        prompts = f"{self.prompts:,} prompt{'s' if self.prompts != 1 else ''}"
        line = f"{prompts}, {self.tokens:,} tokens in {self.seconds:.2f} s: {rate:,.1f} tokens/s"
        if self.failed:
            line += f"; {self.failed:,} record{'s were errors' if self.failed != 1 else ' was an error'}"
        return line


class Sink(Protocol):
    """Where results go."""

    def put(self, record: Record, completion: Completion) -> None:
        """Take the result of a record."""

    def fail(self, record: Record | BadRecord, reason: str) -> None:
        """Take a record that could not be run."""


@dataclass(frozen=True)
class TextSink:
    """Whole sequences as text on standard output; what failed on stderr, a line each."""

    writer: TextWriter
    model: LanguageModel
    bar: Bar

    def put(self, record: Record, completion: Completion) -> None:
        with self.bar.hidden(sys.stdout):
            self.writer.put(record.index, self.model.whole_text(completion))

    def fail(self, record: Record | BadRecord, reason: str) -> None:
        self.writer.put(record.index, None)
        with self.bar.hidden(sys.stderr):
            print(f"bossa: {record.file}, line {record.line}: {reason}", file=sys.stderr)


@dataclass(frozen=True)
class JsonlSink:
    """A JSON record a prompt, those that failed included."""

    writer: JsonlWriter

    def put(self, record: Record, completion: Completion) -> None:
        fields = completion_fields(record, completion.text, completion.token_ids, completion.finish_reason)
        self.writer.put(record.index, fields)

    def fail(self, record: Record | BadRecord, reason: str) -> None:
        self.writer.put(record.index, error_fields(record, reason))


def generate(model: LanguageModel, records: Iterable[Record | BadRecord], ask: Ask, sink: Sink, bar: Bar) -> Tally:
    """Run the records, and give each result to the sink when it is done.

    Ctrl-C ends it early: the tally then says so.
    """
    tally = Tally()
    started = time.perf_counter()
    params = model.params(**ask.sampling)
    waiting: dict[int, Record] = {}  # by the place of their requests
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
                request = model.request(ids, record.index, params, ask.truncation)
            except RequestError as error:
                fail(record, str(error))
                continue
            waiting[next(places)] = record
            yield request

    try:
        for completion in model.run(requests()):
            tally.add(completion)
            sink.put(waiting.pop(completion.index), completion)
            bar.advance(len(completion.token_ids))
    except KeyboardInterrupt:
        tally.interrupted = True
    tally.seconds = time.perf_counter() - started
    return tally


def stream(model: LanguageModel, prompt: str, ask: Ask) -> Tally:
    """Write the completion of one prompt to standard output as it grows.

    Ctrl-C ends it early: the tally then says so, and counts nothing.
    """
    tally = Tally()
    started = time.perf_counter()
    pieces = model.stream(ask.token_ids(model, prompt), truncation=ask.truncation, **ask.sampling)
    try:
        while True:
            sys.stdout.write(next(pieces))
            sys.stdout.flush()
    except StopIteration as end:
        tally.add(end.value)
    except KeyboardInterrupt:
        tally.interrupted = True
    tally.seconds = time.perf_counter() - started
    sys.stdout.write("\n")
    sys.stdout.flush()
    return tally
