"""One candidate with the model's answer: its scored tokens and what they add up to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from app.scoring import PlannedCandidate
from model_runtime import (
    LogprobResult,
    NonFiniteLogits,
    Normalization,
    TokenLogprob,
    normalized_error,
    normalized_score,
)


@dataclass(frozen=True, slots=True)
class ScoredCandidate:
    """A candidate and its n scored tokens, an appended end included.

    Attributes:
        planned: what was asked.
        token_ids: [n].
        logprobs: [n] natural logs.
        ranks: [n] 1 + the number of strictly more probable tokens.
        top: [n][*] most probable tokens; empty when not asked.
    """

    planned: PlannedCandidate
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    ranks: tuple[int, ...]
    top: tuple[tuple[TokenLogprob, ...], ...]

    @classmethod
    def read(cls, planned: PlannedCandidate, answer: LogprobResult) -> ScoredCandidate:
        """Put the answer together; the end counts as one more token where it was asked."""
        end_ids = planned.query.targets
        if end_ids is None:
            return cls(planned, planned.token_ids, answer.logprobs, answer.ranks, answer.top)
        # The entry is shown under the likeliest end token.
        best = max(range(len(end_ids)), key=lambda place: answer.target_logprobs[place])
        return cls(
            planned,
            (*planned.token_ids, end_ids[best]),
            (*answer.logprobs, log_sum(answer.target_logprobs)),
            (*answer.ranks, answer.target_ranks[best]),
            answer.top,
        )

    def score(self, normalization: Normalization) -> float:
        """The log-probability under ``normalization``."""
        return normalized_score(
            self.logprobs,
            normalization,
            characters=self.planned.characters,
            byte_count=len(self.planned.content),
        )

    def score_if_text(self, normalization: Normalization) -> float | None:
        """The same, or None for ids that stand for no text."""
        return self.score(normalization) if self.planned.content else None

    def error(self, token_error: float, normalization: Normalization) -> float:
        """Numeric error of the score, from that of one token."""
        return normalized_error(
            token_error,
            len(self.logprobs),
            normalization,
            characters=self.planned.characters,
            byte_count=len(self.planned.content),
        )


def log_sum(logprobs: Sequence[float]) -> float:
    """Log of the summed probabilities; a single one comes back unchanged.

    Raises:
        NonFiniteLogits: all of them are zero.
    """
    best = max(logprobs)
    if best == -math.inf:
        raise NonFiniteLogits("the model gave the end no probability at all")
    return best + math.log(math.fsum(math.exp(logprob - best) for logprob in logprobs))
