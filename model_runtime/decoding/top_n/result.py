"""What a search for the best of a closed set is given and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from model_runtime.decoding.top_n.path_score import PathScore
from model_runtime.errors import ChainruleError


class RankedCandidate(NamedTuple):
    """A candidate of a closed set.

    Attributes:
        path: its token ids behind the common prefix, at least one, without an end token.
        divisor: what its sum of log-probs is divided by; above 0.
        error: what its score may be off by; not negative.
    """

    path: tuple[int, ...]
    divisor: float
    error: float


@dataclass(frozen=True, slots=True)
class Pruned:
    """A candidate that is provably not among the best.

    Attributes:
        bound: its score is not above this.
        logprob: of the prefix that was read of it: its own is not above this.
        prefix: which one; candidates of the same number share it.
    """

    bound: float
    logprob: float
    prefix: int


CandidateOutcome = PathScore | Pruned | ChainruleError
"""What became of a candidate: its score, how far it was read, or why it has none."""


@dataclass(frozen=True)
class TopResult:
    """What became of each candidate.

    Attributes:
        best: indices of the n best and of those tied with the last of them, best first.
        find_ends: makes ``ends``. The model thread has no time for it.
        expanded: prefixes that the model was asked about.
        certified: no candidate that is ``Pruned`` can be among the best. False where the search was
            ended before that was known: then they are the best of those that were scored.
    """

    best: tuple[int, ...]
    find_ends: Callable[[], tuple[CandidateOutcome, ...]] = field(repr=False, compare=False)
    expanded: int
    certified: bool = True

    @cached_property
    def ends(self) -> tuple[CandidateOutcome, ...]:
        """For each candidate its answer, as if it had been scored alone, or why it was not."""
        return self.find_ends()

    @property
    def pruned(self) -> int:
        """How many candidates were not scored to the end."""
        return sum(isinstance(end, Pruned) for end in self.ends)
