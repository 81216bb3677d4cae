"""What a model made of one example."""

from __future__ import annotations

from dataclasses import dataclass

from bossa.eval.example import Example


@dataclass(frozen=True)
class Outcome:
    """What a model made of one example.

    Attributes:
        example: it.
        log_likelihood: the log probability of the reference after the prompt, over all its tokens.
        tokens: of the reference.
        generated: what the model goes on with, for as many tokens as the reference has and one more; None where that
            was not asked for.
        choices: the log probability of each choice after the prompt, where there are any.
    """

    example: Example
    log_likelihood: float
    tokens: int
    generated: str | None = None
    choices: tuple[float, ...] = ()

    @property
    def is_exact(self) -> bool | None:
        """Whether it goes on with the reference and nothing else, but for white space around both."""
        return None if self.generated is None else self.generated.strip() == self.example.reference.strip()
