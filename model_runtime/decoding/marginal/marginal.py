"""Marginal search: how probable candidates are, whichever tokens spell them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from model_runtime.decoding.best_first.best_first import HELD_EXPANSIONS, check_at_least_one
from model_runtime.decoding.marginal.cover_states import (
    MarginalCandidate,
    PartialCover,
    states_along,
)
from model_runtime.decoding.marginal.covers import Covers, MarginalResult
from model_runtime.decoding.marginal.vocabulary_trie import VocabularyTrie
from model_runtime.errors import ChainruleError, DeadlineExceeded, InvalidQuery, PathTooLong
from model_runtime.token_set import TokenSet
from model_runtime.types import LogprobQuery, QueryResult

ROUND = 64
"""States of all candidates together that are asked about in a round."""

MarginalAnswer = MarginalResult | ChainruleError


class MarginalSearch:
    """The log-probability that a continuation's bytes begin with each candidate.

    It is summed over the candidate's token covers (see ``covers``). Where ``ends`` are given, it
    is that of the candidate followed by one of these tokens instead, summed over all tokens that
    spell exactly it.

    Candidates take turns in one round of queries after another, each with the states that it
    would have asked about alone: no result depends on the others. A ``SearchStrategy``, and
    ``AnytimeStrategy``: what is found of each candidate is a result at any time once its preferred
    tokens have been asked about.

    Args:
        prefix: token ids before the candidates; at least one.
        candidates: at least one.
        trie: the text tokens; an id that is not there is part of no cover.
        max_expansions: states asked about for each candidate at most.
        max_model_len: tokens of a path at most, the last scored one included.
        ends: ids of which any one is to follow the candidate; None where anything may.

    Raises:
        InvalidQuery: an argument is out of its range; ``param`` names it.
        PathTooLong: a candidate's preferred tokens do not fit behind the prefix.
    """

    def __init__(
        self,
        prefix: Sequence[int],
        candidates: Sequence[MarginalCandidate],
        trie: VocabularyTrie,
        *,
        max_expansions: int,
        max_model_len: int,
        ends: Sequence[int] | None = None,
    ) -> None:
        _check(prefix, candidates, max_expansions)
        self._prefix = tuple(prefix)
        # One more token is scored behind a state.
        longest = max_model_len - 1 - len(prefix)
        self._ends = None if ends is None else TokenSet.of(ends, trie.head_rows)
        for candidate in candidates:
            _check_preferred(candidate, trie, longest, ended=ends is not None)
        self._trie = trie
        self._longest = longest
        self._budget = max_expansions
        self._results: list[MarginalAnswer | None] = [None] * len(candidates)
        self._waiting = deque(enumerate(candidates))
        self._turns: deque[tuple[int, Covers]] = deque()
        self._served: list[tuple[int, Covers]] = []
        self._round: list[tuple[Covers, PartialCover]] = []
        spelled = max(len(candidate.content) for candidate in candidates)
        self.longest_path = min(max_model_len, len(prefix) + spelled + 1)
        self.cost = len(prefix) + min(max_expansions * len(candidates), HELD_EXPANSIONS)
        self._fill_round()

    @property
    def done(self) -> bool:
        """Every candidate has its result."""
        return not self._round

    def queries(self) -> Sequence[LogprobQuery]:
        """What comes next after each state of the round."""
        return [self._query(covers, state) for covers, state in self._round]

    def advance(self, answers: Sequence[QueryResult]) -> None:
        """Look at what comes next. What fails ends its candidate alone."""
        for (covers, state), answer in zip(self._round, answers, strict=True):
            if isinstance(answer, ChainruleError):
                covers.error = covers.error or answer
            elif covers.error is None:
                covers.take_answer(state, answer)
        for index, covers in self._served:
            if covers.finished:
                self._finish(index, covers)
            else:
                self._turns.append((index, covers))
        self._fill_round()

    def finish_early(self) -> bool:
        """End now: bounds for those whose preferred tokens were asked about, else errors."""
        for covers, state in self._round:
            covers.defer(state)
        for index, covers in (*self._served, *self._turns):
            if covers.error is None and not covers.has_bounds:
                covers.error = _too_late()
            self._finish(index, covers)
        for index, _ in self._waiting:
            self._results[index] = _too_late()
        self._round, self._served = [], []
        self._turns.clear()
        self._waiting.clear()
        return any(isinstance(result, MarginalResult) for result in self._results)

    def result(self) -> tuple[MarginalAnswer, ...]:
        """What is known of each candidate, in order, or why it failed."""
        if any(result is None for result in self._results):
            raise RuntimeError("a marginal search was read before its end: please report this")
        return tuple(result for result in self._results if result is not None)

    def _query(self, covers: Covers, state: PartialCover) -> LogprobQuery:
        tokens = self._prefix + state.path
        steps, finishing = covers.asks(state)
        return LogprobQuery(
            tokens=tokens,
            score_from=len(tokens),
            targets=tuple(step.token_id for step in steps),
            token_sets=() if finishing is None else (finishing,),
        )

    def _fill_round(self) -> None:
        """Give candidates their turns until the round is full, those first that had none yet."""
        self._round, self._served = [], []
        while (self._waiting or self._turns) and len(self._round) < ROUND:
            index, covers = self._begin() if self._waiting else self._turns.popleft()
            self._round += ((covers, state) for state in covers.take_states())
            self._served.append((index, covers))

    def _begin(self) -> tuple[int, Covers]:
        index, candidate = self._waiting.popleft()
        return index, Covers(candidate, self._trie, self._ends, self._longest, self._budget)

    def _finish(self, index: int, covers: Covers) -> None:
        covers.close()
        self._results[index] = covers.error or covers.result()


def _check(
    prefix: Sequence[int], candidates: Sequence[MarginalCandidate], max_expansions: int
) -> None:
    check_at_least_one("max_expansions", max_expansions)
    if not prefix:
        raise InvalidQuery("a candidate needs at least one token before it", param="context")
    if not candidates or not all(candidate.content for candidate in candidates):
        raise InvalidQuery("a candidate needs at least one byte", param="candidates")


def _check_preferred(
    candidate: MarginalCandidate, trie: VocabularyTrie, longest: int, *, ended: bool
) -> None:
    """Raise what keeps the states along a candidate's preferred tokens from being asked about."""
    deepest = deque(states_along(candidate, trie), maxlen=1)[0].length
    if not ended:
        deepest = max(0, deepest - 1)
    if deepest > longest:
        raise PathTooLong(
            f"{deepest} tokens are too many behind this context; the model takes {longest}",
            param="candidates",
        )


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("the request's time ran out before its turn")
