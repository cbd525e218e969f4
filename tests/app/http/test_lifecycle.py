"""A real server process from its first moment to its exit status."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from app import server
from tests.app.stub_server import TIMEOUT_S, ServerProcess, await_true

pytestmark = pytest.mark.process

Start = Callable[..., ServerProcess]


def has_ipv6() -> bool:
    """Whether localhost has both addresses on this machine."""
    found = {address[0] for *_, address in socket.getaddrinfo("localhost", None)}
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return {"127.0.0.1", "::1"} <= found
    except OSError:
        return False


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts processes, and ends those that are left."""
    started: list[ServerProcess] = []

    def start(load: str = "ok", **settings: object) -> ServerProcess:
        started.append(ServerProcess(load, **settings))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def ready(start: Start) -> ServerProcess:
    """A process whose engine has started."""
    process = start(drain_timeout_s=10, max_body_bytes=1000)
    process.await_line("ready")
    return process


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for requests that wait."""
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_what_is_served_is_said_once(ready: ServerProcess) -> None:
    """The model's name, and what computes it."""
    (line,) = [line for line in ready.log if "model" in line]
    assert (line["message"], line["model"], line["kernels"]) == ("ready", "stub", "torch")
    assert line["kernels_reason"] == "no compiler"


def test_sigterm_finishes_what_is_in_flight(ready: ServerProcess, pool: ThreadPoolExecutor) -> None:
    """Readiness ends first, early requests are answered, late ones refused, and the exit is 0."""
    early = pool.submit(ready.post, 1.0)
    ready.await_requests(1)
    ready.signal(signal.SIGTERM)
    await_true(lambda: ready.status("/health/ready") == 503)
    assert ready.status("/health/live") == 200
    late = ready.post(0.0)
    assert (late.status_code, late.headers["Connection"]) == (503, "close")
    assert not early.done()
    ready.signal(signal.SIGTERM)
    assert early.result().status_code == 200
    assert ready.exit_code() == 0
    assert ready.log[-1]["message"] == "stopped"
    assert not [line for line in ready.log if "traceback" in line]


def test_the_drain_delay_takes_requests_until_balancers_know(start: Start) -> None:
    """Readiness ends at once; new requests are answered, on connections that then end, and after
    the delay they are refused, while the one in flight still finishes."""
    process = start(drain_delay_s=1.0, drain_timeout_s=10)
    process.await_line("ready")
    assert "Connection" not in process.post(0.0).headers
    process.signal(signal.SIGTERM)
    process.await_line("draining")
    assert process.status("/health/ready") == 503
    late = process.post(0.0)
    assert (late.status_code, late.headers["Connection"]) == (200, "close")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(process.post, 2.0)
        await_true(lambda: process.post(0.0).status_code == 503)
        assert running.result().status_code == 200
    assert process.exit_code() == 0


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_knows_no_delay(
    start: Start, pool: ThreadPoolExecutor, first: signal.Signals
) -> None:
    """Ctrl+C refuses new requests at once, also in the middle of another stop's delay."""
    process = start(drain_delay_s=60.0)
    process.await_line("ready")
    running = pool.submit(process.post, 60.0)
    process.await_requests(1)
    process.signal(first)
    process.await_line("draining")
    process.signal(signal.SIGINT)
    assert running.result().status_code == 503
    assert process.exit_code() == 0


def test_at_the_drain_timeout_the_exit_is_on_time(start: Start, pool: ThreadPoolExecutor) -> None:
    """What has not finished by then gets 503, a slow body too, and the exit is still 0."""
    process = start(drain_timeout_s=0.5)
    process.await_line("ready")
    running = pool.submit(process.post, 60.0)
    process.await_requests(1)
    with socket.create_connection(process.address) as slow:
        slow.sendall(
            b"POST /work/x HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 2\r\n\r\n{"
        )
        time.sleep(0.1)
        began = time.monotonic()
        process.signal(signal.SIGTERM)
        assert running.result().status_code == 503
        assert slow.recv(65_536).startswith(b"HTTP/1.1 503 ")
        assert process.exit_code() == 0
    assert time.monotonic() - began < 4


def test_a_second_interrupt_does_not_wait(ready: ServerProcess, pool: ThreadPoolExecutor) -> None:
    """Ctrl+C drains as SIGTERM does; pressed twice it answers the rest with 503 at once."""
    running = pool.submit(ready.post, 60.0)
    ready.await_requests(1)
    ready.signal(signal.SIGINT)
    ready.await_line("draining")
    ready.signal(signal.SIGINT)
    assert running.result().status_code == 503
    assert ready.exit_code() == 0


def test_sigterm_while_loading_exits_cleanly(start: Start) -> None:
    """The process is live and not ready while it loads, and can be stopped at once."""
    process = start("slow")
    assert process.status("/health/live") == 200
    assert process.status("/health/ready") == 503
    began = time.monotonic()
    process.signal(signal.SIGTERM)
    assert process.exit_code() == 0
    assert time.monotonic() - began < 4


@pytest.mark.parametrize(
    ("load", "reason"),
    [("missing", "model.safetensors is truncated"), ("broken", "KeyError: 'hidden_size'")],
)
def test_a_failed_load_ends_the_process(start: Start, load: str, reason: str) -> None:
    """Never ready, exit non-zero, and the reason is one line of the log."""
    process = start(load)
    assert process.exit_code() == 1
    (line,) = [line for line in process.log if line["level"] == "critical"]
    assert line["message"] == f"cannot serve the model: {reason}"
    assert "ready" not in [line["message"] for line in process.log]


def test_a_dead_engine_ends_the_process(ready: ServerProcess) -> None:
    """When the model thread dies the exit is non-zero and soon, so something can restart it."""
    began = time.monotonic()
    httpx.post(f"{ready.url}/die")
    assert ready.exit_code() == 1
    assert time.monotonic() - began < 4
    reasons = [line["message"] for line in ready.log if line["level"] == "critical"]
    assert reasons == ["the engine died: RuntimeError: the model thread fell over"]


def test_a_client_that_leaves_frees_its_place(ready: ServerProcess) -> None:
    """A closed connection takes its request out of the engine."""
    body = b'{"seconds": 60}'
    head = f"POST /work/x HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(ready.address) as client:
        client.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        ready.await_requests(1)
    ready.await_requests(0)
    ready.signal(signal.SIGTERM)
    assert ready.exit_code() == 0
    (line,) = [line for line in ready.log if line.get("status") == 499]
    assert line["route"] == "/work/{name}"


@pytest.mark.parametrize("framing", ["declared", "chunked"])
def test_the_body_limit_holds_on_the_wire(ready: ServerProcess, framing: str) -> None:
    """One byte too many is 413 for a real client, and the server goes on."""

    def send(length: int) -> int:
        body = b"{}".ljust(length)
        parts = iter([body[:500], body[500:]])
        return httpx.post(
            f"{ready.url}/work/x",
            content=body if framing == "declared" else parts,
            headers={"Content-Type": "application/json"},
        ).status_code

    assert [send(1000), send(1001), send(1_000_000), send(1000)] == [200, 413, 413, 200]


@pytest.mark.parametrize(
    "attempt",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: " + b"a" * (16 << 20),
        b"GET / HTTP/1.1\r\n" + b"".join(b"H%d: x\r\n" % number for number in range(1 << 18)),
        b"BREW /\r\n\r\n",
        b"POST /work/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /work/x HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /work/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    ],
    ids=["long header", "many headers", "nonsense", "two lengths", "negative length", "coding"],
)
def test_abuse_on_the_wire_leaves_the_server_alive(ready: ServerProcess, attempt: bytes) -> None:
    """Endless headers, broken requests and smuggling are refused and end the connection."""
    with socket.create_connection(ready.address, timeout=10) as connection:
        try:
            connection.sendall(attempt)
            answer = connection.recv(65_536)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""  # refused before all of it was said
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ")) or not answer
    assert ready.post(0.0).status_code == 200


@pytest.fixture
def unread(ready: ServerProcess) -> ServerProcess:
    """A process that has answered more requests than its unread log has room for."""
    ready.shrink_pipe()
    with httpx.Client(timeout=TIMEOUT_S) as client:
        for _ in range(60):
            assert client.post(f"{ready.url}/work/x", json={}).status_code == 200
    return ready


def test_a_log_that_nobody_reads_stops_nothing(unread: ServerProcess) -> None:
    """Requests are answered beside a full pipe; read again, it has every line, up to the last."""
    unread.signal(signal.SIGTERM)
    assert unread.exit_code() == 0
    lines = [line["message"] for line in unread.log]
    assert lines.count("request") == 60
    assert lines[-1] == "stopped"


def test_the_end_does_not_wait_for_a_reader_for_ever(unread: ServerProcess) -> None:
    """A stop is carried out although its last lines find nobody who reads them."""
    unread.signal(signal.SIGTERM)
    assert unread.exit_code(reading=False) == 0


def test_the_reason_of_a_crash_waits_its_turn(unread: ServerProcess) -> None:
    """Lines that are written late are written before the exit, the critical one among them."""
    httpx.post(f"{unread.url}/die")
    assert unread.exit_code() == 1
    assert [line for line in unread.log if line["level"] == "critical"]


def test_a_connection_outlives_the_ids_of_its_requests(start: Start) -> None:
    """What is logged of a connection after a large request does not carry that one's id."""
    process = start()
    process.await_line("ready")
    body = json.dumps({"candidates": ["x" * 1000] * 1000}).encode()
    head = f"POST /work/x HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    head += "Content-Type: application/json\r\nX-Request-Id: first\r\n\r\n"
    with socket.create_connection(process.address) as client:
        client.sendall(head.encode() + body)
        assert client.recv(65_536).startswith(b"HTTP/1.1 200 ")
        client.sendall(b"BREW /\r\n\r\n")
        line = process.await_line("Invalid HTTP request received.")
    assert "request_id" not in line


def test_the_server_does_not_say_what_it_is_made_of(ready: ServerProcess) -> None:
    """No header names the server software."""
    assert "server" not in httpx.get(f"{ready.url}/health").headers


def resolve_to(monkeypatch: pytest.MonkeyPatch, *hosts: str) -> None:
    """Let every name have these addresses."""

    def getaddrinfo(_host: str, port: int, **_options: object) -> list[tuple[Any, ...]]:
        found = []
        for host in hosts:
            address = (host, port, 0, 0) if ":" in host else (host, port)
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            found.append((family, socket.SOCK_STREAM, 6, "", address))
        return found

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def close_all(listeners: list[socket.socket]) -> list[str]:
    """Their hosts; all of them have one port."""
    names = [listener.getsockname() for listener in listeners]
    for listener in listeners:
        listener.close()
    assert len({name[1] for name in names}) == 1
    return [name[0] for name in names]


def test_every_address_of_a_host_is_listened_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with several addresses is reached at each of them, on one port, given or free."""
    hosts = ["127.0.0.1", "127.0.0.2"] + (["::1"] if has_ipv6() else [])
    resolve_to(monkeypatch, *hosts, hosts[0])
    listeners = server._listen("many", 0)
    port = listeners[0].getsockname()[1]
    assert close_all(listeners) == hosts
    again = server._listen("many", port)
    assert again[0].getsockname()[1] == port
    assert close_all(again) == hosts


def test_an_address_that_the_machine_lacks_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As localhost has one of IPv6 where there is no IPv6; without any it is an error."""
    resolve_to(monkeypatch, "192.0.2.7", "127.0.0.1")
    assert close_all(server._listen("half", 0)) == ["127.0.0.1"]
    resolve_to(monkeypatch, "192.0.2.7")
    with pytest.raises(server.ListenError, match="cannot listen on none port 0: Cannot assign"):
        server._listen("none", 0)


def test_a_free_port_is_free_on_every_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is taken on the second address is given up for another; a port asked for is not."""
    resolve_to(monkeypatch, "127.0.0.1", "127.0.0.2")
    bound, taken = server._bound, []

    def bound_once_taken(family: socket.AddressFamily, address: tuple[Any, ...]) -> socket.socket:
        if address[0] == "127.0.0.2" and not taken:
            taken.append(socket.create_server(address))
        return bound(family, address)

    monkeypatch.setattr(server, "_bound", bound_once_taken)
    listeners = server._listen("both", 0)
    port = taken[0].getsockname()[1]
    assert listeners[0].getsockname()[1] != port
    assert close_all(listeners) == ["127.0.0.1", "127.0.0.2"]
    with taken[0], pytest.raises(server.ListenError, match=f"port {port}: Address already in use"):
        server._listen("both", port)


@pytest.mark.skipif(not has_ipv6(), reason="localhost has two addresses only where there is IPv6")
def test_localhost_is_both_loopback_addresses(start: Start) -> None:
    """Whichever of them a client of localhost tries first, it is answered."""
    process = start(host="localhost")
    process.await_line("ready")
    port = process.address[1]
    for host in ("127.0.0.1", "[::1]"):
        assert httpx.get(f"http://{host}:{port}/health/live").status_code == 200


def test_answers_do_not_wait_for_acknowledgements() -> None:
    """Connections that come in over our listener have Nagle's algorithm switched off."""

    async def accepted() -> int:
        seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def on_connection(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            seen.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        (bound,) = server._listen("127.0.0.1", 0)
        with bound as listener:
            async with await asyncio.start_server(on_connection, sock=listener):
                _, writer = await asyncio.open_connection(*listener.getsockname())
                writer.close()
                return await seen

    assert asyncio.run(accepted()) != 0
