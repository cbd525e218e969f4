"""Labelled questions, scored by the model as the questions of any request are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import starmap
from typing import Final

from app.calibration.labelled import LabelledDecision
from app.calibration.weighted_room import WeightedRoom
from app.decisions.answers import Decision, read_decisions
from app.decisions.orders import order_count
from app.decisions.plan import plan_decisions
from app.decisions.question import Question
from app.requests.concurrently import all_of
from app.schemas.bounds import MAX_PATH_TOKENS
from app.schemas.debias import Debias
from app.schemas.request import ServingOptions
from app.schemas.response import Usage
from app.service import ScoringService
from model_runtime import (
    ChainruleError,
    ForwardFailed,
    InvalidQuery,
    LogprobResult,
    NonFiniteLogits,
    QueryResult,
)

LINES_AT_ONCE: Final = 16
"""Whose questions are tokenized and scored at the same time; fewer where these are long."""

PROMPT_TOKENS: Final = 512
"""What the prompt's own words, and the signs between options, come to for one path."""


@dataclass(frozen=True, slots=True)
class LabelledInput:
    """A question about an input.

    Attributes:
        text: the input, as the prompt shows it.
        question: its ``param`` is the field that errors name.
        right: index of the option that is right.
        param: the field of the whole.
    """

    text: str
    question: Question
    right: int
    param: str


async def score_labelled(
    service: ScoringService,
    options: ServingOptions,
    labelled: Sequence[LabelledInput],
    debias: Debias,
) -> tuple[list[LabelledDecision], Usage]:
    """What the model says to each labelled question, in order, and what that cost together.

    Raises:
        InvalidQuery: a question cannot be asked; it names the line.
        ForwardFailed: the model failed at a question, or gave an option no probability; it names
            the line.
        DeadlineExceeded: the time ran out over all of them.
    """
    deadline = service.deadline(options)
    parts, room = service.for_parts(), WeightedRoom(MAX_PATH_TOKENS, LINES_AT_ONCE)
    refused: dict[int, InvalidQuery | ForwardFailed] = {}

    async def score(place: int, one: LabelledInput) -> tuple[LabelledDecision, Usage] | None:
        async with room.take(_most_tokens(one, debias)):
            if refused:
                return None
            plan = partial(plan_decisions, one.text, [one.question], debias)
            try:
                found = await parts.score_paths(options, plan, deadline)
                (decision,) = read_decisions(found.plan, list(map(_scored, found.answers)))
                _check_finite(decision)
            except (InvalidQuery, ForwardFailed) as error:
                refused[place] = _at_line(error, one)
                return None
            return LabelledDecision(one.question.kind, decision.logprobs, one.right), found.usage

    answers = await all_of(starmap(score, enumerate(labelled)))
    if refused:
        # They begin in order, so that of all that cannot be asked the first one is among these.
        raise refused[min(refused)]
    scored = [answer for answer in answers if answer is not None]
    return [decision for decision, _ in scored], _sum([usage for _, usage in scored])


def _most_tokens(one: LabelledInput, debias: Debias) -> int:
    """An upper bound for the tokens of all its paths: one stands for a byte at least."""
    options = one.question.options
    texts = [one.text, one.question.instructions or ""]
    texts += [text for option in options for text in (option.text, option.description or "")]
    listed = sum(len(text.encode("utf-8", "replace")) for text in texts)
    longest = max(len(option.text.encode("utf-8", "replace")) for option in options)
    paths = len(options) * order_count(one.question, debias)
    return paths * (listed + longest + PROMPT_TOKENS)


def _scored(answer: QueryResult) -> LogprobResult:
    if isinstance(answer, ChainruleError):
        raise answer
    return answer


def _check_finite(decision: Decision) -> None:
    if -math.inf in decision.logprobs:
        raise NonFiniteLogits("the model gives an option no probability at all")


def _at_line(
    error: InvalidQuery | ForwardFailed, one: LabelledInput
) -> InvalidQuery | ForwardFailed:
    if error.param == "model":
        return error
    own = error.param == "input"
    return error.at(f"{one.param}.input" if own else one.question.param)


def _sum(spent: Sequence[Usage]) -> Usage:
    return Usage(**{name: sum(getattr(one, name) for one in spent) for name in Usage.model_fields})
