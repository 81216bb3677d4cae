"""The logits processors of a request, in the order of transformers' ``generate`` (``_get_logits_processor``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bossa.sampling.asked import Asked
from bossa.sampling.bias import bad_words_ids, sequence_bias
from bossa.sampling.callers import checked
from bossa.sampling.decay import exponential_decay_length_penalty
from bossa.sampling.forced import forced_bos_token_id, forced_eos_token_id
from bossa.sampling.logits import Floats, LogitsProcessor
from bossa.sampling.minimum import minimum_length
from bossa.sampling.ngrams import encoder_no_repeat_ngram_size, no_repeat_ngram_size
from bossa.sampling.parameters import SamplingParams
from bossa.sampling.repetition import encoder_repetition_penalty, repetition_penalty
from bossa.sampling.suppressed import begin_suppress_tokens, suppress_tokens

if TYPE_CHECKING:
    from bossa.sampling.grammar import Constraint

ORDER: tuple[Callable[[Asked], LogitsProcessor | None], ...] = (
    sequence_bias,
    encoder_repetition_penalty,
    repetition_penalty,
    no_repeat_ngram_size,
    encoder_no_repeat_ngram_size,
    bad_words_ids,
    minimum_length,
    forced_bos_token_id,
    forced_eos_token_id,
    exponential_decay_length_penalty,
    suppress_tokens,
    begin_suppress_tokens,
)
"""Each makes its processor for a request, or None where that would change nothing. A caller's own come after them,
and a constraint last."""


def logits_processors(
    params: SamplingParams, prompt: Sequence[int], limit: int, constraint: Constraint | None = None
) -> tuple[LogitsProcessor, ...]:
    """The processors of a request, in their order.

    Args:
        params: what is asked for.
        prompt: its token ids.
        limit: tokens that prompt and completion may have, at most.
        constraint: the grammar that the completion keeps to, whatever the others do.
    """
    asked = Asked(params, tuple(prompt), limit)
    made = [processor for make in ORDER if (processor := make(asked)) is not None]
    made += map(checked, params.logits_processors)
    if constraint is not None:
        made.append(_kept_to(constraint, len(prompt)))
    return tuple(made)


def _kept_to(constraint: Constraint, prompt: int) -> LogitsProcessor:
    def process(tokens: Sequence[int], row: Floats) -> Floats:
        return constraint.mask(tokens[prompt:], row)

    return process
