"""Runs the chunks of a schedule on a program: by their likeliest tokens where that is enough, else by their logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from bossa.engine.batch import Chunk, pack, pack_states
from bossa.engine.outcome import Outcome
from bossa.engine.program import ModelRunner
from bossa.errors import RuntimeFailure
from bossa.runtime.states import SequenceStates

Mask = Callable[[Sequence[Chunk]], None]


class Steps:
    """The steps of one program.

    Attributes:
        needs_logits: whether the next steps have to have logits, so that it is found whose are no numbers. The step
            that ran into them has moved recurrent state, and could not be run again.
    """

    def __init__(self, program: ModelRunner) -> None:
        self._program = program
        self._keeps_state = bool(program.state_bytes)
        self.needs_logits = False

    @property
    def most(self) -> int:
        """How many steps of decoding may run one after the other."""
        return 1 if self.needs_logits else self._program.most_steps

    def run(self, chunks: Sequence[Chunk], mask: Mask) -> Outcome | None:
        """Run a step. None where its logits are no numbers and it cannot be run again.

        ``mask`` makes ready what is allowed, where tokens are chosen by their logits, before these are computed.
        """
        batch = pack(chunks)
        best_only = all(chunk.request.best_only for chunk in chunks if chunk.logits)
        if not best_only:
            mask(chunks)
        if best_only and not self.needs_logits:
            with suppress(RuntimeFailure):  # the same step with its logits then says of which request
                return Outcome(best=self._program.step_greedy(*batch, *self._states(chunks)).tolist())
            if self._keeps_state:
                self.needs_logits = True
                return None
        return Outcome(logits=self._program.step(*batch, *self._states(chunks)))

    def decode(self, chunks: Sequence[Chunk], steps: int, mask: Mask) -> tuple[Sequence[Chunk], Outcome | None]:
        """Run steps of decoding one after the other: the chunks that they come to, and what these bring.

        What each step but the last finds is a draft for the next one, which cannot fail.
        """
        if steps == 1:
            return chunks, self.run(chunks, mask)
        tokens, positions, _, block_tables, _ = pack(chunks)
        ends = {token for chunk in chunks if chunk.request.stopper for token in chunk.request.stopper.end_tokens}
        try:
            found = self._program.decode_greedy(
                tokens, positions, block_tables, steps, sorted(ends), *self._states(chunks)
            ).T.tolist()
        except RuntimeFailure:
            if self._keeps_state:
                self.needs_logits = True
                return chunks, None
            return chunks, self.run(chunks, mask)  # which says of which request
        ran = [
            Chunk(chunk.request, chunk.start, len(best), len(best), best[:-1])
            for chunk, best in zip(chunks, found, strict=True)
        ]
        return ran, Outcome(best=[token for best in found for token in best])

    def _states(self, chunks: Sequence[Chunk]) -> tuple[SequenceStates, ...]:
        """What a program that keeps recurrent state is told of it besides."""
        return (pack_states(chunks),) if self._keeps_state else ()
