"""What is asked about a node of the trie of candidates."""

from __future__ import annotations

from dataclasses import dataclass

from model_runtime.decoding.top_n.candidate_trie import CandidateRange, CandidateTrie
from model_runtime.token_set import TokenSet
from model_runtime.types import LogprobQuery, LogprobResult, TopKSelection

LISTED = 16
"""Children from which on they are listed together, not looked up one by one."""


@dataclass(frozen=True, slots=True)
class NodeQuery:
    """The tokens behind a node, and what its candidates share before them; or all that is behind.

    Attributes:
        queries: one, or one for each candidate.
        is_whole: they ask for all that is behind the node.
        children: what is behind each next token that was asked for.
        ending: places of the candidates that end at the node; asked are their end ids, which
            stand behind the other targets.
    """

    queries: tuple[LogprobQuery, ...]
    is_whole: bool
    children: tuple[tuple[int, CandidateRange], ...] = ()
    ending: range = range(0)

    def found(self, answer: LogprobResult) -> dict[int, tuple[float, int]]:
        """Log-prob and rank of each child's token; nothing of one without probability."""
        if len(self.children) >= LISTED:
            return {token.id: (token.logprob, token.rank) for token in answer.choices}
        found = zip(answer.target_logprobs, answer.target_ranks, strict=True)
        return {token_id: next(found) for token_id, _ in self.children}


class CandidateQueries:
    """Makes the queries of a search.

    Args:
        prefix: the token path that all candidates are conditional on.
        ranges: the candidates.
        vocab_size: rows of the model's head.
        end_ids: ids that may end a candidate; None where none is scored.
        top_k: most probable tokens wanted at each scored position.
    """

    def __init__(
        self,
        prefix: tuple[int, ...],
        ranges: CandidateTrie,
        vocab_size: int,
        end_ids: tuple[int, ...] | None,
        top_k: int,
    ) -> None:
        self._prefix = prefix
        self._ranges = ranges
        self._vocab_size = vocab_size
        self._end_ids = end_ids
        self._top_k = top_k

    def next_tokens(self, node: CandidateRange, most: int) -> NodeQuery:
        """Asks how probable each child is, behind up to ``most`` tokens that all of them share."""
        start = len(self._prefix) + node.depth
        node = self._ranges.extend_shared(node, most)
        ending, children = self._ranges.split(node)
        ids = tuple(token_id for token_id, _ in children)
        ends = self._end_ids or () if ending else ()
        listed = len(children) >= LISTED
        tokens = self._prefix + self._ranges.path(node)
        query = LogprobQuery(
            tokens,
            score_from=start,
            targets=ends if listed else ids + ends,
            top_k=self._top_k,
            choice=TopKSelection(len(ids), None, TokenSet.of(ids, self._vocab_size))
            if listed
            else None,
            # What nothing goes on from need not be kept.
            keep=len(tokens) if self._ranges.has_children(node) else len(self._prefix),
        )
        return NodeQuery((query,), False, tuple(children), ending)

    def whole(self, node: CandidateRange) -> NodeQuery:
        """Asks for everything behind a node: each distinct path, from there to its end."""
        start = len(self._prefix) + node.depth
        paths = (self._ranges.paths[places.start] for places in self._ranges.equal_paths(node))
        keep = len(self._prefix)
        queries = (
            LogprobQuery(self._prefix + path, start, self._end_ids, self._top_k, keep=keep)
            for path in paths
        )
        return NodeQuery(tuple(queries), True)
