"""POST /v1/decisions as a call, over a law whose options are single letters."""

from __future__ import annotations

from typing import Any

import httpx

from app.compat.decisions.questions import input_text, questions_of
from app.compat.decisions.request import DecisionRequest
from app.decisions.plan import DecisionPlan, plan_decisions
from app.scoring.token_paths import PathQueries
from model_runtime import ModelInfo, Tokenizer
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import BOS, END, STOP, FakeEngine, ToyTokenizer

LAW = {
    BOS: {"a": 0.5, "x": 0.25, "y": 0.0625, "n": 0.125},
    "a": {"b": 0.5, END: 0.125, STOP: 0.25},
    "b": {END: 0.75},
    "x": {END: 0.5},
    "y": {"e": 0.5},
    "e": {"s": 0.5},
    "s": {END: 0.5},
    "n": {"o": 0.5},
    "o": {END: 0.25},
    ":": {" yes": 0.5, " no": 0.25},
    " yes": {"\n": 0.5},
    " no": {"\n": 0.25},
}
"""``a`` begins ``ab``, which is more likely once both have to end."""

CHOICES = [{"value": "a"}, {"value": "ab"}, {"value": "x"}]


class ChatTokenizer(ToyTokenizer):
    """With a chat template, as ``render_chat`` renders it."""

    chat_template: str | None = "turns"


class PlainTokenizer(ToyTokenizer):
    """Of a model that was never taught to chat."""

    chat_template: str | None = None


def chat_engine(**info: Any) -> FakeEngine:
    """The law, with a chat template and room for a prompt."""
    return FakeEngine(LAW, tokenizer=ChatTokenizer(), **{"max_model_len": 1 << 16, **info})


def plain_engine(**tokenizer: Any) -> FakeEngine:
    """The law, without a chat template."""
    return FakeEngine(LAW, tokenizer=PlainTokenizer(**tokenizer), max_model_len=1 << 16)


def predicate(**fields: Any) -> dict[str, Any]:
    """A statement."""
    return {"type": "predicate", "instructions": "It is so.", **fields}


def choice(*values: str | bool, **fields: Any) -> dict[str, Any]:
    """A choice of these values, or of ``CHOICES``."""
    choices = [{"value": value} for value in values] or CHOICES
    return {"type": "choice", "instructions": "Which?", "choices": choices, **fields}


def score(*labels: str, **fields: Any) -> dict[str, Any]:
    """A scale."""
    levels = [{"label": label} for label in labels]
    return {"type": "score", "instructions": "How much?", "levels": levels, **fields}


COLOURS = choice("red", "green", "dark blue")


def labelled(count: int = 24) -> list[dict[str, Any]]:
    """So many labelled choices, and as many labelled predicates."""
    return [
        line
        for place in range(count)
        for line in (
            {"input": f"No. {place}", "question": COLOURS, "answer": ("red", "green")[place % 2]},
            {"input": f"No. {place}", "question": predicate(), "answer": place % 3 == 0},
        )
    ]


async def post(client: httpx.AsyncClient, *questions: Any, **body: Any) -> httpx.Response:
    """The response to questions about an input."""
    return await client.post(
        "/v1/decisions", json={"input": "it", "questions": list(questions), **body}
    )


async def decide(client: httpx.AsyncClient, *questions: Any, **body: Any) -> dict[str, Any]:
    """The answer to a request that succeeds."""
    response = await post(client, *questions, **body)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def decide_with(engine: FakeEngine, *questions: Any, **body: Any) -> dict[str, Any]:
    """Another engine's answer."""
    async with client_of(shell_app(engine)) as client:
        return await decide(client, *questions, **body)


async def refusal(
    client: httpx.AsyncClient, *questions: Any, status: int = 422, **body: Any
) -> dict[str, Any]:
    """The error object of a request that fails."""
    response = await post(client, *questions, **body)
    assert response.status_code == status, response.text
    return dict(response.json()["error"])


def prompts(engine: FakeEngine) -> list[str]:
    """The texts before the scored tokens of what the engine was asked, each once."""
    decode = engine.tokenizer.decode
    return list(dict.fromkeys(decode(q.tokens[: q.score_from]) for q in engine.queries))


def planned(
    body: dict[str, Any], tokenizer: Tokenizer, info: ModelInfo
) -> PathQueries[DecisionPlan]:
    """What a body asks a model."""
    request = DecisionRequest.model_validate(body)
    questions = questions_of(request)
    debias = request.debias or "none"
    return plan_decisions(input_text(request), questions, debias, tokenizer, info)
