"""A model made of arithmetic, with a planner that fits work by token count.

A token path is known by a running hash, so the probability of a token depends on everything
before it, and ``expected`` says what any query must come back as, however it was cut.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from model_runtime.batching.batch import Batch, QueryProgress, QuerySlice
from model_runtime.scheduling.forward import ForwardPipeline
from model_runtime.types import LogprobQuery, LogprobResult, QueryResult


def ask(*tokens: int, score_from: int = 1, targets: tuple[int, ...] | None = None) -> LogprobQuery:
    """A query over a path."""
    return LogprobQuery(tokens, score_from, targets)


def keys(query: LogprobQuery) -> list[int]:
    """The identity of each prefix of the path, from the empty one on."""
    known = [hash(query.cache_salt)]
    for token in query.tokens:
        known.append(hash((known[-1], token)))
    return known


def expected(query: LogprobQuery, rows: range | None = None) -> LogprobResult:
    """What the model says about these rows of a query; about all of them by default."""
    prefix = keys(query)
    rows = rows if rows is not None else range(query.score_from, query.last_row + 1)
    scored = [row for row in rows if row < len(query.tokens)]
    targets = (query.targets or ()) if rows.stop > query.last_row else ()
    return LogprobResult(
        logprobs=tuple(_logprob(prefix[row], query.tokens[row]) for row in scored),
        ranks=tuple(1 + query.tokens[row] for row in scored),
        target_logprobs=tuple(_logprob(prefix[query.last_row], token) for token in targets),
        target_ranks=tuple(1 + token for token in targets),
    )


def _logprob(prefix: int, token: int) -> float:
    return -(hash((prefix, token)) % 1009) / 128


class FakeModel:
    """Plans, runs and keeps what it computed.

    Attributes:
        on_run: called with each batch before it is answered; may block or raise.
        ran: batches that were answered.
        released: batches that were planned and not answered.
        seen: every path that any forward held, also one that failed.
    """

    def __init__(self, on_run: Callable[[Batch], None] = lambda batch: None) -> None:
        self.on_run = on_run
        self.ran: list[Batch] = []
        self.released: list[Batch] = []
        self.seen: set[tuple[int, ...]] = set()
        self._cache: set[int] = set()

    @property
    def forward(self) -> ForwardPipeline:
        return ForwardPipeline(self.plan, self.run, self.release)

    def plan(self, work: Sequence[QueryProgress], budget: int) -> Batch:
        """Work in order until ``budget`` tokens are fed; what does not fit whole is cut."""
        fed: dict[int, None] = {}
        extents: list[QuerySlice] = []
        for index, item in enumerate(work):
            new = [key for key in self._unknown(item.query) if key not in fed]
            taken = new[: budget - len(fed)]
            if new and not taken:
                break
            fed |= dict.fromkeys(taken)
            reach = item.query.last_row - len(new) + len(taken)
            rows = range(item.next_row, max(item.next_row, reach + 1))
            extents.append(QuerySlice(index, item.query, rows, len(taken), (0,) * len(rows), (), 0))
        return _batch([*fed], extents)

    def run(self, batch: Batch) -> Sequence[QueryResult]:
        self.seen |= {query_slice.query.tokens for query_slice in batch.query_slices}
        self.on_run(batch)
        self.ran.append(batch)
        self._cache |= set(batch.token_ids)
        return [self.answer(query_slice) for query_slice in batch.query_slices]

    def answer(self, query_slice: QuerySlice) -> QueryResult:
        return query_slice.cached_result.concat(expected(query_slice.query, query_slice.rows))

    def release(self, batch: Batch) -> None:
        self.released.append(batch)

    def _unknown(self, query: LogprobQuery) -> Iterator[int]:
        prefixes = keys(query)[1 : query.last_row + 1]
        return (key for key in prefixes if key not in self._cache)


def _batch(fed: list[int], extents: list[QuerySlice]) -> Batch:
    rows = [row for query_slice in extents for row in query_slice.rows]
    return Batch(
        token_ids=fed,
        positions=(),
        slots=(),
        suffix_spans=(),
        prefix_spans=(),
        head_rows=rows,
        top_k=(),
        summaries=(),
        gather_head=(),
        gather_ids=(),
        query_slices=tuple(extents),
    )


def paths(batch: Batch) -> list[tuple[int, ...]]:
    """The token paths that a batch holds a part of, in its order."""
    return [query_slice.query.tokens for query_slice in batch.query_slices]


class Gate:
    """Holds forwards until a test lets them through. Give ``hold`` to ``FakeModel.on_run``."""

    def __init__(self) -> None:
        self._arrived = threading.Semaphore(0)
        self._passes = threading.Semaphore(0)
        self._open = False

    def hold(self, batch: Batch) -> None:
        self._arrived.release()
        if not self._open and not self._passes.acquire(timeout=10):
            raise TimeoutError("the test forgot to let this forward through")

    def wait_for_forward(self) -> None:
        """Return when the next forward is at the gate. Blocks."""
        if not self._arrived.acquire(timeout=10):
            raise TimeoutError("no forward came")

    def let_one_through(self) -> None:
        self._passes.release()

    def open(self) -> None:
        """Let this and all further forwards through."""
        self._open = True
        self._passes.release()
