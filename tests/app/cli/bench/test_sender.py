"""Sending: nothing waits for an answer but what has no connection left, and that counts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest

from app.cli.bench.load import Load
from app.cli.bench.sender import TIMEOUT, Record, send_all, send_share
from app.cli.bench.workload import Workload

pytestmark = pytest.mark.anyio

SLOW_S = 0.05


def at(*dues: float) -> Iterator[tuple[float, bytes]]:
    """Arrivals at these times."""
    return iter([(due, b"{}") for due in dues])


def taking(seconds: float) -> Callable[[bytes], Awaitable[tuple[str, str]]]:
    """A server that takes so long."""

    async def send(_body: bytes) -> tuple[str, str]:
        await asyncio.sleep(seconds)
        return "200", ""

    return send


async def test_arrivals_do_not_wait_for_answers() -> None:
    """With connections enough all are on their way at once."""
    running, most = 0, 0

    async def send(_body: bytes) -> tuple[str, str]:
        nonlocal running, most
        running, most = running + 1, max(most, running + 1)
        await asyncio.sleep(SLOW_S)
        running -= 1
        return "200", ""

    record = await send_all(at(0.0, 0.0, 0.0), send, 8, 10.0)
    assert most == 3
    assert not any(one.connection_limited for one in record.sent)


async def test_waiting_for_a_connection_is_latency() -> None:
    """A slow server delays whoever comes later, and every one of them counts from when it was
    due: no omission is coordinated with the server."""
    record = await send_all(at(0.0, 0.001, 0.002), taking(SLOW_S), 1, 10.0)
    latencies = [one.latency_s for one in record.sent]
    for number, latency in enumerate(latencies, 1):
        assert latency >= 0.9 * (number * SLOW_S) - 0.002
    assert [one.connection_limited for one in record.sent] == [False, True, True]
    # Waiting for the server is no lateness of the sender.
    assert all(one.lag_s < one.latency_s for one in record.sent)


async def test_no_more_than_the_cap_are_on_their_way() -> None:
    """However many are due."""
    running, most = 0, 0

    async def send(_body: bytes) -> tuple[str, str]:
        nonlocal running, most
        running, most = running + 1, max(most, running + 1)
        await asyncio.sleep(0.001)
        running -= 1
        return "200", ""

    await send_all(at(*[0.0] * 20), send, 3, 10.0)
    assert most == 3


async def test_a_request_is_never_sent_before_it_is_due() -> None:
    """And its own times are in order."""
    record = await send_all(at(0.0, 0.03), taking(0.0), 8, 10.0)
    assert all(one.due_s <= one.sent_s <= one.done_s for one in record.sent)


async def test_a_late_sender_says_so() -> None:
    """What keeps the sending process busy shows as lag, not as latency of the server alone."""

    def busy() -> Iterator[tuple[float, bytes]]:
        yield 0.0, b"{}"
        time.sleep(SLOW_S)
        yield 0.001, b"{}"

    record = await send_all(busy(), taking(0.0), 8, 10.0)
    assert max(one.lag_s for one in record.sent) >= 0.9 * SLOW_S


async def test_what_takes_too_long_is_given_up() -> None:
    """As a timeout, whose connection is free again."""
    record = await send_all(at(0.0, 0.0), taking(60.0), 1, 0.01)
    assert [one.outcome for one in record.sent] == [TIMEOUT, TIMEOUT]


async def test_the_first_words_of_each_failure_are_kept() -> None:
    """One sample for each outcome."""
    answers = iter([("500", "first"), ("500", "second"), ("429", "slow down"), ("200", "")])

    async def send(_body: bytes) -> tuple[str, str]:
        return next(answers)

    record = await send_all(at(0.0, 0.001, 0.002, 0.003), send, 8, 10.0)
    assert record.error_samples == {"500": "first", "429": "slow down"}
    assert record.outcomes() == {"500": 2, "429": 1, "200": 1}
    assert [one.ok for one in record.sent] == [False, False, False, True]


async def answer(status: str, content: str) -> tuple[asyncio.Server, int, list[str]]:
    """A server on a port of its own that always says the same; what it was sent."""
    heads: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        await reader.readexactly(int(head.lower().split("content-length: ")[1].split()[0]))
        heads.append(head)
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
            f"{content}".encode()
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1], heads


def load(port: int, **changes: object) -> Load:
    """Some twenty requests at once."""
    fields: dict[str, object] = {
        "url": f"http://127.0.0.1:{port}/v1/next_token",
        "shape": "next",
        "workload": Workload(context_tokens=3),
        "headers": (("X-Extra", "yes"),),
        "rate": 1000.0,
        "duration_s": 0.02,
    }
    return Load(**fields | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "outcome", "said"),
    [
        ("200 OK", "200", {}),
        ("200 OK\r\nX-Chainrule-Fingerprint: abc", "200", {}),
        ("503 No", "503", {"503": "why"}),
        ("307 There\r\nLocation: /there", "307", {"307": "why"}),
    ],
)
async def test_over_http(status: str, outcome: str, said: dict[str, str]) -> None:
    """Whole requests with their headers; the status is the outcome, a failure is quoted. Nobody
    is sent on, which would be two requests."""
    server, port, heads = await answer(status, "why")
    async with server:
        record: Record = await send_share(load(port), 0)
    assert set(record.outcomes()) == {outcome}
    assert record.error_samples == said
    assert len(heads) == len(record.sent) == len(list(load(port).arrivals(0)))
    assert heads[0].startswith("POST /v1/next_token HTTP/1.1\r\n")
    assert "x-extra: yes" in heads[0].lower()
    assert "content-type: application/json" in heads[0].lower()
    assert record.fingerprints == ({"abc"} if "abc" in status else set())


async def test_nobody_there_is_an_outcome() -> None:
    """A refused connection is counted by its kind, and ends nothing."""
    server, port, _ = await answer("200 OK", "")
    server.close()
    await server.wait_closed()
    record = await send_share(load(port), 0)
    assert set(record.outcomes()) == {"ClientConnectorError"}
