"""POST /v1/systemone on a real (tiny) model: the numbers of /v1/decisions, to the bit."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import zstandard

from model_runtime import Engine, EngineConfig
from tests.app.compat.systemone.systemone_calls import NOUL, ask, choice, refusal, score
from tests.app.conftest import client_of, shell_app
from tests.conftest import TinyFolder

pytestmark = pytest.mark.anyio

STATE = "It is raining and it isn't cold. The capital of Japan is Tokyo. " * 4
QUESTIONS: dict[str, Any] = {
    "so": NOUL,
    "city": choice(Paris=None, Tokyo="The capital of Japan.", Kyoto=None),
    "wet": score("dry", "wet", {"level": "soaked"}),
}
NATIVE: list[dict[str, Any]] = [
    {"type": "predicate", "instructions": "It is so."},
    {
        "type": "choice",
        "instructions": "Which?",
        "choices": [
            {"value": "Paris"},
            {"value": "Tokyo", "description": "The capital of Japan."},
            {"value": "Kyoto"},
        ],
    },
    {
        "type": "score",
        "instructions": "How much?",
        "levels": [
            {"label": "0", "description": "dry"},
            {"label": "1", "description": "wet"},
            {"label": "2", "description": '{"level":"soaked"}'},
        ],
    },
]


@pytest.fixture
async def client(tiny_folder: TinyFolder, anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    """A server of a tiny model with a chat template; who shows its key may keep calibrations."""
    engine = Engine.load(EngineConfig(model=str(tiny_folder("llama")), kv_cache_bytes=8 << 20))
    async with client_of(shell_app(engine, api_keys=("secret",))) as client:
        client.headers["Authorization"] = "Bearer secret"
        yield client


def shares(answer: dict[str, Any]) -> list[float]:
    """The probabilities of an answer of either route."""
    found = answer.get("probabilities", answer.get("noul", answer.get("probability")))
    if isinstance(found, dict):
        return list(found.values())
    return [found] if isinstance(found, float) else [one["probability"] for one in found]


@pytest.mark.parametrize("debias", ["none", "cyclic", "all"])
async def test_the_numbers_are_those_of_decisions(client: httpx.AsyncClient, debias: str) -> None:
    """Probabilities, choice, score, confidence, ranges and what they cost."""
    answer = await ask(client, state=STATE, questions=QUESTIONS, debias=debias)
    native = await client.post(
        "/v1/decisions", json={"input": STATE, "questions": NATIVE, "debias": debias}
    )
    decision = native.json()
    for one, other in zip(answer["answers"].values(), decision["answers"], strict=True):
        assert shares(one) == shares(other)
        for name in ("choice", "score", "confidence"):
            assert one.get(name) == other.get(name)
        orders, known = one.get("orders", {}), other.get("orders", {})
        assert {name: orders.get(name) for name in ("count", "flipped")} == {
            name: known.get(name) for name in ("count", "flipped")
        }
        ranges = [orders["range"]] if "range" in orders else [*orders.get("ranges", {}).values()]
        assert ranges == known.get("ranges", [])
    for name in ("input_tokens", "scored_tokens"):
        assert answer["usage"][name] == decision["usage"][name]


async def test_a_compressed_request_has_the_same_answer(client: httpx.AsyncClient) -> None:
    """To the bit, as its clients send it from 1,024 bytes on."""
    body = json.dumps({"state": STATE, "questions": QUESTIONS, "note": "n" * 2_000}).encode()
    answers = []
    for coding, sent in (
        ("identity", body),
        ("zstd", zstandard.compress(body)),
        ("gzip", gzip.compress(body)),
    ):
        headers = {"Content-Type": "application/json", "Content-Encoding": coding}
        response = await client.post("/v1/systemone", content=sent, headers=headers)
        assert response.status_code == 200
        answers.append(response.json()["answers"])
    assert answers[0] == answers[1] == answers[2]


async def test_what_the_model_has_no_room_for_is_named(client: httpx.AsyncClient) -> None:
    """The question that is too long behind the state, or the state that is by itself."""
    long = {**NOUL, "instructions": STATE * 20}
    error = await refusal(client, questions={"so": NOUL, "long": long})
    assert (error["param"], error["code"]) == ("questions.long", "context_length_exceeded")
    error = await refusal(client, state=STATE * 20)
    assert (error["param"], error["code"]) == ("state", "context_length_exceeded")


LINES = [
    {"input": f"No. {place}", "question": NATIVE[kind], "answer": answers[place % 2]}
    for kind, answers in enumerate(((True, False), ("Paris", "Tokyo"), ("0", "1")))
    for place in range(20)
]
"""Labelled questions of each kind, enough to fit a calibration."""


async def test_a_calibration_says_the_same_as_on_decisions(client: httpx.AsyncClient) -> None:
    """By the field or by the header, to the bit; under the names of the options."""
    fitted = await client.post(
        "/v1/calibrations", json={"lines": LINES, "name": "mine", "method": "temperature"}
    )
    assert fitted.status_code == 200, fitted.text
    answer = await ask(client, state=STATE, questions=QUESTIONS, calibration="mine")
    header = {"X-Chainrule-Calibration": "mine"}
    by_header = await ask(client, header, state=STATE, questions=QUESTIONS)
    assert answer["answers"] == by_header["answers"]
    assert answer["calibration"] == by_header["calibration"] == "mine"
    body = {"input": STATE, "questions": NATIVE, "calibration": "mine"}
    native = (await client.post("/v1/decisions", json=body)).json()["answers"]
    so, city, wet = answer["answers"].values()
    assert so["calibrated_probability"] == native[0]["calibrated_probability"]
    for one, other in ((city, native[1]), (wet, native[2])):
        expected = [option["calibrated_probability"] for option in other["probabilities"]]
        assert list(one["calibrated_probabilities"].values()) == expected
        assert one["calibrated_probabilities"].keys() == one["probabilities"].keys()
    for one, other in zip((so, city, wet), native, strict=True):
        assert (one["set"], one["abstain"]) == (other["set"], other["abstain"])


async def test_a_calibration_that_does_not_fit_is_refused(client: httpx.AsyncClient) -> None:
    """By its name where there is none, or of a header that is no name."""
    error = await refusal(client, 404, calibration="other")
    assert error["param"] == "calibration"
    response = await client.post(
        "/v1/systemone",
        json={"state": "it", "questions": {"so": NOUL}},
        headers={"X-Chainrule-Calibration": "/etc"},
    )
    assert response.json()["error"]["param"] == "X-Chainrule-Calibration"
