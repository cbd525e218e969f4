"""Beam search with the semantics of ``generate`` in transformers 5.

One step, with B = num_beams and E end ids::

    live (<= B)      ask each for its next tokens
       |
    candidates       the best max(2, 1 + E) x B continuations of all live prefixes, by total
       |
       +-- finished by an end token, a stop, or max_tokens:
       |        among the best B   -> kept if among the B best scores so far
       |        below them         -> dropped
       +-- not finished: the best B are the next live prefixes

    score = total / length ** length_penalty        length includes the end token
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Literal, NamedTuple

from model_runtime.decoding.hypothesis import DecodingResult
from model_runtime.decoding.hypothesis_path import (
    NextTokens,
    PartialHypothesis,
    next_row,
    no_completion_error,
)
from model_runtime.decoding.limits import DecodingLimits
from model_runtime.decoding.objective import Objective
from model_runtime.errors import InvalidQuery
from model_runtime.types import LogprobQuery, QueryResult

EarlyStopping = bool | Literal["never"]


class FinishedBeam(NamedTuple):
    """A completion and what it is ranked by."""

    score: float
    prefix: PartialHypothesis


class BeamSearch:
    """The ``num_beams`` most probable live prefixes are extended in step. A ``SearchStrategy``.

    It ends when no prefix is live, or when ``num_beams`` completions are finished and

    ============== =========================================================================
    early_stopping
    ============== =========================================================================
    True           at once
    False          the best live prefix, scored at its present length, is not better than
                   the worst of them: a heuristic, as longer ones may still score higher
    "never"        the same, but for a positive ``length_penalty`` scored as if it were
                   ``max_tokens`` long: no live prefix can improve the result any more
    ============== =========================================================================

    With one beam it is greedy search under a length-normalised score, whatever
    ``early_stopping`` says, since that is what ``generate`` does.

    Args:
        prompt: token ids; at least one.
        limits: when a completion ends.
        num_beams: live prefixes, and finished completions kept, at most.
        num_return_sequences: completions returned, at most ``num_beams``. Fewer come back
            where the search space holds fewer.
        length_penalty: the exponent in the score; above 0 favours long completions.
        early_stopping: see above.
        vocab_size: rows of the model's head.

    Raises:
        InvalidQuery: an argument is out of its range; ``param`` names it.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        limits: DecodingLimits,
        *,
        vocab_size: int,
        num_beams: int,
        num_return_sequences: int = 1,
        length_penalty: float = 1.0,
        early_stopping: EarlyStopping = False,
    ) -> None:
        limits.check_vocabulary(vocab_size)
        _check_beams(num_beams, num_return_sequences)
        _check_early_stopping(early_stopping)
        self._live = [PartialHypothesis.start(prompt, limits)]
        self._finished: list[FinishedBeam] = []
        self._limits = limits
        self._vocab_size = vocab_size
        self._num_beams = num_beams
        self._num_return_sequences = num_return_sequences
        self._length_penalty = length_penalty
        self._objective = Objective(length_penalty, 1, limits.max_tokens)
        self._early_stopping: EarlyStopping = early_stopping if num_beams > 1 else True
        # The first step feeds the prompt, each later one a token for every live prefix.
        self.longest_path = len(self._live[0].tokens) + limits.max_tokens
        self.cost = len(self._live[0].tokens) + num_beams * (limits.max_tokens - 1)

    @property
    def done(self) -> bool:
        """Whether the table above ends the search."""
        if not self._live:
            return True
        if len(self._finished) < self._num_beams:
            return False
        return self._early_stopping is True or self._best_possible() <= self._finished[-1].score

    def queries(self) -> Sequence[LogprobQuery]:
        """What comes next after each live prefix, best prefix first; one query at the start."""
        length = self._live[0].length
        count = self._row_need(length)
        return [prefix.query(self._limits, count, self._vocab_size) for prefix in self._live]

    def advance(self, answers: Sequence[QueryResult]) -> None:
        """Extend the live prefixes by one token. Raises what the first failed query raised."""
        rows = [next_row(answer) for answer in answers]
        live: list[PartialHypothesis] = []
        for rank, (beam, place) in enumerate(self._candidates(rows)):
            if rank >= self._num_beams and len(live) == self._num_beams:
                break
            child = self._live[beam].extend(rows[beam], place, self._limits)
            if child.finish_reason is not None and rank < self._num_beams:
                self._keep(child)
            if child.finish_reason is None:
                live.append(child)
            elif child.may_extend:
                live.append(child.as_live())
        if not live and not self._finished:
            raise no_completion_error(self._limits)
        self._live = live

    def result(self) -> DecodingResult:
        """The best completions."""
        best = self._finished[: self._num_return_sequences]
        return DecodingResult(tuple(prefix.hypothesis(score) for score, prefix in best))

    def _row_need(self, length: int) -> int:
        # Without stops and constraints only end tokens finish a candidate before max_tokens, so
        # a prefix has given all it can once it has given num_beams others: far less than all.
        # No narrower row would do, whatever the prefix's rank: where all others' rows are flat,
        # the next num_beams live prefixes may all come from the one that is peaked.
        if self._limits.stop is not None or self._limits.constraint is not None:
            return self._candidate_limit()
        ends = self._limits.end_token_ids - self._limits.masked_ids(length)
        return self._num_beams + len(ends)

    def _candidate_limit(self) -> int:
        return max(2, 1 + len(self._limits.end_token_ids)) * self._num_beams

    def _candidates(self, rows: Sequence[NextTokens]) -> Iterator[tuple[int, int]]:
        """(index of the live prefix, place in its row), by falling total.

        Of equal totals the better prefix comes first, then the better token. Lazy: rows are
        read only as far as candidates are taken.
        """
        streams = [
            self._continuations(beam, prefix, row)
            for beam, (prefix, row) in enumerate(zip(self._live, rows, strict=True))
        ]
        for _, beam, place in islice(merge(*streams), self._candidate_limit()):
            yield beam, place

    def _continuations(
        self, beam: int, prefix: PartialHypothesis, row: NextTokens
    ) -> Iterator[tuple[float, int, int]]:
        for place, token in prefix.choices(row):
            yield -(prefix.logprob + token.logprob), beam, place

    def _keep(self, prefix: PartialHypothesis) -> None:
        finished = FinishedBeam(self._objective.score(prefix.logprob, prefix.length), prefix)
        insort(self._finished, finished, key=lambda entry: -entry.score)
        del self._finished[self._num_beams :]

    def _best_possible(self) -> float:
        best = self._live[0]
        hopeful = self._early_stopping == "never" and self._length_penalty > 0
        return self._objective.score(
            best.logprob, self._limits.max_tokens if hopeful else best.length
        )


def _check_beams(num_beams: int, num_return_sequences: int) -> None:
    if num_beams < 1:
        raise InvalidQuery("must be at least 1", param="num_beams")
    if not 1 <= num_return_sequences <= num_beams:
        raise InvalidQuery("must lie in 1 .. num_beams", param="num_return_sequences")


def _check_early_stopping(early_stopping: object) -> None:
    if not isinstance(early_stopping, bool) and early_stopping != "never":
        raise InvalidQuery('must be true, false or "never"', param="early_stopping")
