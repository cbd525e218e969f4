"""From what a search remembered to the tree that the answer shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from app.schemas.search_tree import MAX_TREE_NODES, SearchNode, SearchTree
from model_runtime import (
    CompletionState,
    DecodingLimits,
    DecodingResult,
    ExpandedPrefix,
    RecordedSearch,
    Tokenizer,
    TokenSet,
)

Path = tuple[int, ...]
_Reached = tuple[CompletionState, TokenSet | None]
"""Where a path stands, and which tokens may follow; None for all."""

SHOWN = 8
"""Continuations of a prefix that are shown, beside those that the search went on with."""


def search_tree(
    tokenizer: Tokenizer,
    search: RecordedSearch[DecodingResult],
    result: DecodingResult | None,
    limits: DecodingLimits,
    vocab_size: int,
) -> SearchTree:
    """The tree, at most ``MAX_TREE_NODES`` nodes of it.

    What was returned has a place before all else, and then the prefixes in the order in which they
    were expanded: what is left out is what the search saw last.
    """
    tree = _Tree({prefix.tokens: prefix for prefix in search.prefixes}, limits, vocab_size)
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
    limits: DecodingLimits
    vocab_size: int
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
        reached: dict[Path, _Reached] = {(): self._reached(self.limits.begin())}
        waiting = list(children.get((), ()))
        while waiting:
            path = waiting.pop()
            waiting.extend(children.get(path, ()))
            parent, before = found.get(path[:-1], (None, 0.0))
            logprob = self.logprobs[path]
            found[path] = len(found), before + logprob
            asked = self.expanded.get(path)
            after = self._after(reached.get(path[:-1]), path[-1])
            if after is not None and path in children:
                reached[path] = self._reached(after)
            yield SearchNode(
                parent=parent,
                id=path[-1],
                text=tokenizer.token_text(path[-1]),
                logprob=logprob,
                total=before + logprob,
                state=self._state(path, after),
                step=asked.step if asked is not None else None,
            )

    def _place(self, path: Path, logprob: float) -> bool:
        if path not in self.logprobs and len(self.logprobs) < MAX_TREE_NODES:
            self.logprobs[path] = logprob
        return path in self.logprobs

    def _reached(self, state: CompletionState) -> _Reached:
        return state, self.limits.allowed(state.length, self.vocab_size, state.constraint)

    def _after(self, before: _Reached | None, token_id: int) -> CompletionState | None:
        """None where the token may not follow: it was only reported among the most probable."""
        if before is None:
            return None
        state, allowed = before
        if allowed is not None and token_id not in allowed:
            return None
        return self.limits.push(state, token_id)

    def _state(
        self, path: Path, after: CompletionState | None
    ) -> Literal["returned", "expanded", "completed", "cut"]:
        if path in self.returned:
            return "returned"
        if path in self.expanded:
            return "expanded"
        return "completed" if after is not None and after.finish_reason is not None else "cut"
