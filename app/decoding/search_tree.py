"""From what a search remembered to the tree that the answer shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Literal

from app.schemas.search_tree import MAX_TREE_NODES, SearchNode, SearchTree
from model_runtime import DecodingResult, ExpandedPrefix, RecordedSearch, Tokenizer

Path = tuple[int, ...]

SHOWN = 8
"""Continuations of a prefix that are shown, beside those that the search went on with."""


@dataclass(frozen=True, slots=True)
class TreeEnds:
    """Where completions end, as far as a token or its place tells.

    Attributes:
        end_token_ids: that end one.
        max_tokens: after which one ends.
    """

    end_token_ids: Collection[int]
    max_tokens: int


def search_tree(
    tokenizer: Tokenizer,
    search: RecordedSearch[DecodingResult],
    result: DecodingResult | None,
    ends: TreeEnds,
) -> SearchTree:
    """The tree, at most ``MAX_TREE_NODES`` nodes of it.

    What was returned has a place before all else, and then the prefixes in the order in which they
    were expanded: what is left out is what the search saw last.
    """
    tree = _Tree({prefix.tokens: prefix for prefix in search.prefixes}, ends)
    for found in result.hypotheses if result is not None else ():
        tree.add_returned(found.token_ids, found.token_logprobs)
    for prefix in search.prefixes:
        tree.add(prefix)
    nodes = list(tree.nodes(tokenizer))
    return SearchTree(
        nodes=nodes, left_out=max(0, search.remembered + search.forgotten - len(nodes))
    )


@dataclass(slots=True)
class _Tree:
    expanded: dict[Path, ExpandedPrefix]
    ends: TreeEnds
    logprobs: dict[Path, float] = field(default_factory=dict)
    """Of the last token of each path that has a place."""
    returned: set[Path] = field(default_factory=set)

    def add_returned(self, token_ids: Path, logprobs: tuple[float, ...]) -> None:
        for length, logprob in enumerate(logprobs, start=1):
            path = token_ids[:length]
            if self._place(path, logprob):
                self.returned.add(path)

    def add(self, prefix: ExpandedPrefix) -> None:
        if prefix.tokens and prefix.tokens not in self.logprobs:
            return
        for rank, (token_id, logprob) in enumerate(zip(prefix.ids, prefix.logprobs, strict=True)):
            path = (*prefix.tokens, token_id)
            if rank < SHOWN or path in self.expanded:
                self._place(path, logprob)

    def nodes(self, tokenizer: Tokenizer) -> Iterator[SearchNode]:
        """In the order of a walk that goes down first, to the most probable siblings first."""
        children = defaultdict[Path, list[Path]](list)
        for path in sorted(self.logprobs, key=lambda path: (self.logprobs[path], -path[-1])):
            children[path[:-1]].append(path)
        found: dict[Path, tuple[int, float]] = {}
        waiting = list(children[()])
        while waiting:
            path = waiting.pop()
            waiting.extend(children[path])
            parent, before = found.get(path[:-1], (None, 0.0))
            logprob = self.logprobs[path]
            found[path] = len(found), before + logprob
            asked = self.expanded.get(path)
            yield SearchNode(
                parent=parent,
                id=path[-1],
                text=tokenizer.token_text(path[-1]),
                logprob=logprob,
                total=before + logprob,
                state=self._state(path),
                step=asked.step if asked is not None else None,
            )

    def _place(self, path: Path, logprob: float) -> bool:
        if path not in self.logprobs and len(self.logprobs) < MAX_TREE_NODES:
            self.logprobs[path] = logprob
        return path in self.logprobs

    def _state(self, path: Path) -> Literal["returned", "expanded", "completed", "cut"]:
        if path in self.returned:
            return "returned"
        if path in self.expanded:
            return "expanded"
        ended = path[-1] in self.ends.end_token_ids or len(path) == self.ends.max_tokens
        return "completed" if ended else "cut"
