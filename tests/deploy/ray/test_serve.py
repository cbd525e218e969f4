"""Replicas behind a real Ray Serve: what a client sees."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.client import Client
from benchmarks.ray_fleet import RayFleet
from deploy.ray.affinity import ranked
from tests.app.stub_server import ServerProcess, await_true
from tests.conftest import TinyFolder
from tests.deploy.ray.conftest import Deploy

pytestmark = pytest.mark.fleet

TIMEOUT_S = 60.0
Body = dict[str, Any]

SCORES: list[tuple[str, Body]] = [
    ("/v1/score", {"context": "The capital of France is", "candidates": [" Paris", " red", ""]}),
    ("/v1/score", {"context": [5, 6, 7], "candidates": [[8], [9, 10]], "append_eos": True}),
    ("/v1/next_token", {"context": "The answer is", "top_k": 5}),
    ("/v1/decode", {"context": "Once", "strategy": "beam", "num_beams": 3, "max_tokens": 9}),
]
LONG: Body = {"context": "It is", "strategy": "greedy", "max_tokens": 450, "ignore_eos": True}
"""A decode of a second or so."""


@pytest.fixture
def two(deploy: Deploy) -> RayFleet:
    """Two replicas."""
    return deploy()


def session_for(fleet: RayFleet, replica: int) -> dict[str, str]:
    """Headers of a session whose own replica is this one, by the order of their ids."""
    ids = sorted(one.id for one in fleet.replicas())
    keys = (f"session {number}" for number in range(1_000))
    key = next(key for key in keys if ranked(key, ids)[0] == ids[replica])
    return {"X-Session-Id": key}


def post(fleet: RayFleet, path: str, body: Body, headers: dict[str, str]) -> httpx.Response:
    return httpx.post(fleet.url + path, json=body, headers=headers, timeout=TIMEOUT_S)


def queued(fleet: RayFleet, headers: dict[str, str]) -> int:
    """Requests at the replica of a session."""
    answer = httpx.get(f"{fleet.url}/health", headers=headers, timeout=TIMEOUT_S)
    return int(answer.json()["queue"]["queued_requests"])


def numbers(answer: Body) -> Body:
    """An answer without what differs from call to call."""
    varies = ("id", "created", "usage", "timings_ms")
    return {name: value for name, value in answer.items() if name not in varies}


async def together(
    fleet: RayFleet, path: str, calls: Iterable[tuple[Body, dict[str, str]]]
) -> list[httpx.Response]:
    """The answers to requests that are sent at once."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=fleet.url, timeout=TIMEOUT_S, limits=limits, trust_env=False
    ) as client:
        return await asyncio.gather(
            *(client.post(path, json=body, headers=headers) for body, headers in calls)
        )


def test_equal_bits(two: RayFleet, tiny_folder: TinyFolder) -> None:
    """From both replicas, and from a server without Ray."""
    model = tiny_folder("llama")
    direct = ServerProcess("model", model=str(model), threads=1, kv_cache_bytes="64MiB")
    try:
        direct.await_line("ready")
        for path, body in SCORES:
            alone = httpx.post(direct.url + path, json=body, timeout=TIMEOUT_S).json()
            for replica in (0, 1):
                answer = post(two, path, body, session_for(two, replica))
                assert answer.status_code == 200, answer.text
                assert numbers(answer.json()) == numbers(alone)
    finally:
        direct.kill()


def test_sessions_have_replicas_of_their_own(two: RayFleet) -> None:
    """A context is cached where its session goes, and only there."""
    body = {"context": [random.randrange(10, 300) for _ in range(16)], "candidates": [[5]]}
    cached = [
        post(two, "/v1/score", body, session_for(two, replica)).json()["usage"]["cached_tokens"]
        for replica in (0, 0, 1, 1)
    ]
    assert [count > 0 for count in cached] == [False, True, False, True]


def test_headers_and_bodies_pass(two: RayFleet) -> None:
    """Those of the app, errors of its among them, and its id of the request once."""
    given = {"X-Request-Id": "mine-1", "Content-Type": "application/json"}
    answer = httpx.post(f"{two.url}/v1/score", content=b"{", headers=given)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "malformed_json"
    assert answer.headers.get_list("x-request-id") == ["mine-1"]
    strange = {"X-Request-Id": b"\xff\xfe", "X-Session-Id": b"\xff"}
    assert httpx.get(f"{two.url}/v1/models", headers=strange).status_code == 200
    assert httpx.get(f"{two.url}/nowhere").json()["error"]["code"] == "not_found"
    assert httpx.head(f"{two.url}/health/ready").status_code == 200


def test_streams_come_token_by_token(two: RayFleet) -> None:
    """The events of a decode, each when there is one; together what is not streamed."""
    whole = post(two, "/v1/decode", LONG, {}).json()["sequences"][0]["token_ids"]
    with Client(two.url) as client:
        *tokens, last = client.stream(**LONG)
    assert [token.id for token in tokens] == whole  # type: ignore[union-attr]
    assert last.sequences[0].token_ids == whole  # type: ignore[union-attr]
    streamed = LONG | {"stream": True}
    with httpx.stream("POST", f"{two.url}/v1/decode", json=streamed, timeout=TIMEOUT_S) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        parts = sum(1 for _ in answer.iter_raw())
    assert parts > 10


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_its_work(two: RayFleet, stream: bool) -> None:
    """The replica stops long before the end."""
    here = session_for(two, 0)
    body = LONG | {"stream": stream, "context": "The other"}
    before = forwards(two, here)
    # An answer in one piece does not come in time; a stream is left after its first events.
    with (
        contextlib.suppress(httpx.ReadTimeout),
        httpx.stream(
            "POST", f"{two.url}/v1/decode", json=body, headers=here, timeout=0.2
        ) as answer,
    ):
        next(answer.iter_raw())
    await_true(lambda: queued(two, here) == 0)
    assert 0 < forwards(two, here) - before < LONG["max_tokens"] - 50


def forwards(fleet: RayFleet, headers: dict[str, str]) -> float:
    """Of the session's replica so far."""
    text = httpx.get(f"{fleet.url}/metrics", headers=headers, timeout=TIMEOUT_S).text
    (line,) = [line for line in text.splitlines() if line.startswith("chainrule_batches_total ")]
    return float(line.split()[1])


def test_deadlines(two: RayFleet) -> None:
    """The app's own words, not Serve's; and Serve cuts nothing that has more time."""
    late = post(two, "/v1/decode", LONG | {"timeout_ms": 50}, {})
    assert late.status_code == 504
    assert late.json()["error"]["code"] == "deadline_exceeded"
    assert late.headers["x-should-retry"] == "false"


def test_a_full_queue(deploy: Deploy) -> None:
    """429 from the replica itself, with its estimate, and no request lost."""
    fleet = deploy(max_queue_tokens=1_000, num_replicas=1)
    bodies = [LONG | {"context": f"{number} is"} for number in range(12)]
    answers = asyncio.run(together(fleet, "/v1/decode", ((body, {}) for body in bodies)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert 0 < len(refused) < len(answers)
    assert {answer.status_code for answer in answers} == {200, 429}
    for answer in refused:
        assert answer.json()["error"]["code"] == "queue_full"
        assert int(answer.headers["retry-after"]) >= 1


def test_keys(deploy: Deploy, tmp_path: Path) -> None:
    """The app asks for them; a replica that lacks them does not begin to serve."""
    keys = tmp_path / "keys"
    keys.write_text("secret\n")
    fleet = deploy(api_key_file=keys, num_replicas=1)
    path, body = SCORES[0]
    assert post(fleet, path, body, {}).status_code == 401
    assert post(fleet, path, body, {"Authorization": "Bearer wrong"}).status_code == 401
    assert post(fleet, path, body, {"Authorization": "Bearer secret"}).status_code == 200
    assert httpx.get(f"{fleet.url}/health/ready").status_code == 200


def test_a_model_that_is_not_there(deploy: Deploy, tmp_path: Path) -> None:
    """Serve's status ends with the reason."""
    with pytest.raises(RuntimeError) as caught:
        deploy(model=tmp_path / "missing", num_replicas=1)
    reasons = [line for line in str(caught.value).splitlines() if "does not work: " in line]
    assert "missing' is no folder" in reasons[-1]


@pytest.mark.parametrize("loses", ["a fresh request", "requests in flight"])
def test_a_killed_replica(two: RayFleet, loses: str) -> None:
    """What it had accepted is answered by the other, with the same bits."""
    victim = min(two.replicas(), key=lambda one: one.id)
    here = session_for(two, 0)
    bodies = [LONG | {"context": f"{number} was"} for number in range(4)]
    expected = [numbers(post(two, "/v1/decode", body, {}).json()) for body in bodies]

    async def lose() -> list[httpx.Response]:
        if loses == "a fresh request":
            os.kill(victim.pid or 0, signal.SIGKILL)
            return await together(two, "/v1/decode", ((body, here) for body in bodies))
        answers = asyncio.create_task(
            together(two, "/v1/decode", ((body, here) for body in bodies))
        )
        while await asyncio.to_thread(queued, two, here) < len(bodies):
            await asyncio.sleep(0.01)
        os.kill(victim.pid or 0, signal.SIGKILL)
        return await answers

    answers = asyncio.run(lose())
    assert [answer.status_code for answer in answers] == [200] * len(bodies)
    assert [numbers(answer.json()) for answer in answers] == expected
    two.await_replicas(2, without=victim)


def test_fewer_replicas(deploy: Deploy) -> None:
    """The one that goes finishes what it has."""
    fleet = deploy()
    bodies = [LONG | {"context": f"{number} had"} for number in range(8)]
    here, there = session_for(fleet, 0), session_for(fleet, 1)

    async def shrink() -> list[httpx.Response]:
        calls = [(body, (here, there)[number % 2]) for number, body in enumerate(bodies)]
        answers = asyncio.create_task(together(fleet, "/v1/decode", calls))
        while not (
            await asyncio.to_thread(queued, fleet, here)
            and await asyncio.to_thread(queued, fleet, there)
        ):
            await asyncio.sleep(0.01)
        await asyncio.to_thread(deploy, num_replicas=1)
        return await answers

    answers = asyncio.run(shrink())
    assert [answer.status_code for answer in answers] == [200] * len(bodies)
    assert len(fleet.replicas()) == 1


def test_metrics_of_all_replicas(two: RayFleet) -> None:
    """Ray's own page has each replica's, with Serve's labels and ours."""

    def replicas(series: str) -> set[str]:
        text = httpx.get(f"http://127.0.0.1:{two.metrics_port()}/metrics").text
        lines = [line for line in text.splitlines() if line.startswith(series)]
        return {line.split('replica="')[1].split('"')[0] for line in lines}

    ids = {one.id for one in two.replicas()}
    await_within(60.0, lambda: ids <= replicas("ray_chainrule_ready{"))
    await_within(60.0, lambda: ids <= replicas("ray_chainrule_queued_seconds{"))


def test_more_replicas_for_a_longer_queue(deploy: Deploy) -> None:
    """A second one while the first has more queued than it should, and none for nothing."""
    fleet = deploy(
        num_replicas=None, min_replicas=1, max_replicas=2, target_queued_seconds=0.2,
        upscale_delay_s=0, downscale_delay_s=3,
    )  # fmt: skip
    fleet.await_replicas(1)

    async def load_until_two() -> None:
        while len(fleet.replicas()) < 2:
            bodies = [LONG | {"context": f"{random.random()} is"} for _ in range(8)]
            answers = await together(fleet, "/v1/decode", ((body, {}) for body in bodies))
            assert {answer.status_code for answer in answers} == {200}

    asyncio.run(asyncio.wait_for(load_until_two(), 180))
    fleet.await_replicas(1)


def test_prefix_hits(deploy: Deploy, rng: random.Random) -> None:
    """Two replicas find nearly what one finds; Serve's own routing loses much of it."""
    contexts = [[rng.randrange(10, 300) for _ in range(64)] for _ in range(24)]
    visits = [context for context in contexts for _ in range(4)]
    rng.shuffle(visits)
    bodies: list[Body] = [{"context": context, "candidates": [[5], [6]]} for context in visits]
    # Another setting makes new replicas, with nothing in their caches.
    one = hits(deploy(num_replicas=1, drain_timeout_s=11), bodies)
    prefix = hits(deploy(num_replicas=2, drain_timeout_s=12), bodies)
    shortest = hits(deploy(num_replicas=2, drain_timeout_s=13, router="ray"), bodies)
    assert prefix >= 0.9 * one > 0
    assert shortest < 0.9 * one


def hits(fleet: RayFleet, bodies: list[Body]) -> int:
    """Cached tokens of all requests, four at a time, each after the one before it."""

    async def client(todo: list[Body], http: httpx.AsyncClient) -> int:
        found = 0
        while todo:
            answer = await http.post("/v1/score", json=todo.pop())
            found += answer.json()["usage"]["cached_tokens"]
        return found

    async def all_clients() -> int:
        todo = [*bodies]
        async with httpx.AsyncClient(base_url=fleet.url, timeout=TIMEOUT_S) as http:
            return sum(await asyncio.gather(*(client(todo, http) for _ in range(4))))

    return asyncio.run(all_clients())


def await_within(seconds: float, condition: Callable[[], bool]) -> None:
    """Ask until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.5)
