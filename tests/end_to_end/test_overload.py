"""A full queue before a model that computes: what is refused, answered, and left afterwards."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.end_to_end.live_server import LiveServer
from tests.end_to_end.test_load import long_decode, queued, settle

pytestmark = pytest.mark.process

FIRSTS = (5, 6, 7, 8)
"""The first tokens of the decodes that fill the queue, and of ..."""
CROWD = range(20, 44)
"""... the small requests that want the room that is left."""
PROBES = ("/health", "/health/live", "/health/ready", "/metrics")
TIMES = 15
COMPARED = 40
"""Tokens of each decode that are generated once more alone."""

Timed = tuple[httpx.Response, float]
"""An answer and the seconds that it took."""


@dataclass(frozen=True)
class Quiet:
    """Small requests one by one, on an idle server.

    Attributes:
        seconds: the least that one has taken.
        forwards: what all of them have cost.
    """

    seconds: float
    forwards: float


@dataclass(frozen=True)
class Overload:
    """What was seen of one overload.

    Attributes:
        before, after: small requests on the idle server.
        refused: the answers to what found no room.
        probed: those of the probes beside it, by path.
        decodes: those to what had filled the queue, by first token.
        scores: those to small requests, sent until they found room, by first token.
    """

    before: Quiet
    after: Quiet
    refused: list[Timed]
    probed: dict[str, list[Timed]]
    decodes: dict[int, httpx.Response]
    scores: dict[int, httpx.Response]


def timed(ask: Callable[[], httpx.Response]) -> Timed:
    began = time.monotonic()
    return ask(), time.monotonic() - began


def median(answers: list[Timed]) -> float:
    return statistics.median(seconds for _, seconds in answers)


def statuses(answers: list[Timed]) -> set[int]:
    return {response.status_code for response, _ in answers}


def decode_of(first: int, **more: Any) -> dict[str, Any]:
    return long_decode(first) | {"token_logprobs": True} | more


def score_of(first: int, salt: str) -> dict[str, Any]:
    """Work for one forward, which requests of other salts do not share."""
    return {"context": [first, 3], "candidates": [[first, 9, 4], [first + 1]], "cache_salt": salt}


def quiet(server: LiveServer, salt: str) -> Quiet:
    forwards = server.metric("chainrule_batches_total")
    answers = [
        timed(lambda first=first: server.client.post("/v1/score", json=score_of(first, salt)))
        for first in range(50, 50 + TIMES)
    ]
    assert statuses(answers) == {200}
    seconds = min(seconds for _, seconds in answers)
    return Quiet(seconds, server.metric("chainrule_batches_total") - forwards)


def score_when_there_is_room(server: LiveServer, first: int) -> httpx.Response:
    body = score_of(first, "crowd")
    while (response := server.client.post("/v1/score", json=body)).status_code == 429:
        time.sleep(0.01)
    return response


@pytest.fixture(scope="module")
def overload(tiny_server: LiveServer) -> Overload:
    """The queue is filled with decodes of seconds, and all is looked at while they run."""
    client = tiny_server.client

    def decode(first: int) -> httpx.Response:
        return client.post("/v1/decode", json=decode_of(first))

    def probe(path: str) -> list[Timed]:
        return [timed(lambda: client.get(path)) for _ in range(TIMES)]

    quiet(tiny_server, "warm-up")
    before = quiet(tiny_server, "before")
    with ThreadPoolExecutor(len(FIRSTS) + len(CROWD)) as pool:
        decodes = {first: pool.submit(decode, first) for first in FIRSTS}
        settle(lambda: queued(tiny_server) > 1900)
        refused = [timed(lambda: decode(9)) for _ in range(TIMES)]
        probed = {path: probe(path) for path in PROBES}
        refused.append(timed(lambda: decode(9)))  # it was full all the while
        scores = {n: pool.submit(score_when_there_is_room, tiny_server, n) for n in CROWD}
    assert queued(tiny_server) == 0
    return Overload(
        before,
        quiet(tiny_server, "after"),
        refused,
        probed,
        {first: future.result() for first, future in decodes.items()},
        {first: future.result() for first, future in scores.items()},
    )


def test_a_full_queue_refuses_at_once(overload: Overload) -> None:
    """429 within 50 ms, by the median, and when there will be room."""
    assert statuses(overload.refused) == {429}
    assert median(overload.refused) < 0.05
    for response, _ in overload.refused:
        assert int(response.headers["Retry-After"]) >= 1
        assert response.json()["error"]["code"]


@pytest.mark.parametrize("path", PROBES)
def test_probes_and_metrics_answer_at_once(overload: Overload, path: str) -> None:
    """200 within 100 ms, by the median, while the model computes all it can."""
    assert statuses(overload.probed[path]) == {200}
    assert median(overload.probed[path]) < 0.1


def test_all_who_were_let_in_get_their_own_answers(
    overload: Overload, tiny_server: LiveServer
) -> None:
    """Each has the bits that it has alone, and no two are alike."""
    assert {one.status_code for one in (overload.decodes | overload.scores).values()} == {200}
    found: list[Any] = []
    for first, response in overload.scores.items():
        found.append(response.json()["results"])
        assert tiny_server.post("/v1/score", score_of(first, "alone"))["results"] == found[-1]
    for first, response in overload.decodes.items():
        found.append(response.json()["sequences"][0]["tokens"][:COMPARED])
        body = decode_of(first, max_tokens=COMPARED, cache_salt="alone")
        alone = tiny_server.post("/v1/decode", body)
        assert alone["sequences"][0]["tokens"] == found[-1]
    assert not [one for at, one in enumerate(found) if one in found[:at]]


def test_after_a_burst_all_is_as_before(overload: Overload) -> None:
    """Small requests take the same forwards and wait for nothing."""
    assert overload.after.forwards == overload.before.forwards == TIMES
    assert overload.after.seconds < 2 * overload.before.seconds + 0.05
