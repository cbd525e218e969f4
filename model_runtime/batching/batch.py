"""What one forward computes: flat arrays, handed from the planner to the runner.

A batch holds N rows, one per token that is fed, in depth-first order of the trie. A row
attends to the tokens of its own path: to a suffix span, which ends with the row itself, and,
behind the first two blocks, to a prefix span, all of whose keys it sees. A span is named by the
slots of its keys and lists the rows that attend to it (see ``layout``)::

    trie          positions 0 ........ 191   192 ........ 255   256 ...
    context       [    prefix span P    ]    [  c ............
    candidate 1                                 ............ ,   x ]  suffix span S1 = c + x
    candidate 2                                 ............ ,   y ]  suffix span S2 = c + y

    rows of candidate 1 attend to P and S1; rows of candidate 2 to P and S2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from model_runtime.errors import NonFiniteLogits
from model_runtime.token_set import TokenSet
from model_runtime.types import (
    EMPTY_RESULT,
    LogprobQuery,
    LogprobResult,
    RankedLogprob,
    TokenLogprob,
    TopKSelection,
)

NOT_FINITE = "the model's logits are not finite on this token path"


@dataclass(frozen=True, slots=True)
class QueryProgress:
    """A query and how far it has got: rows before ``next_row`` are answered already."""

    query: LogprobQuery
    next_row: int


class AskedChoice(NamedTuple):
    """A head row, and which of its tokens are to be listed."""

    head: int
    choice: TopKSelection


class AskedSet(NamedTuple):
    """A head row, and a set of its tokens whose probabilities are to be summed up."""

    head: int
    tokens: TokenSet


class AskedPartition(NamedTuple):
    """A head row, and a temperature at which its log-partition is wanted."""

    head: int
    temperature: float


@dataclass(frozen=True, slots=True)
class KeySpan:
    """Keys at consecutive positions of one path, and the rows that attend to them.

    Attributes:
        start: absolute position of the first key.
        slots: where each key lies in the KV storage.
        rows: ranges of batch rows, ascending; each sees the keys at or before its own position.
    """

    start: int
    slots: tuple[int, ...]
    rows: tuple[range, ...]


@dataclass(frozen=True, slots=True)
class QuerySlice:
    """The part of one ``QueryProgress`` that a batch does.

    Attributes:
        work_index: position in the sequence that was planned.
        query: what that work asks.
        rows: the asked rows that this batch answers; empty for a chunk of pure prefill.
        computed_tokens: tokens fed on behalf of this query, none of them for one before it.
        head_index: [len(rows)] indices into the batch's ``head_rows``.
        gathers: indices into ``gather_ids``: of the scored tokens, then of the targets.
        end_row: batch row of the last token that is fed of the path.
        cached_result: the answer to the rows before ``rows``, which were asked and are known.
        kept_slots: where the tokens before the first of the rows lie, as far as they stay cached.
    """

    work_index: int
    query: LogprobQuery
    rows: range
    computed_tokens: int
    head_index: tuple[int, ...]
    gathers: tuple[int, ...]
    end_row: int
    cached_result: LogprobResult = EMPTY_RESULT
    kept_slots: tuple[int, ...] = ()

    @property
    def complete(self) -> bool:
        """These are the last rows of the query."""
        return self.rows.stop > self.query.last_row

    @property
    def scored(self) -> int:
        """Rows that score the path's own token; one less than all where targets are asked."""
        return min(self.rows.stop, len(self.query.tokens)) - self.rows.start

    @property
    def targets(self) -> tuple[int, ...]:
        """Ids gathered after the whole path."""
        return self.query.targets or () if self.complete else ()

    @property
    def choice(self) -> AskedChoice | None:
        """The choice after the whole path, where this batch answers it."""
        if self.query.choice is None or not self.complete:
            return None
        return AskedChoice(self.head_index[-1], self.query.choice)

    @property
    def token_sets(self) -> tuple[AskedSet, ...]:
        """The sets to be summed up after the whole path, where this batch answers them."""
        if not self.complete:
            return ()
        return tuple(AskedSet(self.head_index[-1], tokens) for tokens in self.query.token_sets)

    @property
    def partitions(self) -> tuple[AskedPartition, ...]:
        """The log-partitions after the whole path, where this batch answers them."""
        if not self.complete:
            return ()
        return tuple(AskedPartition(self.head_index[-1], t) for t in self.query.temperatures)

    @property
    def logit_head(self) -> int | None:
        """The head row after the whole path, where this batch answers with its logits."""
        return self.head_index[-1] if self.query.logits and self.complete else None


@dataclass(frozen=True, slots=True)
class CachedPath:
    """A path whose keys and values stay in the cache after the batch, with their slots."""

    salt: str
    tokens: tuple[int, ...]
    slots: tuple[int, ...]

    def before(self, slots: frozenset[int]) -> CachedPath:
        """The path up to the first token that lies at one of these slots."""
        depth = next((i for i, slot in enumerate(self.slots) if slot in slots), len(self.slots))
        return CachedPath(self.salt, self.tokens[:depth], self.slots[:depth])


@dataclass(frozen=True, slots=True)
class Batch:
    """One forward over N rows, H of which go through the head.

    Attributes:
        token_ids, positions, slots: [N] the token fed, its position in its path, and where
            its key and value are written.
        suffix_spans: key spans that end among their rows; every row is in one.
        prefix_spans: key spans that end before their rows; a row is in one at most.
        head_rows: [H] batch rows whose distribution is asked, each once.
        top_k: [H] how many most probable tokens each wants.
        summaries: [H] whether the entropy is wanted.
        gather_head, gather_ids: [G] log-probability of id ``gather_ids[g]`` at head row
            ``gather_head[g]``, each pair once.
        query_slices: which part of which work is answered; work that did not fit has none.
        kept: what the cache keeps once the batch has run; its other slots are free again.
    """

    token_ids: Sequence[int]
    positions: Sequence[int]
    slots: Sequence[int]
    suffix_spans: tuple[KeySpan, ...]
    prefix_spans: tuple[KeySpan, ...]
    head_rows: Sequence[int]
    top_k: Sequence[int]
    summaries: Sequence[bool]
    gather_head: Sequence[int]
    gather_ids: Sequence[int]
    query_slices: tuple[QuerySlice, ...]
    kept: tuple[CachedPath, ...] = ()

    @property
    def choices(self) -> frozenset[AskedChoice]:
        """What is to be listed, each once: of one head row there may be several choices."""
        return frozenset(e.choice for e in self.query_slices if e.choice is not None)

    @property
    def token_sets(self) -> frozenset[AskedSet]:
        """What is to be summed up, each once."""
        return frozenset(
            asked for query_slice in self.query_slices for asked in query_slice.token_sets
        )

    @property
    def partitions(self) -> frozenset[AskedPartition]:
        """The log-partitions that are wanted, each once."""
        return frozenset(
            asked for query_slice in self.query_slices for asked in query_slice.partitions
        )

    @property
    def logit_heads(self) -> frozenset[int]:
        """The head rows whose logits are wanted, and not their log-probabilities alone."""
        return frozenset(e.logit_head for e in self.query_slices if e.logit_head is not None)


@dataclass(frozen=True, slots=True)
class BatchOutput:
    """What the runner gives back for a batch.

    Attributes:
        logprobs, ranks: [G] of the gathered ids.
        top: head row -> tokens, most probable first.
        entropies: head row -> nats.
        bad_rows: head rows whose logits are not finite.
        bad_slots: those of fed tokens whose keys or values are not finite. What is behind such a
            token on a path was computed without it, and means nothing.
        choices: what each of the batch's ``choices`` lists, most probable first; nothing for
            a bad row.
        set_logprobs: log of the summed probability of each of the batch's ``token_sets``; nothing
            for a bad row.
        log_partitions: each of the batch's ``partitions``; nothing for a bad row.
        log_sums: log of the sum of exponentials of the logits of each of the batch's
            ``logit_heads``; nothing for a bad row.
    """

    logprobs: Sequence[float]
    ranks: Sequence[int]
    top: Mapping[int, tuple[TokenLogprob, ...]]
    entropies: Mapping[int, float]
    bad_rows: frozenset[int] = frozenset()
    bad_slots: frozenset[int] = frozenset()
    choices: Mapping[AskedChoice, Sequence[RankedLogprob]] = field(default_factory=dict)
    set_logprobs: Mapping[AskedSet, float] = field(default_factory=dict)
    log_partitions: Mapping[AskedPartition, float] = field(default_factory=dict)
    log_sums: Mapping[int, float] = field(default_factory=dict)


def results_from_output(batch: Batch, output: BatchOutput) -> list[LogprobResult | NonFiniteLogits]:
    """The answers of a forward, one per query slice, in their order."""
    lost = _rows_of(batch, output.bad_slots) if output.bad_slots else frozenset()
    return [
        NonFiniteLogits(NOT_FINITE) if query_slice.end_row in lost else _answer(output, query_slice)
        for query_slice in batch.query_slices
    ]


def _rows_of(batch: Batch, slots: frozenset[int]) -> frozenset[int]:
    """Rows of tokens whose path, which they end, has a token at one of these slots."""
    rows: set[int] = set()
    for span in batch.prefix_spans:
        if not slots.isdisjoint(span.slots):
            rows.update(*span.rows)
    for span in batch.suffix_spans:
        seen = [span.start + place for place, slot in enumerate(span.slots) if slot in slots]
        if seen:
            behind = (row for part in span.rows for row in part)
            rows.update(row for row in behind if batch.positions[row] >= seen[0])
    return frozenset(rows)


def _answer(output: BatchOutput, query_slice: QuerySlice) -> LogprobResult | NonFiniteLogits:
    query, heads = query_slice.query, query_slice.head_index
    logprobs = tuple(map(output.logprobs.__getitem__, query_slice.gathers))
    ranks = tuple(map(output.ranks.__getitem__, query_slice.gathers))
    scored = query_slice.scored
    if output.bad_rows and not output.bad_rows.isdisjoint(heads):
        return NonFiniteLogits(NOT_FINITE)
    if -math.inf in logprobs[:scored]:
        return NonFiniteLogits("the model gives a scored token probability 0")
    answer = LogprobResult(
        logprobs=logprobs[:scored],
        ranks=ranks[:scored],
        target_logprobs=logprobs[scored:],
        target_ranks=ranks[scored:],
        top=tuple(output.top[h][: query.top_k] for h in heads) if query.top_k else (),
        entropies=tuple(output.entropies[h] for h in heads) if query.summary else (),
        choices=output.choices[asked] if (asked := query_slice.choice) is not None else (),
        set_logprobs=tuple(output.set_logprobs[asked] for asked in query_slice.token_sets),
        log_partitions=tuple(output.log_partitions[asked] for asked in query_slice.partitions),
        target_logits=_logits(output, query_slice.logit_head, logprobs[scored:]),
    )
    return (
        query_slice.cached_result.concat(answer) if query_slice.cached_result.logprobs else answer
    )


def _logits(
    output: BatchOutput, head: int | None, logprobs: tuple[float, ...]
) -> tuple[float, ...]:
    if head is None:
        return ()
    log_sum = output.log_sums[head]
    return tuple(logprob + log_sum for logprob in logprobs)
