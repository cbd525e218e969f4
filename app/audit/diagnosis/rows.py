"""What the model says at every place of an input: what is asked, and how the answers are read.

Row r is the distribution behind the first r tokens of a path. One query asks for it, with the
token before it, its own and the next one as targets, so that a score that is read from the wrong
row needs no forward pass of its own::

    tokens      x0   x1   y0   y1            start = 2
    row                    2    3    4       y0 is scored in row 2, y1 in row 3, an end in row 4
    read one too late           3    4       y0 in row 3, y1 in row 4
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import mul

from app.audit.diagnosis.inputs import ModelInput, ScoredPath
from model_runtime import ChainruleError, LogprobQuery, LogprobResult, QueryResult

LISTED = 100
"""Most probable tokens of a row that a softmax over some of them is tried with."""

SPAN = 10.0
NODES = 41
_STEP = 2 * math.log(SPAN) / (NODES - 1)
TEMPERATURES = tuple(math.exp(-math.log(SPAN) + place * _STEP) for place in range(NODES))
"""At which rows are normalized, from 1/10 to 10, evenly spaced in their logarithm; between them
the log-partition is interpolated."""

_AROUND = 8
"""Nodes that the interpolation goes through: it is off by 1e-6 nats at most."""


@dataclass(frozen=True, slots=True)
class Row:
    """The distribution at one place, as far as it is asked for.

    Attributes:
        logprobs: of the path's tokens: by how many places they stand behind the row, -1 to 1.
        eos: of the tokenizer's own end token, in a row that ends a path.
        best: of the most probable token.
        top: of the most probable tokens, best first.
        partitions: logarithms of the sums at ``TEMPERATURES``; empty where not asked.
    """

    logprobs: Mapping[int, float]
    eos: float | None
    best: float
    top: tuple[float, ...]
    partitions: tuple[float, ...]

    def partition(self, temperature: float) -> float:
        """The logarithm of the sum over the vocabulary of exp((logprob - best) / temperature)."""
        weights, first = interpolation(temperature)
        nodes = self.partitions[first : first + len(weights)]
        return math.fsum(map(mul, weights, nodes))


@dataclass(frozen=True, slots=True)
class PathRows:
    """One candidate of one input.

    Attributes:
        start: position of the first scored token.
        length: tokens of the path; an end would stand at this position.
        rows: by place.
        prompt: of the context's tokens from the second on; None where they were not asked for.
        byte_count, characters: of the candidate's own text; 0 where it has none.
    """

    start: int
    length: int
    rows: Mapping[int, Row]
    prompt: tuple[float, ...] | None
    byte_count: int
    characters: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked about an input.

    Attributes:
        end_ids: tokens one of which ends a path; empty for a model without any.
        eos: the tokenizer's own among several.
        weighs_vocabulary: whether temperatures and the most probable tokens are asked for.
        scores_prompt: whether the context's own tokens are.
        goes_beyond: whether a row is asked behind an end token.
    """

    end_ids: tuple[int, ...]
    eos: int | None = None
    weighs_vocabulary: bool = False
    scores_prompt: bool = False
    goes_beyond: bool = False

    def queries(self, path: ScoredPath) -> dict[int, LogprobQuery]:
        """By row; row 0 stands for the context's tokens."""
        found = {row: self._query(path, row) for row in self._rows(path)}
        if self.scores_prompt and path.start > 1:
            found[0] = LogprobQuery(path.tokens[: path.start], 1)
        return found

    def _rows(self, path: ScoredPath) -> range:
        beyond = bool(self.end_ids) and self.goes_beyond
        return range(max(1, path.start - 1), len(path.tokens) + 1 + beyond)

    def _query(self, path: ScoredPath, row: int) -> LogprobQuery:
        tokens = (*path.tokens, *self.end_ids[:1])[:row]
        targets = [token for _, ids in self._targets(path, row) for token in ids]
        return LogprobQuery(
            tokens,
            row,
            tuple(targets),
            top_k=LISTED if self.weighs_vocabulary else 0,
            temperatures=TEMPERATURES if self.weighs_vocabulary else (),
            keep=path.start,
        )

    def _targets(self, path: ScoredPath, row: int) -> list[tuple[int, tuple[int, ...]]]:
        """The places, as seen from the row, and the tokens that stand there."""
        found = []
        for offset in (-1, 0, 1):
            place = row + offset
            if max(1, path.start - 1) <= place < len(path.tokens):
                found.append((offset, path.tokens[place : place + 1]))
            elif place == len(path.tokens) and self.end_ids:
                found.append((offset, self.end_ids))
        return found

    def read(self, path: ScoredPath, answers: Mapping[int, QueryResult]) -> dict[int, Row]:
        """The rows that were answered.

        Raises:
            ChainruleError: one of the path's own was not.
        """
        rows = {}
        for row, answer in answers.items():
            if isinstance(answer, LogprobResult):
                if row:
                    rows[row] = self._row(path, row, answer)
            elif row <= len(path.tokens):
                raise answer
        return rows

    def _row(self, path: ScoredPath, row: int, answer: LogprobResult) -> Row:
        logprobs, place = {}, 0
        eos = None
        for offset, ids in self._targets(path, row):
            found = answer.target_logprobs[place : place + len(ids)]
            place += len(ids)
            logprobs[offset] = _log_sum(found)
            if offset == 0 and row == len(path.tokens) and self.eos in ids:
                eos = found[ids.index(self.eos)]
        top = tuple(token.logprob for token in answer.top[-1]) if answer.top else ()
        best = top[0] if top else 0.0
        return Row(logprobs, eos, best, top, answer.log_partitions)


def read_input(
    made: ModelInput,
    asked: Asked,
    answers: Mapping[tuple[int, int], QueryResult],
    sizes: Sequence[tuple[int, int]],
) -> tuple[PathRows | None, ...]:
    """The rows of every candidate.

    Args:
        made: the input.
        asked: what was asked about it.
        answers: by index of the candidate and row.
        sizes: bytes and characters of each candidate.

    Raises:
        ChainruleError: something could not be answered.
    """
    found: list[PathRows | None] = []
    for index, path in enumerate(made.paths):
        if path is None:
            found.append(None)
            continue
        own = {row: answer for (at, row), answer in answers.items() if at == index}
        rows = asked.read(path, own)
        prompt: tuple[float, ...] | None = None
        scored = own.get(0)
        if isinstance(scored, ChainruleError):
            raise scored
        if scored is not None:
            prompt = scored.logprobs
        elif asked.scores_prompt:
            prompt = ()
        found.append(PathRows(path.start, len(path.tokens), rows, prompt, *sizes[index]))
    return tuple(found)


@lru_cache(maxsize=4096)
def interpolation(temperature: float) -> tuple[tuple[float, ...], int]:
    """Weights of the nodes around a temperature, and the place of the first of them."""
    at = (math.log(temperature) + math.log(SPAN)) / _STEP
    node = round(at)
    if abs(at - node) < _AT_NODE:
        return (1.0,), node
    first = min(max(0, math.floor(at) - _AROUND // 2 + 1), NODES - _AROUND)
    weights = []
    for node in range(_AROUND):
        weight = 1.0
        for other in range(_AROUND):
            if other != node:
                weight *= (at - first - other) / (node - other)
        weights.append(weight)
    return tuple(weights), first


_AT_NODE = 1e-9
"""Steps from a node within which its own value is taken."""


def _log_sum(logprobs: Sequence[float]) -> float:
    """The log of the summed probability; of one token its own."""
    best = max(logprobs)
    if len(logprobs) == 1 or best == -math.inf:
        return best
    return best + math.log(math.fsum(math.exp(one - best) for one in logprobs))
