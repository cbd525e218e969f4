"""Scores that are asked twice: what it costs, who may profit, what is reported. Over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.schemas.response import Usage
from model_runtime import LogprobQuery, QueryResult, RequestOptions, RequestOutput
from tests.app.calls import call, post
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio

SPARED = {"cached_tokens": 0, "computed_tokens": 0}


async def counters(client: httpx.AsyncClient) -> dict[str, float]:
    """What the server says of its finished scores."""
    text = (await client.get("/metrics")).text
    return {
        sample.name.removeprefix("chainrule_").removesuffix("_total"): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "score_cache" in sample.name or "shared_scores" in sample.name
    }


def of(usage: dict[str, int], *names: str) -> tuple[int, ...]:
    """Some of the numbers of a usage."""
    return tuple(usage[name] for name in names)


async def test_a_kept_score_is_the_same_score() -> None:
    """The second answer equals the first in everything but its usage, which says why."""
    engine = FakeEngine()
    async with client_of(shell_app(engine, score_cache_bytes="1MiB")) as client:
        first = await call(client, "score", top_logprobs=2, token_logprobs=True)
        asked = len(engine.queries)
        second = await call(client, "score", top_logprobs=2, token_logprobs=True)
        found = await counters(client)
    assert second["results"] == first["results"]
    assert len(engine.queries) == asked == 2
    assert of(first["usage"], "reused_scores", "computed_tokens") == (0, 4)
    assert of(second["usage"], "reused_scores", "computed_tokens", "cached_tokens") == (2, 0, 0)
    assert second["usage"]["prompt_tokens"] == first["usage"]["prompt_tokens"]
    assert found.pop("score_cache_bytes") > 0
    assert found == {"score_cache_hits": 2, "score_cache_misses": 2, "shared_scores": 0}


async def test_only_new_candidates_are_asked() -> None:
    """A list that shares candidates with an earlier one costs what is new in it."""
    engine = FakeEngine()
    async with client_of(shell_app(engine, score_cache_bytes="1MiB")) as client:
        await call(client, "score", candidates=[" yes", " no"])
        answer = await call(client, "score", candidates=[" no", " maybe"])
    assert answer["usage"]["reused_scores"] == 1
    assert len(engine.queries) == 3


async def test_another_question_is_another_score() -> None:
    """The same candidates with more detail are asked again."""
    async with client_of(shell_app(FakeEngine(), score_cache_bytes="1MiB")) as client:
        await call(client, "score")
        answer = await call(client, "score", append_eos=True)
    assert answer["usage"]["reused_scores"] == 0


async def test_a_distribution_is_kept_as_well() -> None:
    """/v1/next_token takes the same way."""
    async with client_of(shell_app(FakeEngine(), score_cache_bytes="1MiB")) as client:
        first = await call(client, "next_token", top_k=3)
        second = await call(client, "next_token", top_k=3)
    assert second["tokens"] == first["tokens"]
    assert (first["usage"]["reused_scores"], second["usage"]["reused_scores"]) == (0, 1)


async def test_by_default_nothing_is_kept() -> None:
    """Without a budget the second request is computed like the first."""
    engine = FakeEngine()
    async with client_of(shell_app(engine)) as client:
        for _ in range(2):
            assert (await call(client, "score"))["usage"]["reused_scores"] == 0
        found = await counters(client)
    assert len(engine.queries) == 4
    assert set(found.values()) == {0}


async def test_what_is_kept_belongs_to_a_tenant() -> None:
    """Neither another salt nor another API key finds it."""
    first, second = ({"Authorization": f"Bearer {key}"} for key in ("first", "second"))
    settings: dict[str, Any] = {"api_keys": "first,second", "score_cache_bytes": "1MiB"}
    async with client_of(shell_app(FakeEngine(), **settings)) as client:

        async def reused(headers: dict[str, str], **body: Any) -> int:
            client.headers = headers
            return int((await call(client, "score", **body))["usage"]["reused_scores"])

        assert await reused(first) == 0
        assert await reused(second) == 0
        assert await reused(first, cache_salt="a") == 0
        assert await reused(first) == await reused(first, cache_salt="a") == 2


class SlowEngine(FakeEngine):
    """Answers when it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.working = 0

    async def score(
        self, queries: Sequence[LogprobQuery], options: RequestOptions
    ) -> RequestOutput[tuple[QueryResult, ...]]:
        self.working += 1
        try:
            await self.go.wait()
            return await super().score(queries, options)
        finally:
            self.working -= 1


async def test_identical_requests_at_a_time_are_computed_once() -> None:
    """Also without a budget; one of them is billed, the others say that they were spared."""
    engine = SlowEngine()
    async with client_of(shell_app(engine)) as client:
        calls = [asyncio.create_task(call(client, "score")) for _ in range(3)]
        async with asyncio.timeout(5):
            while not engine.working:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        engine.go.set()
        answers = await asyncio.gather(*calls)
        found = await counters(client)
    assert len(engine.queries) == 2
    assert sorted(answer["usage"]["reused_scores"] for answer in answers) == [0, 2, 2]
    assert [answer["results"] for answer in answers] == [answers[0]["results"]] * 3
    assert found["shared_scores"] == 4


async def test_a_request_that_runs_out_of_time_leaves_the_others_alone() -> None:
    """It gets its 504; whoever waited for the same gets its answer."""
    engine = SlowEngine()
    async with client_of(shell_app(engine)) as client:
        patient = asyncio.create_task(call(client, "score"))
        async with asyncio.timeout(5):
            while not engine.working:
                await asyncio.sleep(0.001)
        hasty = await post(client, "score", timeout_ms=50)
        assert hasty.status_code == 504
        engine.go.set()
        assert (await patient)["results"][0]["rank"] == 1
    assert engine.working == 0


def test_a_bill_says_what_was_spared() -> None:
    """Whoever makes one has to say it."""
    assert Usage.model_fields["reused_scores"].is_required()
