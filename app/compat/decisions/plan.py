"""POST /v1/decisions in token ids, and what the model's answers to them mean.

Every option of every question is a path of its own behind the question's prompt, scored to its
end, so that an option which begins another one can lose to it. All of them go to the model
together, and what they share is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain, islice

from app.compat.decisions.prompts import (
    ChatFrame,
    option_texts,
    question_text,
    read_turn,
    shared_text,
)
from app.compat.decisions.request import (
    ChoiceQuestion,
    DecisionRequest,
    PredicateQuestion,
    Question,
)
from app.compat.decisions.response import (
    Answer,
    ChoiceAnswer,
    LevelProbability,
    OptionProbability,
    PredicateAnswer,
    ScoreAnswer,
)
from app.requests.encoding import encode_in_chunks
from app.requests.worker_threads import check_wanted
from app.schemas.bounds import MAX_PATH_TOKENS
from app.scoring.token_paths import PathQueries
from model_runtime import (
    InvalidQuery,
    LogprobQuery,
    LogprobResult,
    ModelInfo,
    PathTooLong,
    Tokenizer,
    log_sum,
    probabilities,
    total,
)

Ids = tuple[int, ...]


def plan_decisions(
    request: DecisionRequest, tokenizer: Tokenizer, info: ModelInfo
) -> PathQueries[list[int]]:
    """One query for each option, in order. Its meaning is how many each question has.

    Raises:
        DeadlineExceeded: the time ran out first.
        InvalidQuery: the input leaves no room for a question, a text or a question cannot be
            told in tokens, or all paths together are too long.
    """
    turn = read_turn(tokenizer, info)
    shared = turn.before + _encoded(tokenizer, shared_text(request), "input")
    if len(shared) >= info.max_model_len:
        raise PathTooLong(
            f"{len(shared)} tokens are too many; the model takes {info.max_model_len} with "
            "question and answer",
            "input",
        )
    prompts = [shared + own + turn.after for own in _questions(tokenizer, request.questions)]
    options = _options(tokenizer, turn, request.questions)
    counts = list(map(len, options))
    scored = sum(len(ids) for ids in chain.from_iterable(options))
    _check_paths(sum(len(one) * count for one, count in zip(prompts, counts, strict=True)) + scored)
    return PathQueries(
        queries=[
            LogprobQuery(prompt + ids, len(prompt), turn.end_ids)
            for prompt, those in zip(prompts, options, strict=True)
            for ids in those
        ],
        plan=counts,
        prompt_tokens=len(shared) + sum(len(prompt) - len(shared) for prompt in prompts),
        scored_tokens=scored + (0 if turn.end_ids is None else sum(counts)),
    )


def question_of(counts: Sequence[int], index: int) -> str:
    """The field of the question that the query with this index belongs to."""
    for place, count in enumerate(counts):
        index -= count
        if index < 0:
            return f"questions.{place}"
    raise RuntimeError("this is a bug: there are more answers than options")


def read_decisions(questions: Sequence[Question], answers: Sequence[LogprobResult]) -> list[Answer]:
    """The answer to each question, from those to all options in order."""
    rest = iter(answers)
    return [
        _answer(question, _shares(list(islice(rest, len(option_texts(question))))))
        for question in questions
    ]


def _encoded(tokenizer: Tokenizer, text: str, param: str) -> Ids:
    tokenizer.check_text(text, param)
    return tuple(tokenizer.encode(text))


def _questions(tokenizer: Tokenizer, questions: Sequence[Question]) -> list[Ids]:
    texts = [question_text(question) for question in questions]
    for index, text in enumerate(texts):
        check_wanted()
        tokenizer.check_text(text, f"questions.{index}")
    return list(map(tuple, encode_in_chunks(tokenizer, texts)))


def _options(
    tokenizer: Tokenizer, turn: ChatFrame, questions: Sequence[Question]
) -> list[list[Ids]]:
    """The scored tokens of each option, without the end that ``targets`` ask for."""
    texts = [option_texts(question) for question in questions]
    if turn.end_ids is None:
        _refuse_line_breaks(texts)
    flat = [turn.option_prefix + text for text in chain.from_iterable(texts)]
    encoded = iter(encode_in_chunks(tokenizer, flat))
    return [[(*next(encoded), *turn.option_suffix) for _ in those] for those in texts]


def _refuse_line_breaks(texts: Sequence[Sequence[str]]) -> None:
    for index, those in enumerate(texts):
        if any("\n" in text for text in those):
            param = f"questions.{index}"
            raise InvalidQuery(
                "an option holds a line break, which is what ends an answer of a model "
                "without a chat template",
                param,
            )


def _check_paths(tokens: int) -> None:
    if tokens > MAX_PATH_TOKENS:
        raise InvalidQuery(
            f"their options with the prompts before them are {tokens} tokens; a "
            f"request may have {MAX_PATH_TOKENS}",
            "questions",
        )


def _shares(answers: Sequence[LogprobResult]) -> list[float]:
    """Softmax over the options of their log-probabilities, ends included."""
    return [share for share in probabilities(list(map(_logprob, answers))) if share is not None]


def _logprob(answer: LogprobResult) -> float:
    if not answer.target_logprobs:
        return total(answer.logprobs)
    return total((*answer.logprobs, log_sum(answer.target_logprobs)))


def _answer(question: Question, shares: Sequence[float]) -> Answer:
    if isinstance(question, PredicateQuestion):
        return PredicateAnswer(name=question.name, probability=shares[0])
    if isinstance(question, ChoiceQuestion):
        values = [choice.value for choice in question.choices]
        return ChoiceAnswer(
            name=question.name,
            choice=values[shares.index(max(shares))],
            confidence=_confidence(shares),
            probabilities=[
                OptionProbability(value=value, probability=share)
                for value, share in zip(values, shares, strict=True)
            ],
        )
    return ScoreAnswer(
        name=question.name,
        score=math.fsum(value * share for value, share in enumerate(shares)),
        confidence=_confidence(shares),
        probabilities=[
            LevelProbability(value=value, label=level.label, probability=share)
            for value, (level, share) in enumerate(zip(question.levels, shares, strict=True))
        ],
    )


def _confidence(shares: Sequence[float]) -> float:
    """How far the largest of n shares is on the way from 1/n to 1."""
    count = len(shares)
    return max(0.0, (count * max(shares) - 1) / (count - 1))
