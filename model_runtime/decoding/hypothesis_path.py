"""A completion in the making: what greedy and beam search extend token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from model_runtime.decoding.constraints.constraint import Constraint
from model_runtime.decoding.constraints.stop_strings import StopMatcher
from model_runtime.decoding.hypothesis import FinishReason, Hypothesis
from model_runtime.decoding.limits import CompletionState, DecodingLimits
from model_runtime.errors import ChainruleError, InvalidQuery, NonFiniteLogits, NothingFollows
from model_runtime.types import (
    LogprobQuery,
    QueryResult,
    RankedLogprob,
    TokenLogprob,
    TopKSelection,
)


class NextTokens(NamedTuple):
    """What may come next on one path.

    Attributes:
        choices: the most probable tokens that may come next, best first.
        top: the most probable tokens of all, to be reported; empty when not asked.
    """

    choices: Sequence[RankedLogprob]
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class GeneratedStep:
    """One generated token, linked to the one before it, so that branches share the rest."""

    before: GeneratedStep | None
    token: RankedLogprob
    top: tuple[TokenLogprob, ...]

    @property
    def rank(self) -> int:
        """1 + the number of tokens that were strictly more probable."""
        return self.token.rank


@dataclass(frozen=True, slots=True, eq=False)
class PartialHypothesis:
    """A prompt and the tokens generated after it.

    Attributes:
        tokens: ids of the prompt and of all generated tokens.
        length: number of generated tokens.
        logprob: left-to-right float64 sum of the generated tokens' log-probs.
        last: the last generated token; None before the first.
        stop: the matcher after the generated tokens; None where there are no stops.
        constraint: its state after the generated tokens, but for an end token; None where
            there is none.
        finish_reason: None while it may be extended.
        may_extend: finished, and also the beginning of longer completions: see ``as_live``.
    """

    tokens: tuple[int, ...]
    length: int = 0
    logprob: float = 0.0
    last: GeneratedStep | None = None
    stop: StopMatcher | None = None
    constraint: Constraint | None = None
    finish_reason: FinishReason | None = None
    may_extend: bool = False

    @classmethod
    def start(cls, prompt: Sequence[int], limits: DecodingLimits) -> PartialHypothesis:
        """Nothing generated yet. Raises ``InvalidQuery`` for an empty prompt."""
        if not prompt:
            raise InvalidQuery("a completion needs at least one token before it", param="context")
        return cls(tokens=tuple(prompt), stop=limits.stop, constraint=limits.constraint)

    def query(
        self,
        limits: DecodingLimits,
        count: int,
        vocab_size: int,
        floor: float | None = None,
    ) -> LogprobQuery:
        """Asks for the ``count`` most probable tokens that may come next.

        Where none may, it asks for none: the row that comes back has no choices.

        Args:
            limits: those that the path was started with.
            count: tokens at most.
            vocab_size: rows of the model's head.
            floor: only tokens of at least this log-probability; None for any.
        """
        allowed = limits.allowed(self.length, vocab_size, self.constraint)
        possible = allowed is None or len(allowed) > 0
        return LogprobQuery(
            tokens=self.tokens,
            score_from=len(self.tokens),
            targets=(),
            top_k=min(limits.top_logprobs, vocab_size),
            choice=TopKSelection(min(count, vocab_size), floor, allowed) if possible else None,
        )

    def choices(self, row: NextTokens) -> Iterator[tuple[int, RankedLogprob]]:
        """The tokens of ``row`` that may come next, best first, with their places in it."""
        return enumerate(row.choices)

    def extend(self, row: NextTokens, place: int, limits: DecodingLimits) -> PartialHypothesis:
        """The path with the token at ``place`` of its ``row`` behind it, finished or not."""
        token = row.choices[place]
        before = CompletionState(self.length, self.stop, self.constraint)
        after = limits.push(before, token.id)
        return PartialHypothesis(
            tokens=(*self.tokens, token.id),
            length=after.length,
            logprob=self.logprob + token.logprob,
            last=GeneratedStep(self.last, token, row.top),
            stop=after.stop,
            constraint=after.constraint,
            finish_reason=after.finish_reason,
            may_extend=after.finish_reason is FinishReason.COMPLETE
            and after.length < limits.max_tokens
            and after.constraint is not None
            and len(after.constraint.allowed) > 0,
        )

    def as_live(self) -> PartialHypothesis:
        """Of a finished path that ``may_extend``, the one to go on with."""
        if not self.may_extend:
            raise RuntimeError("a path that has ended was to go on: please report this")
        return replace(self, finish_reason=None, may_extend=False)

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

    def _steps(self) -> list[GeneratedStep]:
        steps = []
        step = self.last
        while step is not None:
            steps.append(step)
            step = step.before
        return steps[::-1]


def next_row(answer: QueryResult) -> NextTokens:
    """The answer to ``PartialHypothesis.query``; raises what the query failed with."""
    if isinstance(answer, ChainruleError):
        raise answer
    (top,) = answer.top or ((),)
    return NextTokens(answer.choices, top)


def no_completion_error(limits: DecodingLimits) -> ChainruleError:
    """Why a search has no path to go on with and no completion."""
    if limits.constraint is None:
        return NonFiniteLogits("no token that may come next has any probability")
    return NothingFollows(
        "nothing can be completed: on every path searched the constraint came to allow no token "
        "that has any probability"
    )
