"""POST /v1/score with vLLM's pairs of texts: relevance as /v1/rerank has it, in order."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio

NAMES = [("text_1", "text_2"), ("queries", "documents"), ("data_1", "data_2")]
PLAIN = "{document}{query}"
"""A prompt whose numbers can be read off the law."""

all_names = pytest.mark.parametrize(("first", "second"), NAMES)


@pytest.fixture
def engine() -> FakeEngine:
    """It is the law that answers."""
    return FakeEngine()


async def post(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    """The response to pairs under the plain prompt."""
    return await client.post("/v1/score", json={"template": PLAIN, **body})


async def scores(client: httpx.AsyncClient, **body: Any) -> list[float]:
    """What the pairs are given, in order."""
    response = await post(client, **body)
    assert response.status_code == 200, response.text
    data = response.json()["data"]
    assert [one["index"] for one in data] == list(range(len(data)))
    return [one["score"] for one in data]


async def refused(client: httpx.AsyncClient, **body: Any) -> str | None:
    """The field that a request is refused for."""
    response = await post(client, **body)
    assert response.status_code == 422, response.text
    param: str | None = response.json()["error"]["param"]
    return param


@all_names
async def test_one_with_many(client: httpx.AsyncClient, first: str, second: str) -> None:
    """A lone first text is scored with each of the second; a lone second text is a list too."""
    found = await scores(client, **{first: " is", second: ["a", "it"]})
    assert found == [pytest.approx(0.25 / 271), pytest.approx(0.5)]
    assert await scores(client, **{first: [" is"], second: "it"}) == found[1:]


@all_names
async def test_many_with_as_many(client: httpx.AsyncClient, first: str, second: str) -> None:
    """Each first text goes with the second at its place, and a pair's score is its own."""
    body = {first: [" yes", " is", " no"], second: ["it is", "it", "it is"]}
    found = await scores(client, **body)
    assert found == pytest.approx([0.5, 0.5, 0.25])
    alone = [
        await scores(client, **{first: one, second: other})
        for one, other in zip(body[first], body[second], strict=True)
    ]
    assert [score for (score,) in alone] == found


async def test_the_answer_around_the_scores(client: httpx.AsyncClient) -> None:
    """It has the shape of generative scoring's, and the id that was asked for."""
    answer = (await post(client, text_1=" is", text_2=["it"], request_id="mine", priority=3)).json()
    assert (answer["id"], answer["object"], answer["model"]) == ("score-mine", "list", "org/toy")
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] == 2


async def test_neutral_values_are_accepted(client: httpx.AsyncClient) -> None:
    """What asks for nothing else than what is done."""
    neutral = {"user": "me", "use_activation": True, "truncate_prompt_tokens": None}
    assert await scores(client, text_1=" is", text_2=["it"], **neutral) == [pytest.approx(0.5)]


@all_names
async def test_vllms_other_path(client: httpx.AsyncClient, first: str, second: str) -> None:
    """/score gives what /v1/score gives for the same pairs."""
    body = {"template": PLAIN, first: " is", second: ["a", "it"]}
    answers = [(await client.post(path, json=body)).json() for path in ("/score", "/v1/score")]
    assert answers[0]["data"] == answers[1]["data"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"context": "it is", "candidates": [" yes"]}, "text_1"),
        ({"query": "a", "items": ["b"], "label_token_ids": [1]}, "text_1"),
        ({"queries": "a", "documents": ["b"], "context": "it"}, "context"),
        ({"queries": "a"}, "documents"),
    ],
)
async def test_the_other_path_takes_pairs_only(
    client: httpx.AsyncClient, body: dict[str, Any], param: str
) -> None:
    """Our own body and SGLang's belong to /v1/score: a 422 that names what is missing here."""
    response = await client.post("/score", json=body)
    assert response.status_code == 422, response.text
    assert response.json()["error"]["param"] == param


BAD: list[tuple[dict[str, Any], str]] = [
    ({"text_1": ["a", "b"], "text_2": ["a", "b", "c"]}, "text_2"),
    ({"text_1": ["a", "b"], "text_2": "c"}, "text_2"),
    ({"text_1": "a"}, "text_2"),
    ({"text_1": [], "text_2": ["a"]}, "text_1"),
    ({"text_1": "a", "documents": ["a"]}, "documents"),
    ({"queries": "a", "documents": ["a"], "context": "a"}, "context"),
    ({"queries": "", "documents": ["a"]}, "queries"),
    ({"queries": ["a", ""], "documents": ["a", "b"]}, "queries.1"),
    ({"data_1": ["a", "b", "a"], "data_2": ["a", "b", ""]}, "data_2.2"),
    ({"data_1": "a", "data_2": ["a", "b" * 100]}, "data_2.1"),
    ({"text_1": "a", "text_2": ["b"], "truncate_prompt_tokens": 5}, "truncate_prompt_tokens"),
    ({"text_1": "a", "text_2": ["b"], "use_activation": False}, "use_activation"),
    ({"text_1": "a", "text_2": ["b"], "labels": ["yes", "no"]}, "labels"),
    ({"text_1": "a", "text_2": ["b"], "encoding_format": "base64"}, "encoding_format"),
]


@pytest.mark.parametrize(("body", "param"), BAD)
async def test_bad_input_is_named(
    client: httpx.AsyncClient, body: dict[str, Any], param: str
) -> None:
    """A pair that cannot be scored refuses the request, by its own index."""
    assert await refused(client, **body) == param


async def test_the_operators_bound_holds() -> None:
    """No more pairs than candidates are allowed."""
    async with client_of(shell_app(FakeEngine(), max_candidates=2)) as client:
        assert len(await scores(client, text_1="a", text_2=["b", "c"])) == 2
        assert await refused(client, text_1="a", text_2=["b", "c", "d"]) == "text_2"


async def test_the_text_of_all_pairs_is_bounded(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the prompts around them."""
    monkeypatch.setattr("app.compat.rerank.plan.MAX_RERANK_BYTES", 20)
    assert await refused(client, text_1="a", text_2=["b" * 10, "c" * 10]) == "text_2"
