"""Slow, silent, crowding and cunning clients, over real sockets."""

from __future__ import annotations

import contextlib
import json
import resource
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from app.server import _allow_open_files
from tests.app.stub_server import ServerProcess, await_true

pytestmark = pytest.mark.process

TIMEOUT_S = 0.5
MAX_BODY = 200_000


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A process that waits half a second for its clients and has room for one large body."""
    process = ServerProcess(
        header_timeout_s=TIMEOUT_S,
        body_timeout_s=TIMEOUT_S,
        max_body_bytes=MAX_BODY,
        max_body_bytes_in_flight=MAX_BODY,
    )
    process.await_line("ready")
    yield process
    process.signal(signal.SIGTERM)
    assert process.exit_code() == 0
    assert not [line for line in process.log if "traceback" in line]
    process.kill()


def connect(server: ServerProcess) -> socket.socket:
    """A connection whose reads end in good time."""
    return socket.create_connection(server.address, timeout=20)


def head(length: int, *, path: str = "/work/x") -> bytes:
    """The head of a POST of so many bytes."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def work(seconds: float = 0.0, size: int = 0) -> bytes:
    """A whole request, in one piece, that keeps the engine busy for so long."""
    body = json.dumps({"seconds": seconds}).encode().ljust(size)
    return head(len(body)) + body


def rest(connection: socket.socket) -> bytes:
    """All that comes up to the end of the connection."""
    parts = []
    while part := connection.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def trickle(connection: socket.socket, byte: bytes = b"a") -> bytes:
    """Send a byte now and then for as long as nobody objects; what comes then."""
    while not select.select([connection], [], [], 0.02)[0]:
        connection.sendall(byte)
    parts = []
    # The last byte may meet a closed connection, which is reset then, behind what came before.
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65_536):
            parts.append(part)
    return b"".join(parts)


def one_answer(connection: socket.socket) -> bytes:
    """One answer to a request, on a connection that stays open."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(65_536)
    fields, _, body = answer.partition(b"\r\n\r\n")
    (length,) = [
        line for line in fields.lower().split(b"\r\n") if line.startswith(b"content-length")
    ]
    while len(body) < int(length.split(b":")[1]):
        body += connection.recv(65_536)
    return fields + b"\r\n\r\n" + body


def refusal(answer: bytes) -> tuple[int, str]:
    """The status and code of the one answer in there, which has the one shape and ends there."""
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    fields, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in fields.lower()
    error: dict[str, Any] = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return int(fields.split()[1]), error["code"]


def test_headers_that_come_byte_by_byte_are_cut_off(server: ServerProcess) -> None:
    """No byte puts the end off; others are served meanwhile."""
    with connect(server) as slow:
        slow.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nA: ")
        assert server.status("/health") == 200
        assert refusal(trickle(slow)) == (408, "request_timeout")


def test_the_headers_of_a_second_request_are_waited_for_no_longer(server: ServerProcess) -> None:
    """Neither a connection that has served nor a request sent too early is an excuse."""
    with connect(server) as slow:
        slow.sendall(work() + b"POST /work/x HTTP/1.1\r\nHos")
        assert b"200 OK" in one_answer(slow)
        assert refusal(trickle(slow)) == (408, "request_timeout")


def test_a_connection_that_says_nothing_is_closed(server: ServerProcess) -> None:
    """Silently: nothing was asked."""
    with connect(server) as silent:
        assert rest(silent) == b""


def test_an_idle_connection_outlives_the_header_timeout(server: ServerProcess) -> None:
    """Between two requests a client may rest."""
    with connect(server) as idle, connect(server) as silent:
        idle.sendall(work())
        assert b"200 OK" in one_answer(idle)
        assert rest(silent) == b""  # a header timeout has passed meanwhile
        with connect(server) as silent_too:
            assert rest(silent_too) == b""
        idle.sendall(work())
        assert b"200 OK" in one_answer(idle)


@pytest.mark.parametrize("framing", ["declared", "chunked"])
def test_a_body_that_stops_coming_is_cut_off(server: ServerProcess, framing: str) -> None:
    """408 and the end, in the one shape."""
    with connect(server) as slow:
        if framing == "declared":
            slow.sendall(head(100) + b"{")
        else:
            slow.sendall(
                b"POST /work/x HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"
            )
        assert refusal(rest(slow)) == (408, "request_timeout")


def test_a_body_that_comes_byte_by_byte_is_cut_off(server: ServerProcess) -> None:
    """A byte now and then keeps neither a connection nor the room for bodies."""
    with connect(server) as slow:
        slow.sendall(head(MAX_BODY))
        assert refusal(trickle(slow, b" ")) == (408, "request_timeout")
    with connect(server) as next_one:
        next_one.sendall(work(size=MAX_BODY))
        assert b"200 OK" in one_answer(next_one)


def test_a_refused_body_is_not_read_for_ever(server: ServerProcess) -> None:
    """Behind an early answer the rest is discarded, but not without end."""
    with connect(server) as slow:
        slow.sendall(head(MAX_BODY + 1))
        assert b"body_too_large" in one_answer(slow)
        # Closed perhaps in the middle of what was sent.
        with contextlib.suppress(ConnectionError):
            assert trickle(slow) == b""


def test_a_request_that_waits_for_the_model_is_never_cut_off(server: ServerProcess) -> None:
    """Once its body is complete no timeout of the connection counts."""
    with connect(server) as patient:
        patient.sendall(work(2 * TIMEOUT_S))
        assert b"200 OK" in one_answer(patient)


def test_large_bodies_beyond_the_room_get_429(server: ServerProcess) -> None:
    """At once, with Retry-After, on a connection that goes on; a client that leaves makes room."""
    with connect(server) as first, connect(server) as second:
        first.sendall(work(60, MAX_BODY))
        server.await_requests(1)
        second.sendall(head(MAX_BODY))
        answer = one_answer(second)
        assert b"HTTP/1.1 429 " in answer
        assert b"\r\nretry-after: 1\r\n" in answer.lower()
        assert b"too_many_body_bytes" in answer
    server.await_requests(0)
    with connect(server) as third:
        third.sendall(work(0, MAX_BODY))
        assert b"200 OK" in one_answer(third)


@pytest.mark.parametrize(
    "attempt",
    [
        head(2)[:-2] + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + work(),
        b"POST /work/x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + work(),
        head(2)[:-2] + b"Content-Length: 3\r\n\r\n{} " + work(),
        head(2)[:-2] + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + work(),
        head(2)[:-2] + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + work(),
        b"POST /work/x HTTP/1.1\r\nHost: x\r\nContent-Length: +2\r\n\r\n{}" + work(),
        b"POST /work/x HTTP/1.1\r\nHost: x\r\nContent-Length: 0x2\r\n\r\n{}" + work(),
        b"GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n" + work(),
        b"GET /health HTTP/1.1\r\n\r\n" + work(),
        b"GET /health HTTP/1.1\r\nHost: x/docs?\r\n\r\n" + work(),
        b"GET /docs HTTP/1.1\r\nHost: me@x\r\n\r\n" + work(),
        b"GET /health HTTP/1.1\r\nHost: x\r\nA: b\rc: d\r\n\r\n" + work(),
    ],
    ids=[
        *("both framings", "chunks in 1.0", "two lengths", "blank before colon", "unknown coding"),
        *("signed length", "hex length", "two hosts", "no host", "path as host", "user as host"),
        "bare CR",
    ],
)
def test_what_two_readers_may_read_differently_ends_the_connection(
    server: ServerProcess, attempt: bytes
) -> None:
    """One refusal in the one shape, and what comes behind it is no request."""
    with connect(server) as cunning:
        cunning.sendall(attempt)
        assert refusal(rest(cunning))[0] in (400, 501)


def test_a_broken_body_ends_the_connection_without_a_traceback(server: ServerProcess) -> None:
    """Before an answer it is a 400; behind one it is the end, and neither is our failure."""
    chunked = head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    with connect(server) as early:
        early.sendall(chunked + b"1\r\n{\r\nxyz\r\n")
        assert refusal(rest(early)) == (400, "malformed_http")
    with connect(server) as late:
        late.sendall(chunked.replace(b"application/json", b"text/plain"))
        assert b" 415 " in one_answer(late)
        late.sendall(b"xyz\r\n")
        assert rest(late) == b""


@pytest.mark.parametrize(
    "target", ["@host", "//", "//health", "/%2e%2e/health", "/health/../docs", "http://y/docs", "*"]
)
def test_a_strange_target_is_not_found(server: ServerProcess, target: str) -> None:
    """Paths mean what they say, whoever is named as host."""
    with connect(server) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert one_answer(connection).startswith(b"HTTP/1.1 404 ")


@pytest.fixture
def crowded() -> Iterator[ServerProcess]:
    """A process that takes two connections."""
    process = ServerProcess(max_connections=2)
    process.await_line("ready")
    yield process
    process.kill()


def test_a_connection_too_many_is_refused_in_words(crowded: ServerProcess) -> None:
    """503 in the one shape, whatever it sends; there is room again when another one ends."""
    with connect(crowded) as first, connect(crowded) as second:
        for connection in (first, second):
            connection.sendall(work())
            assert b"200 OK" in one_answer(connection)
            connection.sendall(work(3.0))
        with connect(crowded) as third:
            answer = rest(third)
            assert refusal(answer) == (503, "too_many_connections")
            assert b"\r\nretry-after: 1\r\n" in answer.lower()
        assert b"200 OK" in one_answer(first)
    await_true(lambda: crowded.status("/health") == 200)


def test_a_new_connection_takes_the_place_of_an_idle_one(crowded: ServerProcess) -> None:
    """Of the one that has been idle longest, so that no crowd of idle clients hides the probes."""
    with connect(crowded) as first, connect(crowded) as second:
        for connection in (first, second):
            connection.sendall(work())
            assert b"200 OK" in one_answer(connection)
        with connect(crowded) as third:
            third.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in one_answer(third)
        assert rest(first) == b""
        second.sendall(work())
        assert b"200 OK" in one_answer(second)


def test_a_client_that_reads_nothing_is_hung_up_on() -> None:
    """Its answers would be kept for it, and its place, for as long as it likes."""
    process = ServerProcess(max_connections=1, body_timeout_s=TIMEOUT_S)
    process.await_line("ready")
    try:
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            deaf.connect(process.address)
            deaf.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
            await_true(lambda: process.status("/health") == 200)
    finally:
        process.kill()


def test_five_hundred_idle_connections_are_no_burden() -> None:
    """With the default settings they stay open, and work is still served."""
    process = ServerProcess()
    process.await_line("ready")
    try:
        with ExitStack() as stack:
            idle = [stack.enter_context(connect(process)) for _ in range(500)]
            for connection in idle:
                connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert all(b"200 OK" in one_answer(connection) for connection in idle)
            assert process.post(0.0).status_code == 200
            idle[0].sendall(work())
            assert b"200 OK" in one_answer(idle[0])
            assert not select.select(idle, [], [], 0)[0]
    finally:
        process.kill()


def test_as_many_files_may_be_open_as_there_may_be_connections(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A low soft limit is raised, up to the hard one; what is higher already is left alone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
        for wanted, allowed in ((700, 700), (600, 700), (hard + 1, hard)):
            _allow_open_files(wanted)
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (allowed, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [record.message for record in caplog.records] == ["few open files"]


def test_a_body_on_its_way_is_in_flight_when_the_drain_begins() -> None:
    """Its request is answered; what begins later on an old connection is refused, and closed."""
    process = ServerProcess(drain_timeout_s=10)
    process.await_line("ready")
    with connect(process) as half, connect(process) as idle:
        idle.sendall(work())
        assert b"200 OK" in one_answer(idle)
        half.sendall(head(2)[:-2] + b"Expect: 100-continue\r\n\r\n")
        assert half.recv(65_536).startswith(b"HTTP/1.1 100 ")
        half.sendall(b"{")
        process.signal(signal.SIGTERM)
        process.await_line("draining")
        idle.sendall(work())
        assert refusal(rest(idle)) == (503, "stopping")
        half.sendall(b"}")
        assert b"200 OK" in one_answer(half)
        assert process.exit_code() == 0
    process.kill()
