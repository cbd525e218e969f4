"""A service in this process answers as a server does, and fails as one."""

from __future__ import annotations

from typing import Any

import pytest

from app.cli.score.dataset.service_client import ServiceClient
from app.client import ApiError
from app.requests.limits import Limits
from app.schemas.score import ScoreRequest
from app.service import ScoringService
from model_runtime import EngineDied, EngineOverloaded, ForwardFailed
from tests.app.calls import NO, YES
from tests.app.cli.scoring import AppTransport
from tests.app.fake_engine import FakeEngine

NOT_COMPARED = {"id", "created", "timings_ms", "usage"}

pytestmark = pytest.mark.anyio


def client_of(engine: FakeEngine) -> ServiceClient:
    """A client of this engine."""
    return ServiceClient(ScoringService(engine, Limits()))  # type: ignore[arg-type]


def request(*candidates: Any, **fields: Any) -> ScoreRequest:
    """A request about these candidates."""
    return ScoreRequest(context="it is", candidates=list(candidates), **fields)


async def answer_of(engine: FakeEngine, body: ScoreRequest) -> tuple[int, dict[str, Any]]:
    """What the route answers to it."""
    import httpx

    async with httpx.AsyncClient(transport=AppTransport(engine), base_url="http://x") as client:
        answer = await client.post("/v1/score", json=body.model_dump(exclude_unset=True))
    return answer.status_code, answer.json()


@pytest.mark.parametrize("fields", [{}, {"token_logprobs": True}, {"compact": True}])
async def test_the_answer_is_the_routes(fields: dict[str, Any]) -> None:
    """To the bit, as JSON."""
    body = request(" yes", " no", "n't", **fields)
    found = await client_of(FakeEngine()).score(body)
    status, expected = await answer_of(FakeEngine(), body)
    assert status == 200
    written = found.model_dump(mode="json", exclude=NOT_COMPARED)
    assert written == {k: v for k, v in expected.items() if k not in NOT_COMPARED}


@pytest.mark.parametrize(
    "body",
    [
        request("", all_or_nothing=True),
        request(" yes", model="another"),
        request([10**6], all_or_nothing=True),
    ],
)
async def test_so_is_the_error(body: ScoreRequest) -> None:
    """By status, type, code and param."""
    with pytest.raises(ApiError) as raised:
        await client_of(FakeEngine()).score(body)
    status, expected = await answer_of(FakeEngine(), body)
    error = raised.value
    assert (error.status, error.type) == (status, expected["error"]["type"])
    assert (error.message, error.code, error.param) == tuple(
        expected["error"][name] for name in ("message", "code", "param")
    )


async def test_a_failure_is_told_as_the_server_tells_it() -> None:
    """Without what the exception says."""
    engine = FakeEngine(failures={YES: ForwardFailed("inside")})
    with pytest.raises(ApiError) as raised:
        await client_of(engine).score(request(YES, all_or_nothing=True))
    assert (raised.value.status, raised.value.code) == (500, "forward_failed")
    assert "inside" not in raised.value.message


async def test_what_finds_no_room_is_brought_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a while, and what does not come back is an error that ends the run."""
    engine = FakeEngine()
    refusals: list[Exception] = [EngineOverloaded("full", retry_after_s=0.001)] * 2
    score = engine.score

    async def score_later(*args: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return await score(*args)

    monkeypatch.setattr(engine, "score", score_later)
    client = client_of(engine)
    assert len((await client.score(request(" yes"))).results) == 1
    refusals.append(EngineDied("gone"))
    with pytest.raises(ApiError) as raised:
        await client.score(request(" yes"))
    assert raised.value.status == 503


async def test_a_list_in_parts_is_the_list() -> None:
    """As ``score_split`` of a client."""
    client, body = client_of(FakeEngine()), request(YES, "n't", NO, "a", "ab", "")
    whole = await client.score(body)
    parts = await client.score_split(body, size=2, concurrency=1)
    assert parts.results == whole.results
