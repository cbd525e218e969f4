"""POST /v1/systemone over a law of letters: what is shown, what is answered, what is let pass."""

from __future__ import annotations

import math
from typing import Any

import httpx
import pytest

from tests.app.compat.decisions.decision_calls import chat_engine, prompts
from tests.app.compat.systemone.systemone_calls import NOUL, ask, choice, post, refusal, score
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine() -> FakeEngine:
    """The law of letters, with a chat template."""
    return chat_engine()


async def test_answers_stand_under_the_names_of_their_questions(
    client: httpx.AsyncClient,
) -> None:
    """Each of its kind, in the request's order, with exactly the fields that clients check."""
    questions = {"é": NOUL, "": choice(a=None, ab=None, x=None), "a.b": score("low", "high")}
    answer = await ask(client, questions=questions)
    assert list(answer["answers"]) == list(questions)
    noul, chosen, scored = answer["answers"].values()
    # log P(yes, end) = log 1/128 and log P(no, end) = log 1/64.
    assert noul == {"type": "noul", "noul": pytest.approx(1 / 3)}
    assert list(chosen) == ["type", "choice", "confidence", "probabilities"]
    assert chosen["probabilities"] == {
        "a": pytest.approx(1 / 6),
        "ab": pytest.approx(1 / 2),
        "x": pytest.approx(1 / 3),
    }
    assert list(chosen["probabilities"]) == ["a", "ab", "x"]
    assert chosen["choice"] == "ab"
    assert chosen["confidence"] == pytest.approx((3 / 2 - 1) / 2)
    assert list(scored) == ["type", "score", "confidence", "legend", "probabilities"]
    assert scored["legend"] == {"0": "low", "1": "high"}
    assert list(scored["probabilities"]) == ["0", "1"]
    assert scored["score"] == pytest.approx(scored["probabilities"]["1"])
    assert math.fsum(scored["probabilities"].values()) == pytest.approx(1, abs=1e-12)
    assert answer["model"] == "org/toy"
    assert answer["usage"]["output_tokens"] == 0 < answer["usage"]["input_tokens"]


async def test_one_option_and_one_level_are_certain(client: httpx.AsyncClient) -> None:
    """There is nothing else that the answer could be."""
    answers = (await ask(client, questions={"a": choice(x=None), "b": score("low")}))["answers"]
    assert answers["a"]["probabilities"] == {"x": 1.0} and answers["a"]["choice"] == "x"
    assert answers["b"]["probabilities"] == {"0": 1.0} and answers["b"]["score"] == 0.0
    assert [answer["confidence"] for answer in answers.values()] == [1.0, 1.0]


CONTENTS = [
    ("", ""),
    ("It is <|so|>.", "It is <|so|>."),
    ({}, "{}"),
    ([], "[]"),
    ({"b": [1, 2.5, None, True], "a": {"é": "x"}}, '{"b":[1,2.5,null,true],"a":{"é":"x"}}'),
    (["a", {"b": 5}], '["a",{"b":5}]'),
]


@pytest.mark.parametrize(("content", "text"), CONTENTS)
async def test_text_objects_and_arrays_are_shown(
    engine: FakeEngine, client: httpx.AsyncClient, content: Any, text: str
) -> None:
    """Text as it is and the rest as JSON: as the state, as instructions and as criteria."""
    if content:
        questions: dict[str, Any] = {
            "a": {"type": "noul", "instructions": content},
            "b": {"type": "choice", "criteria": {"x": content, "y": None}},
            "c": {"type": "score", "criteria": [content, "high"]},
            "d": {"type": "noul", "criteria": {"true": content, "false": None}},
            "e": {"type": "noul", "criteria": {"false": content}},
        }
        answer = await ask(client, questions=questions)
        assert answer["answers"]["c"]["legend"] == {"0": content, "1": "high"}
        shown = prompts(engine)
        assert [count.count(text) for count in shown] == [1] * 5
        places = [f"Statement: {text}\n", f" x: {text}\n", f" 0: {text}\n", f" yes: {text}\n"]
        for place, prompt in zip([*places, f" no: {text}"], shown, strict=True):
            assert place in prompt
    engine.queries.clear()
    await ask(client, state=content)
    (prompt,) = prompts(engine)
    assert f"\n\n{text}\n\nThat is the end" in prompt


async def test_what_is_null_is_what_is_absent(client: httpx.AsyncClient) -> None:
    """Of all that a request may leave out."""
    full = {
        "a": {"type": "noul", "instructions": "It is so.", "criteria": None},
        "b": {"type": "choice", "instructions": None, "criteria": {"x": None, "y": None}},
        "c": {"type": "noul", "instructions": None, "criteria": {"true": "yes", "false": None}},
    }
    bare = {
        "a": {"type": "noul", "instructions": "It is so."},
        "b": {"type": "choice", "criteria": {"x": None, "y": None}},
        "c": {"type": "noul", "criteria": {"true": "yes"}},
    }
    settings = dict.fromkeys(
        ("model", "assets", "debias", "priority", "timeout_ms", "cache_salt", "unheard_of")
    )
    one, other = await ask(client, questions=full, **settings), await ask(client, questions=bare)
    assert one["answers"] == other["answers"]


@pytest.mark.parametrize("blank", ["", " \n", {}, []])
async def test_what_is_blank_is_what_is_absent(
    engine: FakeEngine, client: httpx.AsyncClient, blank: Any
) -> None:
    """The model is asked the same; the legend has the level as it was sent."""
    shown: list[list[str]] = []
    for absent in (blank, None):
        engine.queries.clear()
        questions: dict[str, Any] = {
            "a": {**NOUL, "criteria": {"true": "so", "false": absent}},
            "b": {"type": "noul", "instructions": absent, "criteria": {"false": "not so"}},
            "c": {"type": "choice", "instructions": absent, "criteria": {"x": absent, "y": "it"}},
        }
        await ask(client, questions=questions)
        shown.append(prompts(engine))
    assert shown[0] == shown[1]
    level = (await ask(client, questions={"how": score(blank, "high")}))["answers"]["how"]
    assert level["legend"] == {"0": blank, "1": "high"}


async def test_further_keys_have_no_effect(client: httpx.AsyncClient) -> None:
    """As its own servers have it; a key of a question is refused, as it was meant for us."""
    plain = await ask(client)
    more = await ask(client, temperature=0.3, metadata={"a": [1]}, user="somebody", assets={})
    assert more["answers"] == plain["answers"]
    error = await refusal(client, questions={"so": {**NOUL, "instruction": "x"}})
    assert error["param"] == "questions.so.instruction"


@pytest.mark.parametrize("model", ["jev-latest", "org/toy", None])
async def test_the_served_model_answers_to_its_name_and_the_clients_default(
    client: httpx.AsyncClient, model: str | None
) -> None:
    """The answer says who answered."""
    assert (await ask(client, model=model))["model"] == "org/toy"


async def test_another_model_is_not_found(client: httpx.AsyncClient) -> None:
    """404, as on every route."""
    error = await refusal(client, 404, model="jev-preview")
    assert (error["param"], error["code"]) == ("model", "model_not_found")


async def test_the_request_has_an_id(client: httpx.AsyncClient) -> None:
    """Under its clients' own name, on answers and refusals and on the list of models."""
    answers = [await post(client), await post(client, state=5), await client.get("/v1/models")]
    assert [answer.status_code for answer in answers] == [200, 422, 200]
    for answer in answers:
        assert answer.headers["x-typesafe-request-id"] == answer.headers["x-request-id"]
    own = await post(client, {"X-Request-Id": "mine"})
    assert own.headers["x-typesafe-request-id"] == "mine"
    assert "x-typesafe-request-id" not in (await client.post("/v1/score", json={})).headers


TEAM = {"team": choice(a=None, ab=None, x=None), "so": NOUL, "how": score("low", "high")}


async def test_orders_are_told_by_name(client: httpx.AsyncClient) -> None:
    """With ``debias`` each answer says how far the orders ranged; without it, nothing."""
    answers = (await ask(client, questions=TEAM, debias="cyclic"))["answers"]
    team, so, how = (answers[name]["orders"] for name in TEAM)
    assert (team["count"], so["count"], how["count"]) == (3, 2, 2)
    assert list(team["ranges"]) == ["a", "ab", "x"] and list(how["ranges"]) == ["0", "1"]
    assert so["range"]["lowest"] <= answers["so"]["noul"] <= so["range"]["highest"]
    assert {team["flipped"], so["flipped"], how["flipped"]} <= {True, False}
    plain = (await ask(client, questions=TEAM))["answers"]
    assert all("orders" not in answer for answer in plain.values())


@pytest.mark.parametrize(
    ("field", "header", "setting", "orders"),
    [
        (None, None, "none", None),
        (None, None, "cyclic", 3),
        (None, "all", "cyclic", 6),
        (None, "none", "cyclic", None),
        ("cyclic", "all", "none", 3),
        ("none", "all", "cyclic", None),
    ],
)
async def test_the_field_goes_before_the_header_and_that_before_the_setting(
    engine: FakeEngine, field: str | None, header: str | None, setting: str, orders: int | None
) -> None:
    """Of the orders in which options are shown."""
    headers = {} if header is None else {"X-Chainrule-Debias": header}
    async with client_of(shell_app(engine, decision_debias=setting)) as client:
        answer = await ask(client, headers, questions=TEAM, debias=field)
    assert answer["answers"]["team"].get("orders", {}).get("count") == orders


async def test_a_header_that_is_no_order_is_refused(client: httpx.AsyncClient) -> None:
    """By the header's name."""
    response = await post(client, {"X-Chainrule-Debias": "random"})
    assert response.status_code == 422
    assert response.json()["error"]["param"] == "X-Chainrule-Debias"
