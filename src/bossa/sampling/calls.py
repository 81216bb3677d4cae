"""The keyword arguments of a ``LanguageModel``'s calls that are about sampling, for type checkers and editors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from bossa.sampling.logits import LogitsProcessor


class Sampling(TypedDict, total=False):
    """What the calls of a ``LanguageModel`` take of ``SamplingParams``: all but the end tokens, which are its own."""

    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    seed: int
    stop: str | Sequence[str]
    ignore_eos: bool
    logprobs: int | None
    speculate: int
    max_length: int | None
    min_length: int
    min_new_tokens: int | None
    typical_p: float
    epsilon_cutoff: float
    eta_cutoff: float
    top_h: float | None
    no_repeat_ngram_size: int
    encoder_repetition_penalty: float
    encoder_no_repeat_ngram_size: int
    sequence_bias: Sequence[tuple[Sequence[int], float]] | Mapping[tuple[int, ...], float]
    bad_words_ids: Sequence[Sequence[int]]
    suppress_tokens: Sequence[int]
    begin_suppress_tokens: Sequence[int]
    forced_bos_token_id: int | None
    forced_eos_token_id: int | Sequence[int] | None
    exponential_decay_length_penalty: tuple[int, float] | None
    logits_processors: Sequence[LogitsProcessor]
    choices: Sequence[str]
    regex: str | None
    json_schema: str | Mapping[str, Any] | None
