"""A loaded model as its users see it: generate, stream, logits, score."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, Unpack

from bossa.checks.arguments import boolean, described, function, iterated, whole
from bossa.checks.arguments import token_ids as checked_ids
from bossa.engine import scoring
from bossa.engine.engine import Engine, detokenize
from bossa.engine.program import Floats, MakeDetokenizer, ModelRunner, Tokenizer
from bossa.engine.prompts import Message, conversation_ids, fit_conversation, is_conversation, text_ids
from bossa.engine.request import Completion, Request
from bossa.engine.truncation import Truncation, fit_prompt
from bossa.errors import RequestError, TokenizerError
from bossa.generation_config import Defaults, defaults, read
from bossa.sampling.parameters import CALLS, SamplingParams
from bossa.tokenizer import ChatText

if TYPE_CHECKING:
    from bossa.engine.choices import ChoiceScores
    from bossa.sampling.calls import Sampling

Prompt = str | Sequence[int] | Sequence[Message]

MOST_SAMPLES = 1024
"""Completions of one prompt, at most: each is kept until all are done."""


class LanguageModel:
    """Generates from one loaded program. Safe to use from several threads, whose work runs in common batches.

    The same prompt, parameters, seed and place among the prompts give the same tokens, whatever runs beside them.
    Close it, or use it in a ``with`` statement, to free the weights and the KV memory.

    Args:
        program: the native program; the model closes it.
        tokenizer: for prompts that are text, and for the text of completions; None when there is none.
        config: the model's own ``config.json``.
        generation_config: its ``generation_config.json``.
        follow_generation_config: whether what that sets holds wherever a call does not say otherwise.
        eos_token_ids: the tokens that end a completion.
        batch_size: the most sequences in one step.
        max_seq_length: the most tokens of prompt and completion together, if fewer than the program allows.
        detokenizer: makes what turns one growing completion into text, from the tokenizer and the prompt.
    """

    def __init__(
        self,
        program: ModelRunner,
        tokenizer: Tokenizer | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        generation_config: Mapping[str, Any] | None = None,
        follow_generation_config: bool = True,
        eos_token_ids: Iterable[int] = (),
        batch_size: int = 1,
        max_seq_length: int | None = None,
        detokenizer: MakeDetokenizer = detokenize,
    ) -> None:
        self.tokenizer = tokenizer
        self.config = dict(config or {})
        self.generation_config = dict(generation_config or {})
        self.follow_generation_config = follow_generation_config
        # Others can never be generated; some configs say -1 for none.
        self.eos_token_ids = tuple(token for token in eos_token_ids if 0 <= token < program.vocab_size)
        self.engine = Engine(
            program, tokenizer, batch_size=batch_size, max_seq_length=max_seq_length, detokenizer=detokenizer
        )

    @property
    def max_seq_length(self) -> int:
        """The most tokens of prompt and completion together."""
        return self.engine.max_seq_length

    @property
    def batch_size(self) -> int:
        """The most sequences in one step."""
        return self.engine.batch_size

    @property
    def generation_defaults(self) -> Defaults:
        """What the model's generation config sets where a call does not say otherwise; nothing if not followed."""
        if not self.follow_generation_config:
            return Defaults({}, {}, {})
        return read(defaults(self.generation_config, self.config), self.engine.program.vocab_size)

    def params(self, **sampling: Unpack[Sampling]) -> SamplingParams:
        """Sampling parameters with this model's end-of-sequence tokens; see ``SamplingParams`` for their meaning.

        What is not given is as the model's generation config has it, or neutral.
        """
        return self._params("params", sampling)

    def _params(self, call: str, sampling: Sampling) -> SamplingParams:
        """The same for a call of that name."""
        given: dict[str, Any] = {**sampling}
        for name in given.keys() - CALLS:
            raise TypeError(f"{type(self).__name__}.{call}() got an unexpected keyword argument {name!r}")
        if "max_new_tokens" in given:  # which goes before the length of both together, as in transformers
            given.pop("max_length", None)
        values = self.generation_defaults.beneath(given)
        if self.tokenizer is None:
            values.pop("stop", None)  # there is no text to stop at
        params = SamplingParams(**{**values, **given, "eos_token_ids": self.eos_token_ids})
        self.engine.check_constraint(params)
        return params

    def generate(
        self,
        prompts: Iterable[Prompt],
        *,
        n: int = 1,
        truncation: Truncation | None = None,
        on_completion: Callable[[Completion], None] | None = None,
        **sampling: Unpack[Sampling],
    ) -> list[Completion]:
        """Complete every prompt; greedy unless a temperature is given, or the model's generation config asks to sample.

        Args:
            prompts: texts, lists of token ids, or conversations: lists of messages with ``role`` and ``content``,
                which the model's chat template makes into a prompt that opens the answer.
            n: completions of each prompt, up to 1,024, which share what is computed for it; each draws by itself, and
                the first as it would alone.
            truncation: cut prompts that leave no room for ``max_new_tokens`` at the "left" or the "right".
            on_completion: called with each completion when it is done, in that order, from this thread.
            sampling: how to choose tokens and when to stop; see ``SamplingParams``. What is not given is as the model's
                generation config has it, unless the model was loaded with ``generation_config="none"``.

        Returns:
            The completions, in the order of the prompts; of each prompt all ``n``, by their ``sample``.

        Raises:
            RequestError: a prompt or a parameter cannot be run; then nothing is.
            TokenizerError: a prompt is text, and there is no tokenizer.
        """
        if isinstance(prompts, str):
            raise RequestError("generate takes a list of prompts, and was given one text: write generate([prompt])")
        given = iterated("prompts", prompts, "a list of prompts, each a text or a list of token ids")
        n = _samples(n)
        function("on_completion", on_completion)
        params = self._params("generate", sampling)
        requests = [
            request
            for index, prompt in enumerate(given)
            for request in self.requests(prompt, index, params, truncation, n)
        ]
        completions: list[Completion] = []
        for completion in self.run(requests):
            completions.append(replace(completion, index=completion.index // n))
            if on_completion is not None:
                on_completion(completions[-1])
        return sorted(completions, key=lambda completion: (completion.index, completion.sample))

    def stream(
        self,
        prompt: Prompt,
        *,
        truncation: Truncation | None = None,
        **sampling: Unpack[Sampling],
    ) -> Generator[str, None, Completion]:
        """Complete one prompt, and give its text piece by piece; joined, they are what ``generate`` gives.

        The arguments and errors are those of ``generate``. The generator's return value is the completion.
        """
        params = self._params("stream", sampling)
        if self.tokenizer is None:
            raise TokenizerError("a stream is text, and the model has no tokenizer: load it with one")
        [request] = self.requests(prompt, 0, params, truncation, name="prompt")
        return self.engine.stream(request)

    def requests(
        self,
        prompt: Prompt,
        index: int,
        params: SamplingParams,
        truncation: Truncation | None = None,
        n: int = 1,
        *,
        name: str = "",
        weigh_all: bool = False,
    ) -> list[Request]:
        """Requests for ``run``, one for each of ``n`` samples, refused here if they can never run.

        Their random numbers follow from ``index`` and their samples' places.

        Args:
            name: of the prompt, for errors; its place among the prompts where there is none.
            weigh_all: with choices, find the log probabilities of all of them, as the completion's
                ``choice_logprobs``, and not just the likeliest.

        Raises:
            RequestError, TokenizerError: as ``generate``.
        """
        self.engine.process.check()
        n = _samples(n)
        most = self.max_seq_length if truncation is None else params.longest(self.max_seq_length)
        new = self.room(params)
        if is_conversation(prompt):
            ids = fit_conversation(self.tokenizer, prompt, most, new, truncation)
        else:
            ids = self._ids(name or f"prompts[{index}]", prompt)
        ids = fit_prompt(ids, most, new, truncation, isinstance(prompt, ChatText))
        requests = [Request(index, ids, params, sample=sample, weigh_all=weigh_all) for sample in range(n)]
        self.engine.check(requests[0])
        return requests

    def room(self, params: SamplingParams) -> int:
        """Tokens that a prompt which is cut leaves room for: the new ones or, of choices, the longest and an end."""
        if not params.choices or self.tokenizer is None:
            return params.max_new_tokens
        from bossa.engine.choices import choice_tokens

        return 1 + max(len(choice_tokens(self.tokenizer, choice)) for choice in params.choices)

    def choose(
        self,
        prompts: Iterable[Prompt],
        choices: Sequence[str],
        *,
        truncation: Truncation | None = None,
        on_scores: Callable[[ChoiceScores], None] | None = None,
    ) -> list[ChoiceScores]:
        """How likely each of some texts is as the answer to every prompt, by the model's raw logits.

        What it finds likeliest is what ``generate`` answers with the same ``choices`` at temperature 0.

        Args:
            prompts: as ``generate`` takes them.
            choices: texts, each of them once.
            truncation: cut prompts that leave no room for the longest choice at the "left" or the "right".
            on_scores: called with each prompt's scores when they are there, in that order, from this thread.

        Returns:
            The scores, in the order of the prompts.

        Raises:
            RequestError: a prompt cannot be run, or the choices cannot be told apart; then nothing is run.
            TokenizerError: there is no tokenizer.
        """
        from bossa.engine.choices import ChoiceScores

        if isinstance(prompts, str):
            raise RequestError("choose takes a list of prompts, and was given one text: write choose([prompt], …)")
        given = iterated("prompts", prompts, "a list of prompts, each a text or a list of token ids")
        function("on_scores", on_scores)
        params = SamplingParams(choices=choices, eos_token_ids=self.eos_token_ids)  # type: ignore[arg-type]  # which it checks
        if not params.choices:
            raise RequestError("there are no choices: give the texts of which one is the answer")
        self.engine.check_constraint(params)
        requests = [
            request
            for index, prompt in enumerate(given)
            for request in self.requests(prompt, index, params, truncation, weigh_all=True)
        ]
        scores: list[ChoiceScores] = []
        for completion in self.run(requests):
            assert completion.choice_logprobs is not None
            logprobs, ids = completion.choice_logprobs, completion.prompt_token_ids
            scores.append(ChoiceScores(completion.index, params.choices, logprobs, ids))
            if on_scores is not None:
                on_scores(scores[-1])
        return sorted(scores, key=lambda each: each.index)

    def run(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Run any number of requests, taken as there is room, and give each completion when it is done."""
        return self.engine.generate(requests)

    def logits(self, token_ids: Sequence[int]) -> Floats:
        """The logits [T, V], float32, at each of T positions.

        Raises:
            RequestError: there are no tokens, too many, or some that are not in the vocabulary.
        """
        wanted = "a list of token ids (those of a text are encode's)"
        return scoring.logits(self.engine, checked_ids("token_ids", token_ids, expected=wanted))

    def score(self, prompt: Prompt, completion: Prompt) -> float:
        """The log probability of the completion after the prompt: the sum over its tokens, in float64.

        Texts are tokenized apart, the completion without special tokens, so that the tokens scored follow the prompt's
        own; where a tokenizer would merge across the border, the tokens are not those of the joined text.

        Raises:
            RequestError: the prompt has no tokens, or both together are too long.
        """
        self.engine.process.check()
        ids = self._ids("prompt", prompt)
        return scoring.score(self.engine, ids, self._ids("completion", completion, add_special_tokens=False))

    def encode(self, prompt: Prompt, add_special_tokens: bool = True) -> list[int]:
        """The token ids of a text or a conversation; those of a list, as they are.

        A text that the tokenizer's ``chat`` made has its special tokens, and gets no more. Nor does one that begins
        with the token that begins a sequence get a second one; the tokenizer's own ``encode`` would add it, as
        transformers' does.

        Raises:
            TokenizerError: it is text, and there is no tokenizer.
            RequestError: it is neither.
        """
        boolean("add_special_tokens", add_special_tokens)
        return self._ids("prompt", prompt, add_special_tokens)

    def _ids(self, name: str, prompt: Prompt, add_special_tokens: bool = True) -> list[int]:
        if isinstance(prompt, str):
            if self.tokenizer is None:
                raise TokenizerError("the prompt is text, and the model has no tokenizer: load one, or give token ids")
            return text_ids(self.tokenizer, prompt, add_special_tokens)
        if is_conversation(prompt):
            return conversation_ids(self.tokenizer, prompt)
        return checked_ids(name, prompt, expected="text or a list of token ids")

    def whole_text(self, completion: Completion) -> str:
        """Prompt and completion as one text, special tokens kept, as Hugging Face's ``decode`` of all tokens gives it.

        A completion cut at a stop string ends before it.
        """
        if self.tokenizer is None:
            raise TokenizerError("text needs a tokenizer, and the model has none: load it with one")
        ended = completion.finish_reason == "stop" and completion.token_ids[-1] not in self.eos_token_ids
        if ended:
            return self.tokenizer.decode(completion.prompt_token_ids) + completion.text
        return self.tokenizer.decode([*completion.prompt_token_ids, *completion.token_ids])

    def close(self) -> None:
        """Free the weights and the KV memory. What is called after it, or still runs, ends with a RequestError."""
        self.engine.close()

    def __reduce__(self) -> NoReturn:
        raise RequestError("a loaded model cannot be copied, pickled or sent to another process: load it there")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _samples(n: int) -> int:
    """How many completions of a prompt are wanted, checked."""
    n = whole("n", n, 1)
    if n > MOST_SAMPLES:
        raise RequestError(
            f"n is {described(n)}, and at most {MOST_SAMPLES:,} completions of a prompt run at a time: ask for fewer,"
            " several times, with another seed each"
        )
    return n
