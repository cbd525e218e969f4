"""Best-first search over token paths: what exact and threshold search have in common.

Every round asks for the continuations of the paths that could still lead to the best::

    frontier, best bound first ──> one round of queries, at most ``width``,
        ^                          those of a beam search among them, each path once
        │                               │
        └────── expanded paths <────────┤
                                        └──> completions ──> the best so far ──> the cut

What cannot exceed the cut is not asked for: neither a path whose bound lies below it, nor a
continuation, for each query carries the log-probability that one would have to have. Once no
bound exceeds the cut the result is proven. The beam search is there to raise the cut soon.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

from model_runtime.decoding.best_first.expansion_queries import ExpansionQueries, Feasible
from model_runtime.decoding.best_first.frontier import ExpandedNode, Expansion, Frontier
from model_runtime.decoding.best_first.top_k import TopK
from model_runtime.decoding.certificate import Certificate
from model_runtime.decoding.hypothesis import DecodingResult, FinishReason
from model_runtime.decoding.hypothesis_path import NextTokens, PartialHypothesis, next_row
from model_runtime.decoding.limits import DecodingLimits
from model_runtime.decoding.objective import Objective
from model_runtime.errors import InvalidQuery
from model_runtime.types import LogprobQuery, QueryResult

FRONTIER_WORDS = 4 << 20
"""The 8-byte words that the frontier of a search may take: 32 MiB."""

WIDENED = 4
"""Rounds are so many times as wide once the wanted completions are found: hardly a path is asked
in vain from then on, and larger batches compute more a second."""

HELD_EXPANSIONS = 4096
"""Expansions that admission counts at most; few searches need all of a larger budget."""


class BestFirstSearch:
    """Finds the best completions of a prompt. A ``SearchStrategy``, and ``AnytimeStrategy``.

    Args:
        prompt: token ids; at least one.
        limits: when a completion ends.
        objective: what completions are ranked by.
        best: which of them are wanted.
        feasible: whether completions that only ``max_tokens`` ends count.
        vocab_size: rows of the model's head.
        max_expansions: paths asked for their continuations at most; one that is asked for
            more of them counts again.
        num_beams: live paths of the beam search.
        width: paths asked in a round, ``num_beams`` where that is more; see ``WIDENED``.

    Attributes:
        best: the completions found so far.
        expanded: distinct paths whose continuations were looked at.
        cost: tokens fed for as many expansions as admission counts.
        longest_path: tokens of the prompt and of the longest completion.

    Raises:
        InvalidQuery: an argument is out of its range; ``param`` names it.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        limits: DecodingLimits,
        objective: Objective,
        best: TopK,
        *,
        feasible: Feasible,
        vocab_size: int,
        max_expansions: int,
        num_beams: int,
        width: int,
    ) -> None:
        limits.check_vocabulary(vocab_size)
        check_at_least_one("max_expansions", max_expansions)
        check_at_least_one("num_beams", num_beams)
        check_at_least_one("width", width)
        self.best = best
        self.expanded = 0
        self._limits = limits
        self._objective = objective
        self._only_ended = feasible == "ended"
        self._budget = max_expansions
        self._num_beams = num_beams
        self._width = max(width, num_beams)
        self._widened = max(WIDENED * width, num_beams)
        self._ask = ExpansionQueries(
            limits,
            objective,
            best,
            feasible=feasible,
            vocab_size=vocab_size,
            beam_count=num_beams + len(limits.end_token_ids),
        )
        self._frontier = Frontier(objective, best.wants)
        self._left: float | None = None
        self._round: list[Expansion] = []
        start = PartialHypothesis.start(prompt, limits)
        self.longest_path = len(start.tokens) + limits.max_tokens
        self.cost = len(start.tokens) + min(max_expansions, HELD_EXPANSIONS) - 1
        self._expand(start, in_beam=True)

    @property
    def done(self) -> bool:
        """Nothing is left that may change the result, or the search ended before that."""
        return not self._round

    @property
    def open_bound(self) -> float | None:
        """No completion that was not found scores more; None where none of them matters."""
        bounds = [self._frontier.bound, self._left, *(item.bound for item in self._round)]
        return max((b for b in bounds if b is not None and self.best.wants(b)), default=None)

    def queries(self) -> Sequence[LogprobQuery]:
        """What comes next after each path of the round."""
        return [self._ask.query(item.prefix, item.count) for item in self._round]

    def advance(self, answers: Sequence[QueryResult]) -> None:
        """Look at the continuations. Raises what the first failed query raised."""
        rows = [next_row(answer) for answer in answers]
        nodes = [self._open(item, row) for item, row in zip(self._round, rows, strict=True)]
        beams = [node for item, node in zip(self._round, nodes, strict=True) if item.in_beam]
        self._round = []
        self._step_beams(beams)
        for node in nodes:
            self._frontier.push(node)
        self._fill_round()

    def finish_early(self) -> bool:
        """End now with what is there; False before the first answers."""
        if not self.expanded:
            return False
        self._left = self.open_bound
        self._round = []
        return True

    def result(self) -> DecodingResult:
        """The best completions, none where none was found, and what is proven about them."""
        found = tuple(prefix.hypothesis(score) for score, prefix in self.best.found)
        scores = [hypothesis.score for hypothesis in found]
        complete = self.best.complete
        return DecodingResult(
            found, Certificate.of(scores, self.open_bound, self.expanded, complete=complete)
        )

    # A round of queries.

    def _expand(self, prefix: PartialHypothesis, *, in_beam: bool) -> None:
        self._budget -= 1
        bound = self._objective.bound(prefix.logprob, prefix.length + 1)
        count = self._ask.first_count(prefix)
        self._round.append(Expansion(prefix, bound, count, in_beam=in_beam))

    def _expand_further(self, node: ExpandedNode) -> None:
        self._budget -= 1
        count = self._ask.next_count(node.count)
        self._round.append(Expansion(node.prefix, node.bound(self._objective), count, node))

    def _fill_round(self) -> None:
        """Ask for the paths with the best bounds beside those of the beam search."""
        if self._frontier.size_words > FRONTIER_WORDS:
            self._frontier.trim()
        if self._frontier.size_words > FRONTIER_WORDS:
            self.finish_early()
            return
        # Where the beams have all ended with too few completions, others start from here.
        restart = not self._round and not self.best.full
        width = self._widened if self.best.full else self._width
        room = min(self._budget - self._reserved_budget(), width - len(self._round))
        last = len(self._round) + room
        least = self._projected_score()
        while self._frontier.bound is not None and self._frontier.bound >= least:
            if not self._take_best(restart, len(self._round) < last):
                return

    def _projected_score(self) -> float:
        """What the best beam will score if it goes on as it began; only while nothing is found.

        What is below that is likely to be cut off soon, and not worth being asked for yet.
        """
        beams = [item.prefix for item in self._round if item.prefix.length]
        if self.best.found or not beams:
            return -math.inf
        best = max(beams, key=lambda prefix: prefix.logprob)
        longest = self._limits.max_tokens
        return self._objective.score(best.logprob * longest / best.length, longest)

    def _reserved_budget(self) -> int:
        """Expansions that the beams of this round may still need to come to their ends."""
        steps = [self._limits.max_tokens - 1 - item.prefix.length for item in self._round]
        return self._num_beams * max(steps, default=0)

    def _take_best(self, restart: bool, room: bool) -> bool:
        """Look at the best continuation of the frontier; False where it has to wait for room."""
        node = self._frontier.best
        child = node.child(node.place, self._limits) if node.listed else None
        live = self._live(child) if child is not None else None
        if not room and (child is None or live is not None):
            return False
        self._frontier.pop()
        if child is None:
            self._expand_further(node)
            return True
        self._keep(child)
        node.advance()
        self._frontier.push(node)
        if live is not None:
            self._expand(live, in_beam=restart and len(self._round) < self._num_beams)
        return True

    # What comes back.

    def _open(self, item: Expansion, row: NextTokens) -> ExpandedNode:
        """The path with its continuations; those that end it for sure are kept at once."""
        node = item.node
        if node is None:
            self.expanded += 1
            node, first = ExpandedNode(item.prefix, row, item.count), 0
        else:
            first = len(node.row.choices)
            node.widen(row, item.count)
        length = node.prefix.length + 1
        all_end = self._ask.cuts(node.prefix.length)
        choices = node.row.choices
        for place in range(first, len(choices)):
            ends = all_end or choices[place].id in self._limits.end_token_ids
            if ends and self.best.wants(self._objective.score(node.logprob(place), length)):
                self._take(node, place)
        node.skip()
        return node

    def _step_beams(self, nodes: Sequence[ExpandedNode]) -> None:
        """Ask next for the best live continuations of the beam search's paths."""
        streams = [node.by_total(index) for index, node in enumerate(nodes)]
        beams = min(self._num_beams, self._budget)
        for _, index, place in heapq.merge(*streams):
            if len(self._round) == beams:
                break
            live = self._take(nodes[index], place)
            if live is not None:
                self._expand(live, in_beam=True)
        for node in nodes:
            node.skip()

    def _take(self, node: ExpandedNode, place: int) -> PartialHypothesis | None:
        """Look at a continuation out of turn; what is to be asked about it, if anything."""
        node.visited.add(place)
        child = node.child(place, self._limits)
        self._keep(child)
        return self._live(child)

    def _keep(self, child: PartialHypothesis) -> None:
        """Let a finished path in among the best, if it counts."""
        reason = child.finish_reason
        if reason is None or (self._only_ended and reason is FinishReason.LENGTH):
            return
        self.best.offer(self._objective.score(child.logprob, child.length), child)

    def _live(self, child: PartialHypothesis) -> PartialHypothesis | None:
        """The path to go on with; None where it has ended or what is behind it cannot matter."""
        if child.finish_reason is not None:
            if not child.may_extend:
                return None
            child = child.as_live()
        bound = self._objective.bound(child.logprob, child.length + 1)
        return child if self.best.wants(bound) else None


def check_at_least_one(name: str, value: int) -> None:
    """Raise ``InvalidQuery`` for a count below 1."""
    if value < 1:
        raise InvalidQuery("must be at least 1", param=name)
