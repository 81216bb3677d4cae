"""What decides the files that are made, and the words that say it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from bossa.errors import DatasetError

PROMPT, COMPLETION, PADDING, END = 0, 1, 2, 3
"""Token types: END is the end token that closes an article."""

PACKINGS = (
    "full", "greedy::drop", "greedy::truncate_left", "greedy::truncate_right", "single::drop", "single::truncate_left",
    "single::truncate_right",
)  # fmt: skip
Shuffle = Literal["False", "on_RAM", "large_file"]
Boundary = Literal["jsonl", "prompt_completion_pair"]
SMALL, MEDIUM, LARGE = 32, 128, 256
"""Files of training data for inputs under 10 GB, under 100 GB, and beyond."""


@dataclass(frozen=True)
class Settings:
    """How records become sequences. The names are those of the public tool's options.

    Attributes:
        max_seq_length: tokens of a sequence.
        input_packing_config: how articles are laid into sequences, one of `PACKINGS`: end to end and cut where one is
            full; as many whole ones as fit; or one each. What is longer than a sequence is dropped, or loses its
            beginning (``truncate_left``) or its end.
        packing_boundary, attention_boundary: what an article is: a record, or each pair of one that is a list.
        shuffle: whether records are put into an order drawn by ``seed``: in memory, or part by part.
        dev_ratio, test_ratio: the parts of the records that are set aside.
        num_training_splits: files of training data; by the size of the input when None.
        prompt_keyword, completion_keyword: the fields of a record.
        prompt_prefix, prompt_postfix: text around each prompt.
        disable_space_separator: completions are taken as they are, without exactly one space before them.
        apply_chat_template: prompts and completions are the turns of a conversation, written by the chat template.
        keep_prompt_only_sequences: sequences without any token of a completion are kept.
        categories: the names of categories in a record's ``category``, by number; None for files without them.
    """

    max_seq_length: int
    input_packing_config: str = "full"
    packing_boundary: Boundary = "jsonl"
    attention_boundary: Boundary = "jsonl"
    shuffle: Shuffle = "False"
    seed: int = 0
    dev_ratio: float = 0.0
    test_ratio: float = 0.0
    num_training_splits: int | None = None
    prompt_keyword: str = "prompt"
    completion_keyword: str = "completion"
    prompt_prefix: str = ""
    prompt_postfix: str = ""
    disable_space_separator: bool = False
    apply_chat_template: bool = False
    keep_prompt_only_sequences: bool = False
    categories: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Raises:
        DatasetError: a value is none of those that there are, or they do not go together.
        """
        if self.max_seq_length < 2:
            raise DatasetError(f"--max_seq_length is {self.max_seq_length}: a sequence has 2 tokens or more")
        if self.input_packing_config not in PACKINGS:
            raise DatasetError(f"--input_packing_config is none of {', '.join(PACKINGS)}")
        ratios = (self.dev_ratio, self.test_ratio)
        if min(ratios) < 0 or sum(ratios) >= 1:
            raise DatasetError(
                f"--dev_ratio {self.dev_ratio:g} and --test_ratio {self.test_ratio:g} leave nothing to train on: give"
                " ratios from 0 that are less than 1 together"
            )

    def training_files(self, input_bytes: int) -> int:
        """How many files of training data there are, if there are as many sequences."""
        if self.num_training_splits is not None:
            return self.num_training_splits
        gigabytes = input_bytes / 1e9
        return SMALL if gigabytes < 10 else MEDIUM if gigabytes < 100 else LARGE

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def fingerprint(values: dict[str, Any]) -> str:
    """A hash of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()
