"""Questions as queries to the model.

Every option of every question is a path of its own behind the question's prompt, scored to its
end, so that an option which begins another one can lose to it. All of them go to the model
together, and what they share is computed once: the input for all questions, and a question for
all orders of its options.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from app.decisions.orders import Order, order_count, orders_of
from app.decisions.prompts import ChatFrame, read_turn, shared_text
from app.decisions.question import Question
from app.decisions.tokens import Ids, QuestionTokens, encode_questions
from app.requests.worker_threads import check_wanted
from app.schemas.bounds import MAX_DECISION_PATHS, MAX_PATH_TOKENS
from app.schemas.debias import Debias
from app.scoring.token_paths import PathQueries
from model_runtime import InvalidQuery, LogprobQuery, ModelInfo, PathTooLong, Tokenizer


@dataclass(frozen=True, slots=True)
class DecisionPlan:
    """What the queries of some questions stand for: by question, by order, by option as sent.

    Attributes:
        questions: as they were asked.
        orders: [questions] the orders in which the options of each are shown.
        debias: how these were chosen.
    """

    questions: tuple[Question, ...]
    orders: tuple[tuple[Order, ...], ...]
    debias: Debias

    def param(self, index: int) -> str:
        """The field of the question that the query with this index belongs to."""
        paths = [
            len(question.options) * len(orders)
            for question, orders in zip(self.questions, self.orders, strict=True)
        ]
        for question, end in zip(self.questions, accumulate(paths), strict=True):
            if index < end:
                return question.param
        raise RuntimeError("this is a bug: there are more answers than options")


def plan_decisions(
    input_text: str,
    questions: Sequence[Question],
    debias: Debias,
    tokenizer: Tokenizer,
    info: ModelInfo,
) -> PathQueries[DecisionPlan]:
    """One query for each option of each order of each question.

    Raises:
        DeadlineExceeded: the time ran out first.
        InvalidQuery: the input leaves no room for a question, a text or a question cannot be
            told in tokens, two options cannot be told apart, or there are too many orders, or
            paths, or tokens of all paths together. It names the question, or ``input``.
    """
    _check_paths(questions, debias)
    orders = tuple(tuple(orders_of(question, debias)) for question in questions)
    plan = DecisionPlan(tuple(questions), orders, debias)
    turn = read_turn(tokenizer, info)
    if turn.end_ids is None:
        _require_one_line(questions)
    text = shared_text(input_text)
    tokenizer.check_text(text, "input")
    shared = turn.before + tuple(tokenizer.encode(text))
    if len(shared) >= info.max_model_len:
        raise PathTooLong(
            f"{len(shared)} tokens are too many; the model takes {info.max_model_len} with "
            "question and answer",
            "input",
        )
    tokens = encode_questions(tokenizer, turn, questions, orders)
    costs = [_cost(turn, *one) for one in zip(tokens, orders, strict=True)]
    _check_tokens(questions, costs, len(shared))
    return PathQueries(
        queries=[*_queries(shared, turn, tokens, orders)],
        plan=plan,
        prompt_tokens=len(shared) + sum(cost.prompt for cost in costs),
        scored_tokens=sum(cost.scored for cost in costs),
    )


@dataclass(frozen=True, slots=True)
class _Cost:
    """Of one question in all orders of its options.

    Attributes:
        paths: how many there are.
        prompt: tokens behind the input and before the options, what is asked once for all orders.
        scored: tokens of the options, their ends included.
        held: tokens of all paths behind the input.
    """

    paths: int
    prompt: int
    scored: int
    held: int


def _cost(turn: ChatFrame, tokens: QuestionTokens, orders: Sequence[Order]) -> _Cost:
    check_wanted()
    listings = [tokens.listing_tokens(place, order) for place, order in enumerate(orders)]
    behind = sum(listings) + len(orders) * len(turn.after)
    paths = len(orders) * len(tokens.options)
    scored = len(orders) * sum(map(len, tokens.options))
    return _Cost(
        paths=paths,
        prompt=len(tokens.asked) + behind,
        scored=scored + (0 if turn.end_ids is None else paths),
        held=paths * len(tokens.asked) + len(tokens.options) * behind + scored,
    )


def _queries(
    shared: Ids,
    turn: ChatFrame,
    tokens: Sequence[QuestionTokens],
    orders: Sequence[Sequence[Order]],
) -> Iterator[LogprobQuery]:
    for one, those in zip(tokens, orders, strict=True):
        check_wanted()
        asked = shared + one.asked
        for place, order in enumerate(those):
            prompt = asked + one.listing(place, order) + turn.after
            for option in one.options:
                yield LogprobQuery(prompt + option, len(prompt), turn.end_ids)


def _check_paths(questions: Sequence[Question], debias: Debias) -> None:
    counts = [len(one.options) * order_count(one, debias) for one in questions]
    for question, paths in zip(questions, accumulate(counts), strict=True):
        if paths > MAX_DECISION_PATHS:
            raise InvalidQuery(
                f"with it there are {paths} options in all their orders; a request may have "
                f"{MAX_DECISION_PATHS}",
                question.param,
            )


def _check_tokens(questions: Sequence[Question], costs: Sequence[_Cost], shared: int) -> None:
    held = accumulate(cost.paths * shared + cost.held for cost in costs)
    for question, tokens in zip(questions, held, strict=True):
        if tokens > MAX_PATH_TOKENS:
            raise InvalidQuery(
                f"with it all options in all their orders, each with the prompt before it, are "
                f"{tokens} tokens; a request may have {MAX_PATH_TOKENS}",
                question.param,
            )


def _require_one_line(questions: Sequence[Question]) -> None:
    for question in questions:
        if any("\n" in option.text for option in question.options):
            raise InvalidQuery(
                "an option holds a line break, which is what ends an answer of a model "
                "without a chat template",
                question.param,
            )
