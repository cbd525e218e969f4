"""The token covers of one candidate: every way in which tokens spell a text that begins with it.

A cover is a token path whose bytes begin with the candidate, and without its last token do not,
so no two covers are the same event. A state is the beginning of one: its bytes are a proper
prefix of the candidate. What the model says after a state gives the states behind it and, as one
sum over all tokens that reach the candidate's end, the covers that it begins::

    candidate "is a"     state ""    ──> "i", "is", "is "           and "is a", "is an", ...
                         state "is"  ──> " "                        and " a", " an", " apple", ...

With an end, covers spell the candidate exactly and end tokens follow: the whole candidate is a
state as well.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

from model_runtime.decoding.marginal.cover_states import (
    MarginalCandidate,
    PartialCover,
    states_along,
)
from model_runtime.decoding.marginal.vocabulary_trie import Step, VocabularyTrie
from model_runtime.errors import ChainruleError
from model_runtime.normalization import log_sum_exp
from model_runtime.token_set import TokenSet
from model_runtime.types import LogprobResult

WIDTH = 16
"""States that are asked about at a time once the candidate's preferred tokens are."""

PREFERRED_WIDTH = 64
"""States along its preferred tokens that are asked about at a time."""

NEGLIGIBLE = -32 * math.log(2.0)
"""What is left, beside what was found: 2e-10 of it is far below the rounding of a float32
log-prob, so it is not asked about."""


@dataclass(frozen=True, slots=True)
class MarginalResult:
    """The log-probability of a candidate, summed over its covers.

    Attributes:
        lower: log of the mass of all covers that were found; -inf for none.
        upper: the same with everything that was left unasked.
        exact: nothing was left, or nothing beside the rounding of the log-probs: ``lower`` and
            ``upper`` are less than 1e-9 apart.
        expanded: states that were asked about.
        longest: tokens of the longest cover that was found, an end token included.
    """

    lower: float
    upper: float
    exact: bool
    expanded: int
    longest: int


class Covers:
    """Which states of a candidate are asked about next, and what has been found.

    What it asks depends on the candidate alone, never on who else is asked about meanwhile: its
    preferred tokens first, then ``WIDTH`` at a time the states of the largest mass.

    Args:
        candidate: whose covers.
        trie: the text tokens.
        ends: the tokens that may follow; None where the text may go on.
        longest: tokens of a state at most.
        budget: states that are asked about at most.

    Attributes:
        expanded: states that were asked about.
        error: why the candidate failed; None while it has not.
    """

    __slots__ = (
        "_budget",
        "_content",
        "_ends",
        "_found",
        "_frontier",
        "_left",
        "_longest",
        "_longest_found",
        "_next_preferred",
        "_preferred",
        "_preferred_count",
        "_pushed",
        "_trie",
        "error",
        "expanded",
    )

    def __init__(
        self,
        candidate: MarginalCandidate,
        trie: VocabularyTrie,
        ends: TokenSet | None,
        longest: int,
        budget: int,
    ) -> None:
        self.expanded = 0
        self.error: ChainruleError | None = None
        self._content = candidate.content
        self._trie = trie
        self._ends = ends
        self._longest = longest
        self._budget = budget
        preferred = list(states_along(candidate, trie))
        # The whole candidate is no state, unless an end follows it.
        self._preferred = [
            s for s in reversed(preferred) if s.spelled < len(self._content) or ends is not None
        ]
        self._preferred_count = len(self._preferred)
        self._next_preferred = {
            state.before: state for state in self._preferred if state.before is not None
        }
        self._frontier: list[tuple[float, int, PartialCover]] = []
        self._pushed = 0
        self._left = -math.inf
        self._found: list[float] = []
        self._longest_found = 0

    @property
    def has_bounds(self) -> bool:
        """Its preferred tokens have been asked about, so that there are bounds to give."""
        return self.expanded >= self._preferred_count

    @property
    def finished(self) -> bool:
        """There is nothing to ask about: it failed, spent its budget, or knows enough."""
        spent = self.error is not None or self.expanded == self._budget
        return spent or (not self._preferred and self._negligible)

    def take_states(self) -> list[PartialCover]:
        """The states to be asked about next, at least one while it is not finished."""
        room = self._budget - self.expanded
        if self._preferred:
            return [
                self._preferred.pop()
                for _ in range(min(room, PREFERRED_WIDTH, len(self._preferred)))
            ]
        count = min(room, WIDTH, len(self._frontier))
        return [heapq.heappop(self._frontier)[-1] for _ in range(count)]

    def asks(self, state: PartialCover) -> tuple[tuple[Step, ...], TokenSet | None]:
        """The tokens that lead to states behind this one, and those that finish a cover."""
        if state.spelled == len(self._content):
            return (), self._ends
        # What lies behind the longest token makes no difference.
        rest = self._content[state.spelled : state.spelled + self._trie.longest + 1]
        found = self._trie.continuations(rest)
        if self._ends is None:
            return found.steps, found.covering or None
        return (*found.steps, *(Step(token_id, len(rest)) for token_id in found.exact)), None

    def take_answer(self, state: PartialCover, answer: LogprobResult) -> None:
        """Look at what the model says after a state."""
        self.expanded += 1
        for logprob in answer.set_logprobs:
            self._find(state, logprob)
        steps, _ = self.asks(state)
        preferred = self._next_preferred.pop(state, None)
        for step, logprob in zip(steps, answer.target_logprobs, strict=True):
            total = state.logprob + logprob
            if preferred is not None and preferred.token_id == step.token_id:
                preferred.logprob = total
                continue
            self._push(
                PartialCover(
                    state, step.token_id, state.spelled + step.size, state.length + 1, total
                )
            )

    def defer(self, state: PartialCover) -> None:
        """A state that was taken and will not be asked about."""
        self._left = log_sum_exp((self._left, state.logprob))

    def close(self) -> None:
        """Forget what will not be asked about, but for its mass."""
        for state in self._preferred:
            self.defer(state)
        self._drop(0)
        self._next_preferred.clear()

    def result(self) -> MarginalResult:
        """What is known so far."""
        lower = log_sum_exp(self._found)
        left = log_sum_exp((self._left, *(-key for key, _, _ in self._frontier)))
        return MarginalResult(
            # float32 log-probs may add up to a little more than everything
            lower=min(0.0, lower),
            upper=min(0.0, log_sum_exp((lower, left))),
            exact=left == -math.inf or left <= lower + NEGLIGIBLE,
            expanded=self.expanded,
            longest=self._longest_found,
        )

    @property
    def _negligible(self) -> bool:
        """What is left is too little to be asked about."""
        if not self._frontier or not self._found:
            return not self._frontier
        most = -self._frontier[0][0] + math.log(len(self._frontier))
        return log_sum_exp((self._left, most)) <= max(self._found) + NEGLIGIBLE

    def _find(self, state: PartialCover, logprob: float) -> None:
        total = state.logprob + logprob
        if total > -math.inf:
            self._found.append(total)
            self._longest_found = max(self._longest_found, state.length + 1)

    def _push(self, state: PartialCover) -> None:
        steps, finishing = self.asks(state)
        if state.logprob == -math.inf or not (steps or finishing):
            return
        if state.length > self._longest:
            self.defer(state)
            return
        self._pushed += 1
        heapq.heappush(self._frontier, (-state.logprob, self._pushed, state))
        # No more than the budget will ever be asked about: the others only count.
        if len(self._frontier) > 2 * (self._budget - self.expanded) + WIDTH:
            self._drop(self._budget - self.expanded)

    def _drop(self, keep: int) -> None:
        """Keep so many of the largest states; of the others only the mass."""
        self._frontier.sort()
        dropped = self._frontier[keep:]
        del self._frontier[keep:]
        self._left = log_sum_exp((self._left, *(-key for key, _, _ in dropped)))
