"""Threshold search: every completion that is probable enough."""

from __future__ import annotations

import math
from collections.abc import Sequence

from model_runtime.decoding.best_first.best_first import BestFirstSearch, check_at_least_one
from model_runtime.decoding.best_first.exact import DEFAULT_WIDTH, check_can_end
from model_runtime.decoding.best_first.expansion_queries import Feasible
from model_runtime.decoding.best_first.top_k import TopK
from model_runtime.decoding.limits import DecodingLimits
from model_runtime.decoding.objective import Objective
from model_runtime.errors import InvalidQuery


class ThresholdSearch(BestFirstSearch):
    """Every completion with log-probability >= ``floor``, most probable first.

    Its certificate is optimal where that is proven: none is missing. Where there may be more
    than ``max_results`` it ends with the most probable ones and is not optimal, though the gap
    may be 0. Both hold up to the numeric error of the log-probabilities. A ``SearchStrategy``.

    Args:
        prompt, limits, vocab_size, feasible, max_expansions, num_beams, width: as those of
            ``ExactSearch``.
        floor: the least log-probability of a completion, in nats; at most 0.
        max_results: completions returned at most.

    Raises:
        InvalidQuery: an argument is out of its range; ``param`` names it.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        limits: DecodingLimits,
        *,
        vocab_size: int,
        floor: float,
        max_results: int,
        feasible: Feasible = "any",
        max_expansions: int,
        num_beams: int = 4,
        width: int = DEFAULT_WIDTH,
    ) -> None:
        check_at_least_one("max_results", max_results)
        check_can_end(limits, feasible)
        if not -math.inf < floor <= 0:
            raise InvalidQuery("must be a probability in (0, 1]", param="threshold")
        super().__init__(
            prompt,
            limits,
            Objective(0.0, 1, limits.max_tokens),
            TopK(max_results, floor),
            feasible=feasible,
            vocab_size=vocab_size,
            max_expansions=max_expansions,
            num_beams=num_beams,
            width=width,
        )
