"""A forward over symbols: a slot holds the token path it was computed from, not numbers.

It follows a batch as the attention would and fails where a row would see a wrong key. The
distribution of a path is a hash of it, so a result tells which path it was computed for.
"""

from __future__ import annotations

import zlib

from model_runtime.batching.batch import Batch, BatchOutput


def fake_logprob(salt: str, path: tuple[int, ...], token: int) -> float:
    """A number in (-10, 0) that depends on the salt, the whole path and the token."""
    return -10.0 * (zlib.crc32(repr((salt, path, token)).encode()) + 1) / (2**32 + 1)


class SymbolicRunner:
    """Checks and runs batches; ``storage`` maps a slot to the (salt, path) it holds."""

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.storage: dict[int, tuple[int, ...]] = {}

    def run(self, batch: Batch) -> BatchOutput:
        paths = self._row_paths(batch)
        salts = self._salts(batch, paths)
        logprobs = [
            fake_logprob(salts[batch.head_rows[head]], paths[batch.head_rows[head]], token)
            for head, token in zip(batch.gather_head, batch.gather_ids, strict=True)
        ]
        return BatchOutput(logprobs, [1] * len(logprobs), {}, {})

    def _row_paths(self, batch: Batch) -> list[tuple[int, ...]]:
        """The token path of each row, read off the keys that it attends to."""
        seen: list[dict[int, int]] = [{} for _ in batch.token_ids]
        for span in batch.suffix_spans + batch.prefix_spans:
            rows = [row for part in span.rows for row in part]
            cuts = {max(0, batch.positions[row] // self.block_size - 1) for row in rows}
            expect(len(cuts) == 1, "rows of two blocks share a span")
            cut = cuts.pop() * self.block_size
            ends = (span.start, span.start + len(span.slots))
            expect(cut in ends and (cut or span.start == 0), "the cut is not where it belongs")
            for row in rows:
                for position, slot in enumerate(span.slots, span.start):
                    if position <= batch.positions[row]:
                        expect(position not in seen[row], "a key is seen twice")
                        seen[row][position] = slot
        paths: list[tuple[int, ...]] = []
        for row, token in enumerate(batch.token_ids):
            position = batch.positions[row]
            expect(sorted(seen[row]) == list(range(position + 1)), "keys are missing")
            expect(seen[row][position] == batch.slots[row], "a row does not see itself")
            before = self.storage[seen[row][position - 1]] if position else ()
            path = (*before, token)
            expect(len(path) == position + 1, "the key before is of another position")
            for earlier in range(position):
                held = self.storage[seen[row][earlier]]
                expect(held == path[: earlier + 1], "a key belongs to another path")
            self.storage[batch.slots[row]] = path
            paths.append(path)
        return paths

    @staticmethod
    def _salts(batch: Batch, paths: list[tuple[int, ...]]) -> dict[int, str]:
        salts: dict[int, str] = {}
        for extent in batch.query_slices:
            for row, head in zip(extent.rows, extent.head_index, strict=True):
                batch_row = batch.head_rows[head]
                expect(paths[batch_row] == extent.query.tokens[:row], "a head row is off")
                salt = salts.setdefault(batch_row, extent.query.cache_salt)
                expect(salt == extent.query.cache_salt, "two salts share a row")
        return salts


def expect(truth: bool, what: str) -> None:
    if not truth:
        raise AssertionError(what)
