"""The ``openai`` client's own ``decisions.create``, unmodified, against a real server."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.decision import (
    AnswerAnswerResourceChoice,
    AnswerAnswerResourcePredicate,
    AnswerAnswerResourceScore,
)

from tests.conftest import TinyFolder
from tests.end_to_end.live_server import LiveServer, live_server

pytestmark = pytest.mark.process

INPUT = "I was charged twice and nobody answers my mails. " * 4
QUESTIONS: list[Any] = [
    {"type": "predicate", "name": "angry", "instructions": "The customer is angry."},
    {
        "type": "choice",
        "name": "team",
        "instructions": [{"type": "input_text", "text": "Which team?"}],
        "choices": [
            {"value": "billing", "description": "Payments and refunds."},
            {"value": "billing and refunds"},
            {"value": True},
            {"value": "true"},
        ],
    },
    {
        "type": "score",
        "instructions": "How urgent?",
        "levels": [{"label": "low"}, {"label": "medium"}, {"label": "high"}],
    },
]


@pytest.fixture(scope="module")
def server(tiny_folder: TinyFolder) -> Iterator[LiveServer]:
    """A tiny model that can be asked many questions at once."""
    with live_server(model=tiny_folder("llama"), kv_cache_bytes="64MiB") as server:
        yield server


@pytest.fixture
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    """The client with another base URL, and nothing else that is not its own."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def model(client: openai.OpenAI) -> str:
    """The served model's name."""
    return client.models.list().data[0].id


def test_every_kind_of_question(client: openai.OpenAI, model: str) -> None:
    """Each kind of answer is read as its own type, in the order of the questions."""
    decision = client.decisions.create(model=model, input=INPUT, questions=QUESTIONS)
    angry, team, urgency = decision.answers
    assert isinstance(angry, AnswerAnswerResourcePredicate)
    assert angry.name == "angry" and 0 < angry.probability < 1
    assert isinstance(team, AnswerAnswerResourceChoice)
    values = [(type(one.value), one.value) for one in team.probabilities]
    assert values[2:] == [(bool, True), (str, "true")]
    best = max(team.probabilities, key=lambda one: one.probability)
    assert team.choice == best.value and type(team.choice) is type(best.value)
    assert team.confidence == pytest.approx((4 * best.probability - 1) / 3)
    assert math.fsum(one.probability for one in team.probabilities) == pytest.approx(1, abs=1e-12)
    assert isinstance(urgency, AnswerAnswerResourceScore)
    assert urgency.name is None
    mean = math.fsum(one.value * one.probability for one in urgency.probabilities)
    assert urgency.score == pytest.approx(mean)
    assert decision.model == model
    assert decision.usage.total_tokens == decision.usage.input_tokens > 0


def test_messages_and_settings_of_the_client(client: openai.OpenAI, model: str) -> None:
    """All that the client can say beside images and tools is taken."""
    decision = client.decisions.create(
        model=model,
        input=[
            {"role": "developer", "content": "Be fair."},
            {
                "role": "user",
                "type": "message",
                "content": [
                    {
                        "type": "input_text",
                        "text": INPUT,
                        "prompt_cache_breakpoint": {"mode": "explicit"},
                    },
                    {"type": "input_json", "data": [{"order": 5, "open": None}]},
                ],
            },
            {
                "role": "assistant",
                "phase": "commentary",
                "content": [{"type": "output_text", "text": "I see."}],
            },
        ],
        questions=QUESTIONS,
        prompt_cache_key="tenant",
        prompt_cache_options={"mode": "implicit", "ttl": "30m"},
        safety_identifier="somebody",
    )
    assert [answer.type for answer in decision.answers] == ["predicate", "choice", "score"]


def test_several_orders_by_an_extra_field(client: openai.OpenAI, model: str) -> None:
    """``extra_body`` asks for them; the client's own types hold what they did to the answer."""
    asked: dict[str, Any] = {"model": model, "input": INPUT, "questions": QUESTIONS}
    plain = client.decisions.create(**asked)
    decision = client.decisions.create(**asked, extra_body={"debias": "all"})
    found: list[Any] = [answer.model_dump()["orders"] for answer in decision.answers]
    assert [one["count"] for one in found] == [2, 24, 2]
    assert [len(one["ranges"]) for one in found] == [1, 4, 3]
    assert all("orders" not in answer.model_dump() for answer in plain.answers)
    before, angry = plain.answers[0], decision.answers[0]
    assert isinstance(before, AnswerAnswerResourcePredicate)
    assert isinstance(angry, AnswerAnswerResourcePredicate)
    assert before.probability in found[0]["ranges"][0].values()
    assert found[0]["ranges"][0]["lowest"] < angry.probability < found[0]["ranges"][0]["highest"]


def test_400_questions_over_one_input(client: openai.OpenAI, model: str) -> None:
    """The input is computed once for all of them, and again for none that come later."""
    questions = [
        {**QUESTIONS[0], "name": f"{i}", "instructions": f"It is {i}."} for i in range(400)
    ]
    text = "A long input that many questions are about. " * 10
    first = client.decisions.create(model=model, input=text, questions=questions)
    assert [answer.name for answer in first.answers] == [f"{i}" for i in range(400)]
    usage: Any = first.usage
    assert usage.computed_tokens <= usage.input_tokens + usage.scored_tokens
    alone: Any = client.decisions.create(model=model, input=text + "!", questions=questions[:1])
    shared = alone.usage.input_tokens
    assert usage.input_tokens < 400 * shared / 2
    later = client.decisions.create(
        model=model, input=text, questions=[{**questions[0], "instructions": "Another one."}]
    )
    assert later.usage.input_tokens_details.cached_tokens > shared / 3


def test_the_asynchronous_client_gets_the_same(server: LiveServer, model: str) -> None:
    """Many at once, each to the bit what one alone gets."""

    async def ask() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            calls = [
                client.decisions.create(model=model, input=INPUT, questions=[one])
                for one in QUESTIONS * 3
            ]
            return [decision.answers[0] for decision in await asyncio.gather(*calls)]

    found = asyncio.run(ask())
    assert found[:3] == found[3:6] == found[6:]


def test_refusals_are_the_clients_own_errors(client: openai.OpenAI, model: str) -> None:
    """What is not served raises the client's exception, which carries the field."""
    image: Any = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.decisions.create(
            model=model, input=[{"role": "user", "content": [image]}], questions=QUESTIONS
        )
    assert refused.value.param == "input.0.content.0"
    assert "input_image" in refused.value.message
    with pytest.raises(openai.NotFoundError) as missing:
        client.decisions.create(model="gpt-6-luna", input="x", questions=QUESTIONS)
    assert missing.value.code == "model_not_found"
