"""Numbers the fed tokens of a trie depth first, and cuts its paths into key blocks.

Depth first, so the rows that attend to a full block are one range: those of its own node
from the block's first position on, and those of everything below. A block that a node does
not fill belongs to the node alone; its children continue the block in copies of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from model_runtime.batch import KeyBlock
from model_runtime.trie import TokenTrie, TrieNode


@dataclass(slots=True)
class _OpenBlock:
    """A full block whose rows are still being numbered."""

    start: int
    slots: tuple[int, ...]
    first_row: int


@dataclass(slots=True)
class _Path:
    """From the root to the node at hand."""

    slots: list[int] = field(default_factory=list)
    blocks: list[_OpenBlock] = field(default_factory=list)


class Layout:
    """The rows and key blocks of a trie. Attributes are those of ``Batch``."""

    def __init__(self, trie: TokenTrie, block_size: int) -> None:
        self.block_size = block_size
        self.token_ids: list[int] = []
        self.positions: list[int] = []
        self.slots: list[int] = []
        self.key_blocks: list[KeyBlock] = []
        for root in trie.roots.values():
            self._visit(root)

    def _visit(self, root: TrieNode) -> None:
        path = _Path()
        pending: list[TrieNode | None] = [root]
        opened: list[int] = []
        while pending:
            node = pending.pop()
            if node is None:
                self._close(path, opened.pop())
                continue
            opened.append(len(path.blocks))
            self._place(node, path)
            pending.append(None)
            pending.extend(reversed(node.children.values()))

    def _place(self, node: TrieNode, path: _Path) -> None:
        del path.slots[node.start :]
        path.slots += node.slots
        node.first_row = len(self.token_ids)
        fed = node.fed_from - node.start
        self.token_ids += node.tokens[fed:]
        self.slots += node.slots[fed:]
        self.positions += range(node.fed_from, node.stop)
        self._open(node, path)
        self._own_tail(node, path)

    def _open(self, node: TrieNode, path: _Path) -> None:
        """Blocks that this node fills; everything below attends to them too."""
        for start in range(len(path.blocks) * self.block_size, node.stop, self.block_size):
            stop = start + self.block_size
            if stop <= node.stop:
                slots = tuple(path.slots[start:stop])
                path.blocks.append(_OpenBlock(start, slots, self._row(node, start)))

    def _own_tail(self, node: TrieNode, path: _Path) -> None:
        """The block that this node leaves unfilled, seen by its own rows alone."""
        start = len(path.blocks) * self.block_size
        rows = range(self._row(node, start), len(self.token_ids))
        if start < node.stop and rows:
            self.key_blocks.append(KeyBlock(start, tuple(path.slots[start:]), rows))

    def _close(self, path: _Path, still_open: int) -> None:
        for block in path.blocks[still_open:]:
            rows = range(block.first_row, len(self.token_ids))
            if rows:
                self.key_blocks.append(KeyBlock(block.start, block.slots, rows))
        del path.blocks[still_open:]

    @staticmethod
    def _row(node: TrieNode, position: int) -> int:
        """The node's first fed row at or after ``position``."""
        return node.first_row + max(0, position - node.fed_from)
