"""Numbers the fed tokens of a trie depth first, and says which keys each of them attends to.

A row's keys are cut at a position that follows from its own position alone: two blocks before
the end of its block. What lies before the cut is its prefix span, what lies from there on its
suffix span::

    block size 64, a context of 256 tokens, two candidates
    row of candidate 1 at 260    prefix [0, 192) of the context    suffix [192, 260] of its path
    row of candidate 2 at 258    the same prefix span              suffix [192, 258] of its path

So all rows in one block behind one prefix share a prefix span, and the few keys behind the cut
are each path's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from model_runtime.batching.batch import KeySpan
from model_runtime.batching.trie import TokenTrie, TrieNode


@dataclass(slots=True)
class _PrefixSpan:
    """A prefix span whose rows are still being numbered."""

    slots: tuple[int, ...]
    rows: list[range] = field(default_factory=list)


class Layout:
    """The rows and key spans of a trie. Attributes are those of ``Batch``."""

    def __init__(self, trie: TokenTrie, block_size: int) -> None:
        self.block_size = block_size
        self.token_ids: list[int] = []
        self.positions: list[int] = []
        self.slots: list[int] = []
        self.suffix_spans: list[KeySpan] = []
        self._prefix_spans: list[_PrefixSpan] = []
        for root in trie.roots.values():
            self._visit(root)

    @property
    def prefix_spans(self) -> list[KeySpan]:
        return [KeySpan(0, span.slots, tuple(span.rows)) for span in self._prefix_spans]

    def _visit(self, root: TrieNode) -> None:
        """Depth first; ``open_spans`` are the prefix spans of the path at hand by their length."""
        path: list[int] = []
        open_spans: dict[int, _PrefixSpan] = {}
        pending = [root]
        while pending:
            node = pending.pop()
            del path[node.start :]
            path += node.slots
            for length in [length for length in open_spans if length > node.start]:
                del open_spans[length]
            self._place(node, path, open_spans)
            pending.extend(reversed(node.children.values()))

    def _place(self, node: TrieNode, path: list[int], open_spans: dict[int, _PrefixSpan]) -> None:
        node.first_row = len(self.token_ids)
        fed = node.fed_from - node.start
        self.token_ids += node.tokens[fed:]
        self.slots += node.slots[fed:]
        self.positions += range(node.fed_from, node.stop)
        start = node.fed_from
        while start < node.stop:
            block = start // self.block_size
            stop = min(node.stop, (block + 1) * self.block_size)
            cut = max(0, block - 1) * self.block_size
            offset = node.first_row - node.fed_from
            rows = range(start + offset, stop + offset)
            self.suffix_spans.append(KeySpan(cut, tuple(path[cut:stop]), (rows,)))
            if cut:
                self._add_rows(cut, path, rows, open_spans)
            start = stop

    def _add_rows(
        self, cut: int, path: list[int], rows: range, open_spans: dict[int, _PrefixSpan]
    ) -> None:
        span = open_spans.get(cut)
        if span is None:
            span = open_spans[cut] = _PrefixSpan(tuple(path[:cut]))
            self._prefix_spans.append(span)
        if span.rows and span.rows[-1].stop == rows.start:
            span.rows[-1] = range(span.rows[-1].start, rows.stop)
        else:
            span.rows.append(rows)
