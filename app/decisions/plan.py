"""Questions in token ids.

Every option of every question is a path of its own behind the question's prompt, scored to its
end, so that an option which begins another one can lose to it. All of them go to the model
together, and what they share is computed once: the input for all questions and orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

from app.decisions.orders import Debias, order_count, orders_of
from app.decisions.prompts import ChatFrame, question_text, read_turn, shared_text
from app.decisions.question import Question
from app.requests.encoding import encode_in_chunks
from app.requests.worker_threads import check_wanted
from app.schemas.bounds import MAX_DECISION_PATHS, MAX_PATH_TOKENS
from app.scoring.token_paths import PathQueries
from model_runtime import InvalidQuery, LogprobQuery, ModelInfo, PathTooLong, Tokenizer

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DecisionPlan:
    """What the queries of some questions stand for: by question, by order, by option as sent.

    Attributes:
        questions: as they were asked.
        order_counts: [questions] in how many orders the options of each are shown.
        debias: which orders these are.
    """

    questions: tuple[Question, ...]
    order_counts: tuple[int, ...]
    debias: Debias

    def param(self, index: int) -> str:
        """The field of the question that the query with this index belongs to."""
        paths = map(_paths, self.questions, self.order_counts)
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
    plan = _checked_plan(questions, debias)
    turn = read_turn(tokenizer, info)
    shared = turn.before + _encoded(tokenizer, shared_text(input_text), "input")
    if len(shared) >= info.max_model_len:
        raise PathTooLong(
            f"{len(shared)} tokens are too many; the model takes {info.max_model_len} with "
            "question and answer",
            "input",
        )
    options = _options(tokenizer, turn, questions)
    prompts = _prompts(tokenizer, turn, plan)
    _check_tokens(len(shared), prompts, options)
    scored = sum(
        len(own) * sum(map(len, those)) for own, those in zip(prompts, options, strict=True)
    )
    ends = sum(map(_paths, questions, plan.order_counts)) if turn.end_ids is not None else 0
    return PathQueries(
        queries=[
            LogprobQuery(prompt + ids, len(prompt), turn.end_ids)
            for own, those in zip(prompts, options, strict=True)
            for prompt in (shared + one for one in own)
            for ids in those
        ],
        plan=plan,
        prompt_tokens=len(shared) + sum(map(len, chain.from_iterable(prompts))),
        scored_tokens=scored + ends,
    )


def _checked_plan(questions: Sequence[Question], debias: Debias) -> DecisionPlan:
    counts = tuple(order_count(question, debias) for question in questions)
    for question, paths in zip(questions, accumulate(map(_paths, questions, counts)), strict=True):
        if paths > MAX_DECISION_PATHS:
            raise InvalidQuery(
                f"with it there are {paths} options in all orders; a request may have "
                f"{MAX_DECISION_PATHS}",
                question.param,
            )
    return DecisionPlan(tuple(questions), counts, debias)


def _paths(question: Question, orders: int) -> int:
    return len(question.options) * orders


def _encoded(tokenizer: Tokenizer, text: str, param: str) -> Ids:
    tokenizer.check_text(text, param)
    return tuple(tokenizer.encode(text))


def _prompts(tokenizer: Tokenizer, turn: ChatFrame, plan: DecisionPlan) -> list[list[Ids]]:
    """For each question what stands behind the input, in each of its orders."""
    orders = [orders_of(question, plan.debias) for question in plan.questions]
    texts: list[str] = []
    for question, those in zip(plan.questions, orders, strict=True):
        check_wanted()
        tokenizer.check_text(question_text(question, those[0]), question.param)
        texts += [question_text(question, order) for order in those]
    encoded = iter(encode_in_chunks(tokenizer, texts))
    return [[(*next(encoded), *turn.after) for _ in those] for those in orders]


def _options(
    tokenizer: Tokenizer, turn: ChatFrame, questions: Sequence[Question]
) -> list[list[Ids]]:
    """The scored tokens of each option, without the end that ``targets`` ask for."""
    for question in questions:
        if turn.end_ids is None and any("\n" in option.text for option in question.options):
            raise InvalidQuery(
                "an option holds a line break, which is what ends an answer of a model "
                "without a chat template",
                question.param,
            )
    texts = [[turn.option_prefix + option.text for option in one.options] for one in questions]
    encoded = iter(encode_in_chunks(tokenizer, list(chain.from_iterable(texts))))
    found = [[(*next(encoded), *turn.option_suffix) for _ in those] for those in texts]
    for question, those in zip(questions, found, strict=True):
        _require_distinct(question, those)
    return found


def _require_distinct(question: Question, options: Sequence[Ids]) -> None:
    places: dict[Ids, int] = {}
    for index, ids in enumerate(options):
        if places.setdefault(ids, index) != index:
            raise InvalidQuery(
                f"options {places[ids]} and {index} are the same to this model", question.param
            )


def _check_tokens(
    shared: int, prompts: Sequence[Sequence[Ids]], options: Sequence[Sequence[Ids]]
) -> None:
    tokens = sum(
        len(own) * sum(map(len, those)) + len(those) * sum(shared + len(one) for one in own)
        for own, those in zip(prompts, options, strict=True)
    )
    if tokens > MAX_PATH_TOKENS:
        raise InvalidQuery(
            f"their options with the prompts before them are {tokens} tokens; a "
            f"request may have {MAX_PATH_TOKENS}",
            "questions",
        )
