"""Overload, deadlines and clients that leave, against a real server with a real (tiny) model."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.end_to_end.live_server import LiveServer

pytestmark = pytest.mark.process


def long_decode(first: int, tokens: int = 480) -> dict[str, Any]:
    """Work for some seconds, on a path that no other request shares."""
    return {"context": [first], "strategy": "greedy", "max_tokens": tokens, "ignore_eos": True}


def settle(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)


def queued(server: LiveServer) -> float:
    return server.metric("chainrule_queued_tokens")


def test_a_request_that_could_never_fit_is_422(tiny_server: LiveServer) -> None:
    """Waiting would not help, so it is not told to wait."""
    body = {"context": [5], "candidates": [[i, *[7] * 400] for i in range(9)]}
    response = tiny_server.client.post("/v1/score", json=body)
    assert response.status_code == 422


def test_timeout_ms_ends_in_504(tiny_server: LiveServer) -> None:
    """The deadline holds while the work is running, and its place is freed."""
    body = long_decode(10) | {"timeout_ms": 50}
    response = tiny_server.client.post("/v1/decode", json=body)
    assert response.status_code == 504
    settle(lambda: queued(tiny_server) == 0)


def test_a_client_that_leaves_frees_its_place(tiny_server: LiveServer) -> None:
    """Closing the connection ends the work behind it within a step."""
    url = httpx.URL(tiny_server.url)
    body = httpx.Request("POST", tiny_server.url, json=long_decode(11)).content
    with socket.create_connection((url.host, url.port or 80)) as connection:
        head = (
            f"POST /v1/decode HTTP/1.1\r\nHost: {url.host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode() + body)
        settle(lambda: queued(tiny_server) > 0)
        batches = tiny_server.metric("chainrule_batches_total")
        settle(lambda: tiny_server.metric("chainrule_batches_total") > batches)
    settle(lambda: queued(tiny_server) == 0)
    stopped = tiny_server.metric("chainrule_batches_total")
    time.sleep(0.1)
    assert tiny_server.metric("chainrule_batches_total") <= stopped + 1


def test_one_bad_candidate_fails_alone(tiny_server: LiveServer) -> None:
    """An id out of range is an item error; its neighbours keep the bits they have without it."""
    good = [[5, 6, 7], [8, 9]]
    alone = tiny_server.post("/v1/score", {"context": [1, 2], "candidates": good})["results"]
    mixed = tiny_server.post("/v1/score", {"context": [1, 2], "candidates": [*good, [99_999]]})
    results = mixed["results"]
    assert [r["logprob"] for r in results[:2]] == [r["logprob"] for r in alone]
    assert results[2].keys() == {"index", "error"}
    assert results[2]["error"]["param"] == "candidates.2"
