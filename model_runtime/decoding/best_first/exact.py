"""Exact decoding: the k best completions, and the proof that they are."""

from __future__ import annotations

from collections.abc import Sequence

from model_runtime.decoding.best_first.best_first import BestFirstSearch, check_at_least_one
from model_runtime.decoding.best_first.expansion_queries import Feasible
from model_runtime.decoding.best_first.top_k import TopK
from model_runtime.decoding.limits import DecodingLimits
from model_runtime.decoding.objective import Objective
from model_runtime.errors import InvalidQuery

DEFAULT_WIDTH = 32
"""Paths in a round: on a CPU as many as the model answers in little more than the time of one."""


class ExactSearch(BestFirstSearch):
    """The ``num_return_sequences`` best completions by sum / length ** ``length_penalty``.

    It ends when that is proven, or when its budget or its time runs out: then with the best so
    far, and a certificate of how far from the best they may be. What is proven is proven of
    the log-probabilities as the model gave them: ``optimal`` and the order of the k best hold
    up to their numeric error. A ``SearchStrategy``.

    Args:
        prompt: token ids; at least one.
        limits: when a completion ends.
        vocab_size: rows of the model's head.
        num_return_sequences: completions returned. Fewer come back where there are fewer.
        length_penalty: the exponent in the score, of any sign; 0.0 ranks by the sum.
        feasible: ``any`` searches what greedy and beam search do: completions that end, and
            those of exactly ``max_tokens`` tokens. ``ended`` leaves the latter out.
        max_expansions: paths asked for their continuations at most; one that is asked for
            more of them counts again.
        num_beams: width of the beam search that finds the first completions.
        width: paths asked in a round, ``num_beams`` where that is more; see ``WIDENED``.

    Raises:
        InvalidQuery: an argument is out of its range; ``param`` names it.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        limits: DecodingLimits,
        *,
        vocab_size: int,
        num_return_sequences: int = 1,
        length_penalty: float = 0.0,
        feasible: Feasible = "any",
        max_expansions: int,
        num_beams: int = 4,
        width: int = DEFAULT_WIDTH,
    ) -> None:
        check_at_least_one("num_return_sequences", num_return_sequences)
        check_can_end(limits, feasible)
        super().__init__(
            prompt,
            limits,
            Objective(length_penalty, _shortest(limits), limits.max_tokens),
            TopK(num_return_sequences),
            feasible=feasible,
            vocab_size=vocab_size,
            max_expansions=max_expansions,
            num_beams=num_beams,
            width=width,
        )


def check_can_end(limits: DecodingLimits, feasible: Feasible) -> None:
    """Raise ``InvalidQuery`` where only ended completions count and none can end."""
    if feasible not in ("any", "ended"):
        raise InvalidQuery('must be "any" or "ended"', param="feasible")
    if feasible == "any":
        return
    if limits.min_tokens == limits.max_tokens and limits.constraint is None:
        raise InvalidQuery(
            'feasible "ended" needs min_tokens below max_tokens: nothing ends before otherwise',
            param="min_tokens",
        )
    if not limits.end_token_ids and limits.stop is None and limits.constraint is None:
        raise InvalidQuery(
            '"ended" needs an end token, a stop or a constraint: nothing ends otherwise',
            param="feasible",
        )


def _shortest(limits: DecodingLimits) -> int:
    """Tokens of the shortest completion; what completes a constraint is no token of its own."""
    ending = 1 if limits.constraint is None else 0
    return max(1, min(limits.min_tokens + ending, limits.max_tokens))
