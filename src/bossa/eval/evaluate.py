"""Asks a model all examples, many at a time, and gathers what it makes of them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field

from bossa.dataset import BadRecord, Record, Source
from bossa.engine.request import Request
from bossa.engine.scoring import Scoring
from bossa.errors import RequestError, TokenizerError
from bossa.eval.example import Example, FieldNames, example
from bossa.eval.outcome import Outcome
from bossa.language_model import LanguageModel

Encode = Callable[[Example], list[int]]
"""The tokens of an example's prompt."""
Steps = Generator[list[Request], None, Outcome]
"""Requests that are run side by side, others once these are finished, and what comes of them all."""


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        choices: answers that are compared by their probabilities.
        exact_match: whether the model also answers in its own words.
        names: the fields of a record.
    """

    choices: tuple[str, ...] = ()
    exact_match: bool = True
    names: FieldNames = field(default_factory=FieldNames)


@dataclass
class Evaluation:
    """What came of all records, in their order.

    Attributes:
        outcomes: of those that could be evaluated.
        errors: the others, each with the reason.
        tokens: that were asked for: prompts and references once for each request, and what was generated.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    errors: list[BadRecord] = field(default_factory=list)
    tokens: int = 0


def evaluate(
    model: LanguageModel,
    records: Source[Record | BadRecord],
    encode: Encode,
    settings: Settings,
    advance: Callable[[int], None] = lambda tokens: None,
) -> Evaluation:
    """Evaluate all records, as many at a time as the model runs.

    Args:
        encode: the tokens of a prompt.
        advance: told of each record that is done, with its tokens.

    Raises:
        DatasetError: the records cannot be read.
        RequestError: the choices cannot be told apart.
    """
    run = _Run(model, records, encode, settings, advance)
    try:
        while run.submit() or run.in_flight:
            failed: list[Request] = []
            run.take(model.engine.step(failed))
            run.give_up(failed)
    finally:
        model.engine.abort(list(run.in_flight))
    run.found.outcomes.sort(key=lambda outcome: outcome.example.index)
    run.found.errors.sort(key=lambda error: error.index)
    return run.found


@dataclass(eq=False)
class _Asked:
    """An example on its way, with its requests that are not finished, and the tokens of all that it had."""

    example: Example
    steps: Steps
    left: set[Request] = field(default_factory=set)
    tokens: int = 0


class _Run:
    """Records on their way: which requests are in flight for which, and what came of those that are done."""

    def __init__(
        self,
        model: LanguageModel,
        records: Source[Record | BadRecord],
        encode: Encode,
        settings: Settings,
        advance: Callable[[int], None],
    ) -> None:
        self.found = Evaluation()
        self.in_flight: dict[Request, _Asked] = {}
        self._model, self._records, self._encode, self._advance = model, records, encode, advance
        self._settings = settings
        self._choosing = model.params(temperature=0, choices=settings.choices)
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
            found = record if isinstance(record, BadRecord) else self._example(record)
            if isinstance(found, Example):
                self._go_on(_Asked(found, self._steps(found)))
            else:
                self._fail(found)
        return True

    def take(self, finished: Iterable[Request]) -> None:
        """Take in what is finished, and ask what comes after it."""
        for request in finished:
            asked = self.in_flight.pop(request)
            asked.left.discard(request)
            asked.tokens += len(request.tokens)
            if not asked.left:
                self._go_on(asked)

    def give_up(self, failed: Iterable[Request]) -> None:
        """Count each record of which a request failed as an error, and drop what is left of it."""
        for request in failed:
            if request in self.in_flight:  # else another request of its record has failed
                asked = self.in_flight[request]
                self._drop(asked)
                self._fail(_error(asked.example, str(request.error)))

    def _example(self, record: Record) -> Example | BadRecord:
        return example(record, self._settings.choices, self._settings.names)

    def _go_on(self, asked: _Asked) -> None:
        """Submit the next requests of an example, or take its outcome."""
        try:
            for request in next(asked.steps):
                self._model.engine.submit(request)
                asked.left.add(request)
                self.in_flight[request] = asked
        except StopIteration as end:
            self.found.outcomes.append(end.value)
            self.found.tokens += asked.tokens
            self._advance(asked.tokens)
        except (RequestError, TokenizerError) as error:
            self._drop(asked)
            self._fail(_error(asked.example, str(error)))

    def _steps(self, asked: Example) -> Steps:
        """The scores of the choices and of the reference, and then, behind the pages that these left, an answer."""
        model = self._model
        prompt = self._encode(asked)
        reference = tuple(model.encode(asked.reference, add_special_tokens=False))
        scoring: Scoring | None = None
        choosing: Request | None = None
        requests: list[Request] = []
        if self._choosing.choices:
            [choosing] = requests = model.requests(prompt, asked.index, self._choosing, weigh_all=True)
        if choosing is None or not _weighs(choosing, asked, reference):
            scoring = Scoring(model.engine, prompt, reference)
            requests.append(Request(asked.index, scoring.tokens, observer=scoring.observer))
        yield requests
        generated = None
        if self._settings.exact_match:
            room = model.max_seq_length - len(prompt)
            params = model.params(temperature=0, max_new_tokens=min(len(reference) + 1, room))
            [request] = model.requests(prompt, asked.index, params)
            yield [request]
            generated = request.completion(asked.index).text
        choices = () if choosing is None else tuple(choosing.completion(asked.index).choice_logprobs or ())
        likelihood = scoring.total if scoring is not None else choices[asked.choice or 0]
        return Outcome(asked, likelihood, len(reference), generated, choices)

    def _drop(self, asked: _Asked) -> None:
        self._model.engine.abort(asked.left)
        for request in asked.left:
            del self.in_flight[request]

    def _fail(self, error: BadRecord) -> None:
        self.found.errors.append(error)
        self._advance(0)


def _weighs(choosing: Request, asked: Example, reference: tuple[int, ...]) -> bool:
    """Whether the log probability of a reference's choice is that of the reference: of the same tokens, and no end."""
    assert choosing.chooser is not None
    tokens = choosing.chooser.choices
    own = tokens[asked.choice or 0]
    return own == reference and not any(other[: len(own)] == own for other in tokens if other != own)


def _error(asked: Example, reason: str) -> BadRecord:
    return BadRecord(asked.index, asked.file, asked.line, reason, {"id": asked.id})
