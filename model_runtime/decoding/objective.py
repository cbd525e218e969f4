"""The objective of a search, and how large it may still become behind a prefix.

A completion of n tokens with log-probability s <= 0 scores s / n ** alpha. More tokens only make
s smaller, so behind t tokens with sum s no completion scores more than s over the largest
divisor that any of them may have::

    alpha > 0    n ** alpha is largest at the longest completion
    alpha < 0    n ** alpha is largest at the shortest completion
    alpha = 0    it is 1: the sum itself
"""

from __future__ import annotations

import math

from model_runtime.errors import InvalidQuery

LARGEST_EXPONENT = 700.0
"""exp() of more than this, or of less than its negative, leaves the range of float64."""


class Objective:
    """sum / length ** ``length_penalty`` over completions of admissible length.

    Args:
        length_penalty: alpha, of any sign; above 0 it favours long completions.
        shortest, longest: tokens in a completion, ``1 <= shortest <= longest``.

    Raises:
        InvalidQuery: a divisor leaves the range of float64.
    """

    def __init__(self, length_penalty: float, shortest: int, longest: int) -> None:
        exponent = abs(length_penalty) * math.log(longest)
        if not math.isfinite(length_penalty) or exponent > LARGEST_EXPONENT:
            raise InvalidQuery(
                "max_tokens ** length_penalty must be a finite number", param="length_penalty"
            )
        self._divisors = [1.0, *(float(n**length_penalty) for n in range(1, longest + 1))]
        self._largest = self._divisors.copy()
        for n in reversed(range(longest)):
            later = self._largest[n + 1]
            self._largest[n] = later if n < shortest else max(self._divisors[n], later)

    def score(self, logprob: float, length: int) -> float:
        """The score of a completion of ``length`` tokens."""
        return logprob / self._divisors[length]

    def bound(self, logprob: float, length: int) -> float:
        """No completion of at least ``length`` tokens scores more where ``logprob`` is a part.

        Args:
            logprob: the sum over some first tokens of the completion.
            length: from 0 to ``longest``.
        """
        return logprob / self._largest[length]

    def least_sum(self, score: float, length: int) -> float:
        """The ``logprob`` at which ``bound(logprob, length)`` is ``score``, up to rounding."""
        return score * self._largest[length]
