"""A completion in the making: what greedy and beam search extend token by token."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from model_runtime.decoding.base import Answer
from model_runtime.decoding.hypothesis import FinishReason, Hypothesis
from model_runtime.decoding.limits import DecodingLimits
from model_runtime.decoding.stopping import StopMatcher
from model_runtime.errors import ChainruleError, InvalidQuery
from model_runtime.types import LogprobQuery, TokenLogprob

Row = tuple[TokenLogprob, ...]
"""The most probable next tokens of one path, best first."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One generated token, linked to the one before it, so that branches share their stem."""

    before: Step | None
    token: TokenLogprob
    rank: int
    top: Row


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """A prompt and the tokens generated after it.

    Attributes:
        tokens: ids of the prompt and of all generated tokens.
        length: number of generated tokens.
        logprob: left-to-right float64 sum of the generated tokens' log-probs.
        last: the last generated token; None before the first.
        stop: the matcher after the generated tokens; None where there are no stops.
        finish_reason: None while it may be extended.
    """

    tokens: tuple[int, ...]
    length: int = 0
    logprob: float = 0.0
    last: Step | None = None
    stop: StopMatcher | None = None
    finish_reason: FinishReason | None = None

    @classmethod
    def start(cls, prompt: Sequence[int], limits: DecodingLimits) -> Prefix:
        """Nothing generated yet. Raises ``InvalidQuery`` for an empty prompt."""
        if not prompt:
            raise InvalidQuery("a completion needs at least one token before it", param="context")
        return cls(tokens=tuple(prompt), stop=limits.stop)

    def query(self, width: int, cache_salt: str) -> LogprobQuery:
        """Asks for the ``width`` most probable next tokens."""
        return LogprobQuery(
            tokens=self.tokens,
            score_from=len(self.tokens),
            targets=(),
            top_k=width,
            cache_salt=cache_salt,
        )

    def choices(self, row: Row, limits: DecodingLimits) -> Iterator[tuple[int, TokenLogprob]]:
        """The tokens of ``row`` that may come next, best first, with their places in it."""
        masked = limits.masked_ids(self.length)
        for place, token in enumerate(row):
            if token.logprob == -math.inf:
                return
            if token.id not in masked:
                yield place, token

    def extend(self, row: Row, place: int, limits: DecodingLimits) -> Prefix:
        """The path with the token at ``place`` of its ``row`` behind it, finished or not."""
        token = row[place]
        ended = token.id in limits.end_token_ids
        stop = self.stop.push(token.id) if self.stop is not None else None
        length = self.length + 1
        stopped = stop is not None and stop.matched and length > limits.min_tokens
        return Prefix(
            tokens=(*self.tokens, token.id),
            length=length,
            logprob=self.logprob + token.logprob,
            last=Step(self.last, token, _rank(row, place), row[: limits.top_logprobs]),
            stop=stop,
            finish_reason=_finish_reason(ended, stopped, length == limits.max_tokens),
        )

    def hypothesis(self, score: float) -> Hypothesis:
        """The finished completion under its search's score."""
        if self.finish_reason is None:
            raise RuntimeError("an unfinished prefix was taken for a result: please report this")
        steps = self._steps()
        stop = self.stop if self.finish_reason is FinishReason.STOP else None
        return Hypothesis(
            token_ids=tuple(step.token.id for step in steps),
            token_logprobs=tuple(step.token.logprob for step in steps),
            token_ranks=tuple(step.rank for step in steps),
            top=tuple(step.top for step in steps) if steps[0].top else (),
            score=score,
            finish_reason=self.finish_reason,
            stop_span=stop.span if stop is not None else None,
        )

    def _steps(self) -> list[Step]:
        steps = []
        step = self.last
        while step is not None:
            steps.append(step)
            step = step.before
        return steps[::-1]


def next_row(answer: Answer) -> Row:
    """The answer to ``Prefix.query``; raises what the query failed with."""
    if isinstance(answer, ChainruleError):
        raise answer
    (row,) = answer.top
    return row


def _rank(row: Row, place: int) -> int:
    first = place
    while first and row[first - 1].logprob == row[place].logprob:
        first -= 1
    return first + 1


def _finish_reason(ended: bool, stopped: bool, full: bool) -> FinishReason | None:
    # An end token is no text: what its bytes would complete is no stop.
    if ended:
        return FinishReason.END
    if stopped:
        return FinishReason.STOP
    return FinishReason.LENGTH if full else None
