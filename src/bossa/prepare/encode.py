"""Records to articles: token ids with a type each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bossa.errors import BossaError
from bossa.prepare.items import Item, Pair
from bossa.prepare.settings import COMPLETION, END, PROMPT, Settings
from bossa.tokenizer import Tokenizer

ITEMS = 512
"""Records that are encoded together."""
LETTERS = 1 << 20
"""Letters of them, of which no more is begun: a bound on memory."""


class Piece(NamedTuple):
    """A text of an article, all of whose tokens have one type."""

    text: str
    kind: int
    begins: bool = False
    ends: bool = False
    """Whether the special tokens of a prompt's beginning belong before it, and an end token behind it."""


class Article(NamedTuple):
    """An item's tokens and their types, or the reason why there are none; a record of several pairs may make several.

    Attributes:
        tokens: int32 ``[T]``.
        types: uint8 ``[T]``.
    """

    item: Item
    tokens: NDArray[np.int32]
    types: NDArray[np.uint8]
    reason: str | None = None


class Encoder:
    """Encodes records by one tokenizer.

    Raises:
        BossaError: the tokenizer has no end token, or no chat template where one is wanted.
    """

    def __init__(self, tokenizer: Tokenizer, settings: Settings) -> None:
        self.tokenizer = tokenizer
        self.settings = settings
        end = tokenizer.eos_token_id
        if end is None:
            raise BossaError(f"{tokenizer.where}: its tokenizer names no end token: set eos_token in its config")
        self.end = end
        self.end_text = tokenizer.special_tokens.get("eos_token", "")
        self.padding = end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self._head = tokenizer.prompt_ids("")  # the special tokens before a prompt, and perhaps behind it
        while self._head and self._head[-1] == end:
            self._head.pop()
        self._empty = Article(Item(0, 0), np.empty(0, np.int32), np.empty(0, np.uint8))

    def articles(self, items: Iterable[Item]) -> Iterator[Article]:
        """The articles of the items, in order. While some are encoded, the next are read."""
        source = iter(items)
        with ThreadPoolExecutor(1) as pool:
            waiting: Future[list[Article]] | None = None
            while True:
                batch = list(_batch(source))
                following = pool.submit(self.encode, batch) if batch else None
                if waiting is not None:
                    yield from waiting.result()
                if following is None:
                    return
                waiting = following

    def encode(self, items: Sequence[Item]) -> list[Article]:
        """The articles of some items."""
        made: list[tuple[Item, list[Piece] | str]] = []
        for item in items:
            if item.reason is not None:
                made.append((item, item.reason))
                continue
            try:
                made += [(item, pieces) for pieces in self._pieces(item)]
            except BossaError as error:
                made.append((item, str(error)))
        texts = [piece.text for _, pieces in made if not isinstance(pieces, str) for piece in pieces]
        try:
            ids = iter(self.tokenizer.encode_batch(texts))
        except BossaError:
            return [self._alone(item, pieces) for item, pieces in made]
        return [self._article(item, pieces, ids) for item, pieces in made]

    def _alone(self, item: Item, pieces: list[Piece] | str) -> Article:
        """As `_article`, where a text of the batch is none that the tokenizer takes."""
        try:
            texts = [] if isinstance(pieces, str) else [piece.text for piece in pieces]
            return self._article(item, pieces, iter(self.tokenizer.encode_batch(texts)))
        except BossaError as error:
            return self._empty._replace(item=item, reason=str(error))

    def _article(self, item: Item, pieces: list[Piece] | str, ids: Iterator[list[int]]) -> Article:
        if isinstance(pieces, str):
            return self._empty._replace(item=item, reason=pieces)
        tokens: list[int] = []
        types: list[int] = []
        for piece in pieces:
            if piece.begins:
                tokens += self._head
                types += [PROMPT] * len(self._head)
            found = next(ids)
            tokens += found
            types += [piece.kind] * len(found)
            if piece.ends:
                if tokens[-1:] != [self.end] or types[-1:] != [COMPLETION]:
                    tokens.append(self.end)
                    types.append(COMPLETION)
                if self.settings.attention_boundary == "prompt_completion_pair":
                    types[-1] = END
        types[-1] = END
        return Article(item, np.array(tokens, np.int32), np.array(types, np.uint8))

    def _pieces(self, item: Item) -> list[list[Piece]]:
        """The texts of an item, for each article that it makes."""
        if item.messages:
            return [list(self._turns(item))]
        if self.settings.apply_chat_template:
            messages = [
                message
                for pair in item.pairs
                for message in (
                    {"role": "user", "content": pair.prompt},
                    {"role": "assistant", "content": pair.completion},
                )
                if message["role"] == "assistant" or pair.prompt
            ]
            return [list(self._turns(Item(item.file, item.line, messages=tuple(messages))))]
        pairs = [self._of_pair(pair) for pair in item.pairs]
        if self.settings.packing_boundary == "prompt_completion_pair":
            return pairs
        return [[piece for pair in pairs for piece in pair]]

    def _of_pair(self, pair: Pair) -> list[Piece]:
        settings = self.settings
        prompt, completion = pair
        if not settings.disable_space_separator:
            prompt = prompt.rstrip(" ")
            completion = " " + completion.lstrip(" ") if completion else ""
        if prompt:
            prompt = settings.prompt_prefix + prompt + settings.prompt_postfix
        return [Piece(prompt, PROMPT, begins=True), Piece(completion, COMPLETION, ends=True)]

    def _turns(self, item: Item) -> Iterator[Piece]:
        """A conversation as the chat template writes it; what the assistant says, and what ends it, is to be learnt.

        Raises:
            BossaError: the template does not take it, or writes what was said before anew as a conversation goes on.
        """
        messages, written = item.messages, ""
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = str(self.tokenizer.chat(messages[:number], True, tools=item.tools)) if number else written
            after = str(self.tokenizer.chat(messages[: number + 1], False, tools=item.tools))
            if not before.startswith(written) or not after.startswith(before):
                raise BossaError("the chat template writes earlier turns anew as the conversation goes on")
            answer = after[len(before) :]
            # What the template writes behind the end token is not the assistant's to say.
            at = answer.rfind(self.end_text) if self.end_text else -1
            answer = answer if at < 0 else answer[: at + len(self.end_text)]
            yield Piece(before[len(written) :], PROMPT)
            yield Piece(answer, COMPLETION)
            written = before + answer
        if not written.endswith(self.end_text or "\0"):
            yield Piece("", COMPLETION, ends=True)


def _batch(items: Iterator[Item]) -> Iterator[Item]:
    letters = 0
    for item in islice(items, ITEMS):
        yield item
        letters += sum(len(pair.prompt) + len(pair.completion) for pair in item.pairs)
        if letters > LETTERS:
            return
