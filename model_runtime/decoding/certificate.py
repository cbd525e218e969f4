"""What a search knows about the completions that it did not return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Certificate:
    """How far a search has proven its result. Scores are those of its objective.

    It is a proof over the log-probabilities as the model gave them, so ``optimal`` holds up to
    the numeric error of these: two completions that lie closer together may change places.

    Attributes:
        optimal: no completion that is not returned scores higher than the last one returned,
            and none is missing: as many are returned as were asked for, or as there are. Of a
            threshold search: every completion at or above the threshold is returned.
        gap: by how much a completion that is not returned may beat the last one returned; 0.0
            where none can. With one completion it is ``upper_bound`` minus its score. None
            where nothing is returned.
        upper_bound: no completion scores higher. None where none is returned and none is left.
        expanded: distinct token paths whose continuations were looked at.
    """

    optimal: bool
    gap: float | None
    upper_bound: float | None
    expanded: int

    @classmethod
    def of(
        cls, scores: Sequence[float], left: float | None, expanded: int, *, complete: bool = True
    ) -> Certificate:
        """What follows from where a search stands.

        Args:
            scores: of the completions that are returned, best first.
            left: no other completion scores more; None where none of them matters.
            expanded: distinct token paths whose continuations were looked at.
            complete: False where some that are not returned were wanted as well.
        """
        bounds = [*scores[:1], *([] if left is None else [left])]
        gap = 0.0 if left is None or not scores else max(0.0, left - scores[-1])
        return cls(
            optimal=left is None and complete,
            gap=gap if scores else None,
            upper_bound=max(bounds, default=None),
            expanded=expanded,
        )
