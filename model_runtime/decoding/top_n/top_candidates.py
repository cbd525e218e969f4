"""The n best of a closed set of candidates, certified, without scoring all of it to the end.

Best-first over the candidates' trie. With s the sum of a prefix's log-probs, which no further
token can raise, a candidate behind it scores at most

    s / d      d the largest divisor of a candidate behind the prefix (1 for the sum, its tokens
               for the mean, and so on: ``normalization.divisor``)

Whatever scores that at most, and is below the n-th best finished score by more than both may be
off by, is not among the n best and not tied with them; it is left where it is. Everything else is
scored, to the bit as it would be alone. So the winners, their scores and the ties at the cut are
those of scoring everything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from itertools import repeat
from operator import attrgetter
from typing import NamedTuple

from model_runtime.decoding.top_n.candidate_trie import CandidateRange, CandidateTrie
from model_runtime.decoding.top_n.path_score import Ends, PathScore, Top
from model_runtime.decoding.top_n.queries import CandidateQueries, NodeQuery
from model_runtime.decoding.top_n.result import CandidateOutcome, Pruned, RankedCandidate, TopResult
from model_runtime.decoding.top_n.tied_top_n import TopKWithTies
from model_runtime.errors import ChainruleError, InvalidQuery, NonFiniteLogits
from model_runtime.types import LogprobQuery, QueryResult

WIDTH = 128
"""Prefixes asked about in one round: enough to keep the products busy, few enough that most of
them would have to be asked about anyway."""

LEAST = 24
"""Tokens of a round at least, where there are so many: fewer cost about the same. They are filled
up with all that is behind the best prefixes."""

WHOLE = 512
"""Tokens up to which everything is asked at once: rounds would take longer than they save."""

WHOLE_DIVIDED = 2_048
"""The same where sums are divided: the bound of a short prefix is weak then, and saves less."""

QUERIES = 1_024
"""Candidates of a round that are asked about one by one. Those behind one prefix, where they are
more, are listed together, which takes the model thread far less time between two forwards."""

CHILDREN = 4_096
"""Next tokens that a round asks for, or those of one prefix, where they are more."""

READ = 1_024
"""Next tokens or candidates that are read before other requests get on, in some 20 ms."""

HELD = 16_384
"""Tokens that a search counts as at most, unless so many candidates are wanted that it can leave
little out: what a larger set takes depends on what is pruned."""


class _Node(NamedTuple):
    """A prefix that may be read on. Sorts by ``key``, the most promising first."""

    key: float
    place: int
    candidates: CandidateRange
    path: PathScore | None


class TopCandidates:
    """Finds the ``count`` best of ``candidates`` behind ``prefix``.

    A ``SearchStrategy``, and ``AnytimeStrategy``.

    Args:
        prefix: the token path that all candidates are conditional on; not empty.
        candidates: at least one.
        count: how many are wanted; all that are tied with the last of them come too.
        vocab_size: rows of the model's head.
        end_ids: ids one of which ends every candidate, and counts in its sum; None for no end.
        top_k: most probable tokens reported at each scored position.
        floor: what the n-th best is known to reach: its score less its error; minus infinity
            where nothing is known.

    Raises:
        InvalidQuery: a count below 1, no candidate, an empty one or one without a divisor.
    """

    def __init__(
        self,
        prefix: tuple[int, ...],
        candidates: Sequence[RankedCandidate],
        count: int,
        *,
        vocab_size: int,
        end_ids: tuple[int, ...] | None = None,
        top_k: int = 0,
        floor: float = -math.inf,
    ) -> None:
        _check(candidates, count)
        self._prefix = prefix
        self._end_ids = end_ids
        self._ranges = CandidateTrie([c.path for c in candidates], end=end_ids is not None)
        self._asks = CandidateQueries(prefix, self._ranges, vocab_size, end_ids, top_k)
        order = self._ranges.order
        self._divisors = [candidates[index].divisor for index in order]
        self._errors = [candidates[index].error for index in order]
        self._ends: list[PathScore | ChainruleError | None] = [None] * len(order)
        self._whole = WHOLE if len(set(self._divisors)) == 1 else WHOLE_DIVIDED
        self._count = min(count, len(order))
        self._gave_up = False
        self._best = TopKWithTies(count, floor)
        self._largest_error = max(self._errors)
        self._heap: list[_Node] = []
        self.expanded = 0
        self._open(self._ranges.root, None)
        # Now, for whoever makes a search has time, and whoever asks it may not.
        self._round = self._next_round()

    @property
    def cost(self) -> int:
        tokens = self._ranges.tokens(self._ranges.root)
        # Where many of them are wanted, few can be pruned.
        least = tokens * self._count // len(self._ends)
        return len(self._prefix) - 1 + min(tokens, max(HELD, least))

    @property
    def longest_path(self) -> int:
        return len(self._prefix) + max(map(len, self._ranges.paths))

    @property
    def done(self) -> bool:
        return self._gave_up or not (self._round or self._is_wanted(self._best.threshold))

    def queries(self) -> Sequence[LogprobQuery]:
        if not self._round:
            self._round = self._next_round()
        return [query for _, ask in self._round for query in ask.queries]

    def advance(self, answers: Sequence[QueryResult]) -> None:
        for _ in self.advance_gradually(answers):
            pass

    def advance_gradually(self, answers: Sequence[QueryResult]) -> Iterator[None]:
        rest = iter(answers)
        read = 0
        for node, ask in self._round:
            results = [next(rest) for _ in ask.queries]
            reading = (
                self._read_whole(node, results)
                if ask.is_whole
                else self._read_on(node, ask, results[0])
            )
            for _ in reading:
                read += 1
                if read % READ == 0:
                    yield
        self._round = []

    def finish_early(self) -> bool:
        """End with the best so far, if there are any."""
        for node, _ in self._round:
            heappush(self._heap, node)
        self._round = []
        self._gave_up = bool(self._best.best)
        return self._gave_up

    def result(self) -> TopResult:
        return TopResult(
            best=tuple(map(self._ranges.order.__getitem__, map(_place, self._best.best))),
            find_ends=self._find_ends,
            expanded=self.expanded,
            certified=not self._is_wanted(self._best.threshold),
        )

    def _find_ends(self) -> tuple[CandidateOutcome, ...]:
        ends: list[CandidateOutcome | None] = list(self._ends)
        for number, node in enumerate(self._heap):
            for place in range(node.candidates.first, node.candidates.stop):
                ends[place] = self._pruned(node, place, number)
        by_index = dict(zip(self._ranges.order, ends, strict=True))
        return tuple(_decided(by_index[index]) for index in range(len(ends)))

    # What to ask.

    def _is_wanted(self, threshold: float) -> bool:
        """Whether the most promising prefix may lead to one of the best."""
        return bool(self._heap) and -self._heap[0].key >= threshold

    def _next_round(self) -> list[tuple[_Node, NodeQuery]]:
        """The most promising prefixes; so much behind them as makes a round worth its while."""
        threshold = self._best.threshold
        nodes: list[_Node] = []
        while len(nodes) < WIDTH and self._is_wanted(threshold):
            nodes.append(heappop(self._heap))
        spare = max(0, (LEAST if self.expanded else self._whole) - len(nodes))
        queries, children = QUERIES, 0
        found: list[tuple[_Node, NodeQuery]] = []
        for node in nodes:
            if children >= CHILDREN:
                heappush(self._heap, node)
                continue
            more = self._ranges.tokens(node.candidates) - 1
            count = node.candidates.stop - node.candidates.first
            if more <= spare and count <= queries:
                spare -= more
                queries -= count
                found.append((node, self._asks.whole(node.candidates)))
                continue
            # What all candidates share is needed in any case.
            ask = self._asks.next_tokens(node.candidates, spare if self.expanded else more)
            children += len(ask.children)
            spare -= ask.queries[0].last_row - len(self._prefix) - node.candidates.depth
            found.append((node, ask))
        self.expanded += sum(len(ask.queries) for _, ask in found)
        return found

    # What comes back.

    def _read_on(self, node: _Node, ask: NodeQuery, answer: QueryResult) -> Iterator[None]:
        candidates = node.candidates
        if isinstance(answer, ChainruleError):
            self._fail(range(candidates.first, candidates.stop), answer)
            return
        path = PathScore.extend(node.path, answer)
        top = answer.top[-1] if answer.top else ()
        found = ask.found(answer)
        for token_id, child in ask.children:
            logprob, rank = found.get(token_id, (-math.inf, 0))
            if logprob == -math.inf:
                self._fail(range(child.first, child.stop), _impossible())
            else:
                self._enter(child, PathScore.append(path, logprob, rank, top))
            yield
        if ask.ending and path is not None and self._end_ids is not None:
            count = len(self._end_ids)
            ends = answer.target_logprobs[-count:], answer.target_ranks[-count:]
            self._end(ask.ending, path, ends, top)

    def _read_whole(self, node: _Node, answers: Sequence[QueryResult]) -> Iterator[None]:
        for here, answer in zip(self._ranges.equal_paths(node.candidates), answers, strict=True):
            yield
            if isinstance(answer, ChainruleError):
                self._fail(here, answer)
                continue
            path = PathScore.extend(node.path, answer)
            if path is None:
                raise RuntimeError("an answer without a scored token; this is a bug")
            if self._end_ids is None:
                self._finish(here, path)
            else:
                ends = answer.target_logprobs, answer.target_ranks
                self._end(here, path, ends, answer.top[-1] if answer.top else ())

    def _enter(self, child: CandidateRange, path: PathScore) -> None:
        """A prefix is read: those that it ends are finished, the others wait for their turn."""
        if self._end_ids is None:
            first = child.first
            while first < child.stop and len(self._ranges.paths[first]) == child.depth:
                first += 1
            self._finish(range(child.first, first), path)
            child = child._replace(first=first)
        if child.first < child.stop:
            self._open(child, path)

    def _open(self, candidates: CandidateRange, path: PathScore | None) -> None:
        behind = slice(candidates.first, candidates.stop)
        logprob = 0.0 if path is None else path.logprob
        key = -(logprob / max(self._divisors[behind]) + self._largest_error)
        heappush(self._heap, _Node(key, candidates.first, candidates, path))

    def _end(self, places: range, path: PathScore, ends: Ends, top: Top) -> None:
        try:
            ended = path.with_end(*ends, top)
        except NonFiniteLogits as error:
            self._fail(places, error)
        else:
            self._finish(places, ended)

    def _finish(self, places: range, path: PathScore) -> None:
        for place in places:
            self._ends[place] = path
            self._best.add(path.logprob / self._divisors[place], self._errors[place], place)

    def _fail(self, places: range, error: ChainruleError) -> None:
        self._ends[places.start : places.stop] = repeat(error, len(places))

    def _pruned(self, node: _Node, place: int, number: int) -> Pruned:
        logprob = 0.0 if node.path is None else node.path.logprob
        return Pruned(logprob / self._divisors[place], logprob, number)


_place = attrgetter("place")


def _impossible() -> NonFiniteLogits:
    return NonFiniteLogits("the model gives a scored token probability 0")


def _decided(end: CandidateOutcome | None) -> CandidateOutcome:
    if end is None:
        raise RuntimeError("a candidate was lost in the search; this is a bug")
    return end


def _check(candidates: Sequence[RankedCandidate], count: int) -> None:
    if count < 1:
        raise InvalidQuery("must be at least 1", param="top_n")
    if not candidates:
        raise InvalidQuery("there is no candidate", param="candidates")
    for index, candidate in enumerate(candidates):
        if not candidate.path or not candidate.divisor > 0:
            raise InvalidQuery("is empty or has no divisor", param=f"candidates.{index}")
