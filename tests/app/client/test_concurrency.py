"""Many requests: N in flight, answers in order, memory bounded, a clean end."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from app.client import Client, ClientError, InvalidRequest, Retries, ScoreAnswer
from app.client.concurrency import AHEAD, ordered_map, ordered_map_async, sleep
from app.schemas.score_response import ScoreResponse
from tests.app.in_process import async_client_over, client_over

WORDS = [" yes", " no", " maybe", "a", "b"]
REQUESTS: list[dict[str, Any]] = [{"context": "it is", "candidates": [word]} for word in WORDS]


class Meter:
    """Work that counts how much of it runs at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.running = self.most = self.done = 0

    def __call__(self, item: int) -> int:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        time.sleep(0.002 * (3 - item % 4))
        with self._lock:
            self.running -= 1
            self.done += 1
        return item

    async def on_loop(self, item: int) -> int:
        """The same as a task."""
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.002 * (3 - item % 4))
        self.running -= 1
        self.done += 1
        return item


def counted(read: list[int]) -> Iterator[int]:
    """Numbers without end, remembering how many were read."""
    for number in itertools.count():
        read.append(number)
        yield number


def test_order_and_number_in_flight() -> None:
    """Results come in order although later ones are done earlier; N run at once, no more."""
    meter, together = Meter(), threading.Barrier(3)

    def work(item: int) -> int:
        if item < 3:
            together.wait(20)
        return meter(item)

    assert list(ordered_map(range(40), work, 3)) == list(range(40))
    assert meter.most <= 3


@pytest.mark.anyio
async def test_order_and_number_in_flight_on_a_loop() -> None:
    """The same with tasks."""
    meter, together = Meter(), asyncio.Barrier(3)

    async def work(item: int) -> int:
        if item < 3:
            await asyncio.wait_for(together.wait(), 20)
        return await meter.on_loop(item)

    found = [number async for number in ordered_map_async(range(40), work, 3)]
    assert found == list(range(40))
    assert meter.most <= 3


def test_an_endless_input_is_read_as_results_are_taken() -> None:
    """No more than a few pieces are read ahead, and leaving early ends the work."""
    read: list[int] = []
    results = ordered_map(counted(read), Meter(), 2)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert len(read) <= 5 + AHEAD * 2
    results.close()


def test_what_sleeps_is_woken_when_nobody_wants_it() -> None:
    """Also in a pool within a pool, which ends with the outer one; elsewhere a sleep is a sleep."""
    together = threading.Barrier(3)

    def work(item: int) -> int:
        if item:
            together.wait(20)
            sleep(3600)
        return item

    def pool_of(item: int) -> int:
        if item:
            return sum(ordered_map([0, item], work, 2))
        return together.wait(20) * 0

    results = ordered_map(range(3), pool_of, 3)
    assert next(results) == 0
    results.close()
    sleep(0.001)


@pytest.mark.anyio
async def test_an_endless_input_on_a_loop() -> None:
    """The same with tasks; those in flight are cancelled when the generator is closed."""
    read: list[int] = []
    before = asyncio.all_tasks()
    results = ordered_map_async(counted(read), Meter().on_loop, 2)
    assert [await anext(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert len(read) <= 5 + 1 + AHEAD * 2
    await results.aclose()
    assert asyncio.all_tasks() == before


@pytest.mark.anyio
async def test_a_source_that_waits_does_not_hold_up_results() -> None:
    """What is done is given although the next request is not there yet."""

    async def source() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    results = ordered_map_async(source(), Meter().on_loop, 2)
    assert await asyncio.wait_for(anext(results), 5) == 1
    await results.aclose()


def test_a_failure_comes_in_its_place() -> None:
    """What is before it is given; behind it there is nothing."""

    def work(item: int) -> int:
        if item == 3:
            raise KeyError(item)
        return item

    results = ordered_map(range(100), work, 4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError):
        next(results)
    assert list(results) == []


def test_score_many() -> None:
    """Answers in the order of the requests, each as if asked alone; long lists are split."""
    with client_over() as client:
        alone = [client.score(request).results for request in REQUESTS]
        assert [one.results for one in client.score_many(REQUESTS, concurrency=2)] == alone
        long = {"context": "it is", "candidates": WORDS}
        (split,) = client.score_many([long], size=2)
        assert split.results == client.score(long).results


@pytest.mark.anyio
async def test_score_many_on_a_loop() -> None:
    """The same on a loop, from a source that is asynchronous as well."""

    async def source() -> AsyncIterator[dict[str, Any]]:
        for request in REQUESTS:
            yield request

    async with async_client_over() as client:
        alone = [(await client.score(request)).results for request in REQUESTS]
        assert [one.results async for one in client.score_many(REQUESTS, size=1)] == alone
        assert [one.results async for one in client.score_many(source())] == alone


def test_errors_are_raised_or_given_in_place() -> None:
    """By default the first failure ends it; on demand it stands where its answer would have."""
    requests = [REQUESTS[0], {"context": "it is"}, {"context": "it is", "candidates": [""]}]
    with client_over() as client:
        found = client.score_many(requests)
        assert isinstance(next(found), ScoreResponse)
        with pytest.raises(InvalidRequest):
            next(found)
        kinds = [type(one) for one in client.score_many(requests, return_errors=True)]
    assert kinds[:2] == [ScoreAnswer, InvalidRequest]
    assert issubclass(kinds[2], ClientError)


def test_leaving_early_does_not_wait_for_retries() -> None:
    """A request that waits for its next attempt gives up when nobody wants it any more."""
    with client_over() as client:
        body = client.score(REQUESTS[0]).model_dump()
    turns = itertools.chain([httpx.Response(200, json=body)], itertools.repeat(httpx.Response(503)))
    lock = threading.Lock()

    def answer(_request: httpx.Request) -> httpx.Response:
        with lock:
            return next(turns)

    patient = Retries(attempts=9, first_wait_s=600.0, longest_wait_s=600.0)
    transport = httpx.MockTransport(answer)
    with Client("http://test", retries=patient, transport=transport) as client:
        found = client.score_many(itertools.repeat(REQUESTS[0]), concurrency=1)
        assert isinstance(next(found), ScoreResponse)
        found.close()


@pytest.mark.parametrize("concurrency", [0, -1])
def test_nothing_in_flight_is_refused(concurrency: int) -> None:
    """There must be at least one."""
    with pytest.raises(ValueError, match="concurrency"):
        list(ordered_map([1], str, concurrency))
