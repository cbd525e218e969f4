"""One candidate with the model's answer: its scored tokens and what they add up to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.scoring.plan import PlannedCandidate
from model_runtime import (
    LogprobResult,
    Normalization,
    Size,
    TokenLogprob,
    log_sum,
    mean_baseline,
    normalized_error,
    normalized_score,
    total,
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
        under_others: [contexts][n] of the same ids under other contexts, where they were asked.
        alpha: the exponent of a ``gnmt`` score.
    """

    planned: PlannedCandidate
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    ranks: tuple[int, ...]
    top: tuple[tuple[TokenLogprob, ...], ...]
    under_others: tuple[tuple[float, ...], ...]
    alpha: float

    @property
    def logprob(self) -> float:
        """The sum."""
        return total(self.logprobs)

    @classmethod
    def read(
        cls,
        planned: PlannedCandidate,
        answer: LogprobResult,
        under_others: Sequence[LogprobResult],
        alpha: float,
    ) -> ScoredCandidate:
        """Put the answers together; the end counts as one more token where it was asked."""
        end_ids = planned.asked.end_ids
        token_ids, ranks = planned.token_ids, answer.ranks
        if end_ids is not None:
            # The entry is shown under the likeliest end token.
            best = max(range(len(end_ids)), key=lambda place: answer.target_logprobs[place])
            token_ids = (*token_ids, end_ids[best])
            ranks = (*ranks, answer.target_ranks[best])
        others = tuple(map(_with_end, under_others))
        return cls(planned, token_ids, _with_end(answer), ranks, answer.top, others, alpha)

    @property
    def size(self) -> Size:
        """What its score may be divided by."""
        return self.planned.size

    @property
    def baselines(self) -> tuple[float, ...]:
        """The sums under the other contexts."""
        return tuple(map(total, self.under_others))

    @property
    def baseline(self) -> float | None:
        """The sum under the other contexts, their mean; None where there are none."""
        return mean_baseline(self.baselines) if self.under_others else None

    def score(self, normalization: Normalization) -> float:
        """The log-probability under ``normalization``."""
        return normalized_score(
            self.logprobs,
            normalization,
            self.size,
            alpha=self.alpha,
            baselines=self.baselines,
        )

    def score_if_text(self, normalization: Normalization) -> float | None:
        """The same, or None for ids that stand for no text."""
        return self.score(normalization) if self.planned.content else None

    def error(self, token_error: float, normalization: Normalization) -> float:
        """Numeric error of the score, from that of one token."""
        return normalized_error(token_error, normalization, self.size, alpha=self.alpha)


def _with_end(answer: LogprobResult) -> tuple[float, ...]:
    """The scored tokens' log-probs, then that of any end where one was asked for."""
    if not answer.target_logprobs:
        return answer.logprobs
    return (*answer.logprobs, log_sum(answer.target_logprobs))
