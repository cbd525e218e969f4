"""POST /v1/decisions on a real (tiny) model: the native route's numbers, and no more work."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from model_runtime import Engine, EngineConfig, probabilities
from tests.app.calls import call
from tests.app.compat.decisions.decision_calls import choice, decide, planned, predicate, score
from tests.app.conftest import client_of, shell_app
from tests.conftest import TinyFolder

pytestmark = pytest.mark.anyio

INPUT = "It is raining and it isn't cold. Is the sky blue? The capital of Japan is Tokyo. " * 8
QUESTIONS = [
    predicate(),
    choice("Paris", "Paris. The capital", "Tokyo", True),
    score("low", "high", "higher"),
]


@pytest.fixture
def engine(tiny_folder: TinyFolder) -> Engine:
    """A tiny model with a chat template."""
    return Engine.load(EngineConfig(model=str(tiny_folder("llama")), kv_cache_bytes=8 << 20))


@pytest.fixture
async def client(engine: Engine, anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    """A server of it that keeps no scores."""
    async with client_of(shell_app(engine, score_cache_bytes=0)) as client:
        yield client


def shares(answer: dict[str, Any]) -> list[float]:
    """The probabilities of an answer's options."""
    if answer["type"] == "predicate":
        return [answer["probability"]]
    return [one["probability"] for one in answer["probabilities"]]


def texts(answer: dict[str, Any]) -> list[str]:
    """What the options of an answer say."""
    if answer["type"] == "predicate":
        return ["yes", "no"]
    if answer["type"] == "score":
        return [one["label"] for one in answer["probabilities"]]
    return ["true" if one["value"] is True else one["value"] for one in answer["probabilities"]]


async def test_the_numbers_are_those_of_the_native_route(
    client: httpx.AsyncClient, engine: Engine
) -> None:
    """An option's log-probability is /v1/score's of the same chat with its end, to the bit."""
    answer = await decide(client, *QUESTIONS, input=INPUT)
    plan = planned({"input": INPUT, "questions": QUESTIONS}, engine.tokenizer, engine.info)
    first = 0
    for question, one in zip(plan.plan.questions, answer["answers"], strict=True):
        count = len(question.options)
        query = plan.queries[first]
        rendered = engine.tokenizer.decode(query.tokens[: query.score_from])
        content = rendered.split("<|im_start|>user\n")[1].split("<|im_end|>")[0]
        native = await call(
            client,
            "score",
            context=[{"role": "user", "content": content}],
            candidates=texts(one),
            append_eos=True,
        )
        assert count == len(native["results"])
        assert native["boundary"]["start_token"] == query.score_from
        expected = probabilities([result["logprob"] for result in native["results"]])
        assert shares(one) == expected[: len(shares(one))]
        first += count


async def test_the_input_is_computed_once(client: httpx.AsyncClient, engine: Engine) -> None:
    """Many questions cost their own tokens each, and the input only once."""
    questions = [predicate(instructions=f"It is number {number}.") for number in range(40)]
    answer = await decide(client, *questions, input=INPUT)
    usage = answer["usage"]
    own = len(engine.tokenizer.encode(INPUT))
    # Of an option all tokens are fed but its end.
    assert usage["computed_tokens"] <= usage["input_tokens"] + usage["scored_tokens"] - 80
    assert usage["input_tokens"] < 2 * own + 40 * 90 < 40 * own
    again = (await decide(client, *questions[:5], input=INPUT))["usage"]
    assert again["computed_tokens"] < own
    assert again["input_tokens_details"]["cached_tokens"] > 0


async def test_questions_do_not_change_each_other(client: httpx.AsyncClient) -> None:
    """Alone or among others, in any order: an answer is the same to the bit."""
    together = await decide(client, *QUESTIONS, input=INPUT)
    shuffled = random.Random(3).sample(range(3), 3)
    other = await decide(client, *(QUESTIONS[i] for i in shuffled), input=INPUT)
    for place, index in enumerate(shuffled):
        assert other["answers"][place] == together["answers"][index]
        alone = await decide(client, QUESTIONS[index], input=INPUT)
        assert alone["answers"] == [together["answers"][index]]
