"""Streams from a real server with a real (tiny) model: readers that leave or never read."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.conftest import TinyFolder
from tests.end_to_end.live_server import LiveServer, live_server

pytestmark = pytest.mark.process

TOKENS = 200
BATCHES = "chainrule_batches_total"


def long_stream(first: int, tokens: int = TOKENS, **fields: Any) -> dict[str, Any]:
    """A stream of so many tokens, on a path that no other request shares."""
    return {
        "context": [first],
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": True,
        **fields,
    }


def settle(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)


def idle(server: LiveServer) -> bool:
    return server.metric("chainrule_queued_tokens") == 0


def connect(server: LiveServer, body: dict[str, Any], receive_buffer: int = 0) -> socket.socket:
    """A connection on which the request is sent and nothing is read yet."""
    url = httpx.URL(server.url)
    request = httpx.Request("POST", f"{server.url}/v1/decode", json=body)
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(30)
    connection.connect((url.host, url.port or 80))
    head = (
        f"POST /v1/decode HTTP/1.1\r\nHost: {url.host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(request.content)}\r\n\r\n"
    )
    connection.sendall(head.encode() + request.content)
    return connection


def read_events(lines: list[str]) -> list[tuple[str, dict[str, Any]]]:
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [(name, json.loads(text)) for name, text in zip(names, data, strict=True)]


def test_tokens_arrive_one_by_one(tiny_server: LiveServer) -> None:
    """The first token is there while the server still works on the others."""
    with tiny_server.client.stream("POST", "/v1/decode", json=long_stream(21)) as response:
        lines = response.iter_lines()
        assert next(lines) == "event: token"
        assert not idle(tiny_server)
        events = read_events(["event: token", *lines])
    assert [name for name, _ in events] == ["token"] * TOKENS + ["result"]
    assert [data["index"] for _, data in events[:-1]] == list(range(TOKENS))


def test_a_reader_that_leaves_ends_the_work(tiny_server: LiveServer) -> None:
    """After a connection is closed at most the batch that was running is computed for it."""
    with connect(tiny_server, long_stream(22, tokens=480)) as connection:
        connection.recv(1024)
        begun = tiny_server.metric(BATCHES)
    settle(lambda: idle(tiny_server))
    seen = tiny_server.metric(BATCHES)
    time.sleep(0.2)
    assert tiny_server.metric(BATCHES) <= seen + 1
    assert seen - begun < 240, "it went on as if somebody read"


def test_a_reader_that_never_reads_holds_nobody_up(tiny_server: LiveServer) -> None:
    """Its work ends at the model's pace and frees its place, though no byte of it is taken."""
    body = long_stream(23, tokens=400, top_logprobs=30)
    with connect(tiny_server, body, receive_buffer=4096):
        settle(lambda: not idle(tiny_server))
        fast = tiny_server.client.post("/v1/decode", json=long_stream(24, tokens=50))
        assert fast.text.count("event: token") == 50
        settle(lambda: idle(tiny_server))
        assert tiny_server.client.get("/health/ready").status_code == 200


def test_a_deadline_ends_a_stream_with_an_error_event(tiny_server: LiveServer) -> None:
    """What came before it stays; the error has the one shape, and the stream is whole."""
    body = long_stream(25, tokens=480, timeout_ms=150)
    text = tiny_server.client.post("/v1/decode", json=body).text
    *tokens, (name, failure) = read_events(text.splitlines())
    assert tokens
    assert name == "error"
    assert failure["error"]["code"] == "deadline_exceeded"
    settle(lambda: idle(tiny_server))


def test_what_is_refused_before_a_token_has_its_status(tiny_server: LiveServer) -> None:
    """A prompt that does not fit is 422 as JSON, with or without ``stream``."""
    response = tiny_server.client.post("/v1/decode", json=long_stream(26, tokens=600))
    assert response.status_code == 422
    assert response.json()["error"]["param"] == "max_tokens"


def test_a_stream_outlives_sigterm(tiny_folder: TinyFolder) -> None:
    """A stream in progress is in flight: the drain lets it finish, and the exit is 0."""
    with live_server(model=tiny_folder("llama"), kv_cache_bytes="64MiB") as server:
        with server.client.stream("POST", "/v1/decode", json=long_stream(27)) as response:
            lines = response.iter_lines()
            first = next(lines)
            server.process.send_signal(signal.SIGTERM)
            server.await_line("draining")
            events = read_events([first, *lines])
        assert [name for name, _ in events] == ["token"] * TOKENS + ["result"]
        line = server.await_line("request")
        assert (line["status"], line["stream"], line["scored_tokens"]) == (200, True, TOKENS)
        server.await_line("stopped")
