"""A replica that is loading, full, stalled, draining or dead, and what a client hears of it."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.client import Client
from tests.app.faulty_engine import HANGS, HELD
from tests.app.stub_server import ServerProcess, await_true
from tests.deploy.haproxy.proxy import Proxy, free_port, proxy

pytestmark = pytest.mark.fleet

TIMEOUT_S = 30.0
Start = Callable[..., ServerProcess]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts servers, and ends those that are left."""
    started: list[ServerProcess] = []

    def start(load: str = "ok", *, awaited: str = "ready", **settings: Any) -> ServerProcess:
        started.append(ServerProcess(load, **settings))
        if awaited != "listening":
            started[-1].await_line(awaited)
        return started[-1]

    yield start
    for process in started:
        process.kill()


def port_of(server: ServerProcess) -> int:
    return server.address[1]


def score(url: str, *tokens: int, session: str = "a") -> httpx.Response:
    """A request to a faulty engine."""
    body = {"context": tokens[:-1], "candidates": [tokens[-1:]]}
    headers = {"X-Session-Id": session}
    return httpx.post(f"{url}/v1/score", json=body, headers=headers, timeout=TIMEOUT_S)


def queued(server: ServerProcess) -> int:
    """Requests that it works on."""
    return int(httpx.get(f"{server.url}/health").json()["queue"]["queued_requests"])


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error object of an answer in the native shape."""
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def test_a_replica_that_loads_gets_no_requests(start: Start, tmp_path: Path) -> None:
    """Its readiness keeps it out until it has passed a forward."""
    loading, ready = start("slow", awaited="listening"), start()
    with proxy([port_of(loading), port_of(ready)], tmp_path) as proxied:
        proxied.await_up(2)
        before = proxied.requests()
        assert {proxied.work().status_code for _ in range(20)} == {200}
        after = proxied.requests()
    assert after["replica1"] == before["replica1"]
    assert after["replica2"] == before["replica2"] + 20


def test_without_any_replica_the_proxy_says_so(start: Start, tmp_path: Path) -> None:
    """503 in the shape of the server's own errors, with the time to wait; then all is well."""
    port = free_port()
    with proxy([port], tmp_path) as proxied:
        proxied.await_up()
        refused = proxied.work()
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert error_of(refused)["code"] == "no_replica"
        start(port=port)
        proxied.await_up(1)
        assert proxied.work().status_code == 200


def test_a_full_replica_says_when_to_come_again(start: Start, tmp_path: Path) -> None:
    """429 and Retry-After come through as they are, and nothing is sent twice."""
    full = start("faulty", max_queue_tokens=70)
    with proxy([port_of(full)], tmp_path) as proxied, ThreadPoolExecutor(1) as pool:
        held = pool.submit(score, proxied.url, HELD, *range(60))
        full.await_requests(1)
        before = proxied.requests()["replica1"]
        refused = score(proxied.url, *range(1, 21))
        assert (refused.status_code, error_of(refused)["code"]) == (429, "queue_full")
        assert int(refused.headers["Retry-After"]) >= 1
        assert proxied.requests()["replica1"] == before + 1
        full.release()
        assert held.result().status_code == 200


def test_a_stalled_replica_gets_no_more_requests(start: Start, tmp_path: Path) -> None:
    """It is out while its model makes no progress; when it is given up, its request fails with
    503, which may be repeated elsewhere."""
    stalled, other = (start("faulty", watchdog_timeout_s=20.0) for _ in range(2))
    with proxy([port_of(stalled), port_of(other)], tmp_path) as proxied:
        proxied.await_up(1, 2)
        with ThreadPoolExecutor(1) as pool:
            hanging = pool.submit(score, stalled.url, HANGS, 1)
            proxied.await_up(2)
            assert {score(proxied.url, 1, 2, session=f"{n}").status_code for n in range(8)} == {200}
            assert hanging.result().status_code == 503


def test_a_draining_replica_finishes_and_gets_nothing_new(start: Start, tmp_path: Path) -> None:
    """Within the drain delay it is taken out; until then what it is given, it answers."""
    draining, other = start(drain_delay_s=4.0, drain_timeout_s=10), start()
    with proxy([port_of(draining), port_of(other)], tmp_path) as proxied:
        proxied.await_up(1, 2)
        with ThreadPoolExecutor(8) as pool:
            early = [pool.submit(proxied.work, None, 3.0) for _ in range(6)]
            await_true(lambda: queued(draining) + queued(other) == 6)
            assert queued(draining) and queued(other)
            draining.signal(signal.SIGTERM)
            while "replica1" in proxied.up():
                assert proxied.work().status_code == 200
            before = proxied.requests()["replica1"]
            assert {proxied.work().status_code for _ in range(10)} == {200}
            assert proxied.requests()["replica1"] == before
            assert [one.result().status_code for one in early] == [200] * 6
        assert draining.exit_code() == 0


def test_a_dead_replica_is_passed_over_at_once(start: Start, tmp_path: Path) -> None:
    """Before any check could notice: who gets no connection has begun nothing, so another replica
    is sent the request, and the dead one no other."""
    dying, other = start(), start()
    rarely = ("inter 1s fastinter 500ms downinter 1s", "inter 1h")
    with proxy([port_of(dying), port_of(other)], tmp_path, rarely) as proxied:
        session = _on_first(proxied)
        dying.kill()
        answers = [proxied.work(session) for _ in range(5)]
        assert {one.status_code for one in answers} == {200}
        assert proxied.up() == ["replica2"]
        assert proxied.rows()["replica1"]["wredis"] == "1"


def test_what_a_replica_has_begun_is_not_sent_to_another(start: Start, tmp_path: Path) -> None:
    """A request that dies with its replica is 502 at once, and the other one has never seen it."""
    dying, other = start(), start()
    with proxy([port_of(dying), port_of(other)], tmp_path) as proxied:
        proxied.await_up(1, 2)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(proxied.work, _on_first(proxied), 60.0)
            dying.await_requests(1)
            before = proxied.requests()["replica2"]
            dying.kill()
            failed = running.result()
        assert (failed.status_code, error_of(failed)["code"]) == (502, "bad_gateway")
        assert proxied.requests()["replica2"] == before


def _on_first(proxied: Proxy) -> str:
    """A session that the first replica has."""
    for number in range(100):
        before = proxied.requests()["replica1"]
        assert proxied.work(f"{number}").status_code == 200
        if proxied.requests()["replica1"] > before:
            return f"{number}"
    raise AssertionError("no session is the first replica's")


def test_a_client_that_leaves_stops_its_work(start: Start, tmp_path: Path) -> None:
    """The replica hears of it, and its engine has nothing to do any more."""
    server = start()
    body = b'{"seconds": 60}'
    head = b"POST /work/x HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += b"Content-Length: %d\r\n\r\n" % len(body)
    with proxy([port_of(server)], tmp_path) as proxied:
        with socket.create_connection(proxied.address) as client:
            client.sendall(head + body)
            server.await_requests(1)
        server.await_requests(0)
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0
    (line,) = [line for line in server.log if line.get("route") == "/work/{name}"]
    assert line["status"] == 499


def test_an_answer_may_take_longer_than_its_client_may_say_nothing(
    start: Start, tmp_path: Path
) -> None:
    """The time that bounds a slow sender does not run while the replica computes."""
    server = start()
    with proxy([port_of(server)], tmp_path, ("timeout client 60s", "timeout client 1s")) as proxied:
        assert proxied.work(seconds=3.0).status_code == 200


@pytest.mark.parametrize("framing", ["declared", "chunked"])
def test_a_body_that_is_too_large_is_refused_by_the_replica(
    start: Start, tmp_path: Path, framing: str
) -> None:
    """413 comes through in both framings, and the next request is answered."""
    server = start(max_body_bytes=100_000)

    def send(length: int) -> int:
        body = b"{}".ljust(length)
        parts = iter([body[:500], body[500:]])
        return httpx.post(
            f"{proxied.url}/work/x",
            content=body if framing == "declared" else parts,
            headers={"Content-Type": "application/json"},
            timeout=TIMEOUT_S,
        ).status_code

    with proxy([port_of(server)], tmp_path) as proxied:
        assert [send(n) for n in (100_000, 100_001, 200_000, 100_000)] == [200, 413, 413, 200]


def test_headers_pass_both_ways(start: Start, tmp_path: Path) -> None:
    """The request's id and the fingerprint come back; a refusal of the replica is its own."""
    server = start(api_keys="secret")
    with proxy([port_of(server)], tmp_path) as proxied:
        url = f"{proxied.url}/work/x"
        refused = proxied.http.post(url, json={}, headers={"X-Request-Id": "mine"})
        assert (refused.status_code, refused.headers["X-Request-Id"]) == (401, "mine")
        assert refused.headers["X-Chainrule-Fingerprint"] == "0" * 24
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        opened = proxied.http.post(url, json={}, headers={"Authorization": "Bearer secret"})
        assert opened.status_code == 200


def test_metrics_are_each_replicas_own(start: Start, tmp_path: Path) -> None:
    """Not those of whichever answers; the proxy's own are on its own address."""
    server = start()
    with proxy([port_of(server)], tmp_path) as proxied:
        for path in ("/metrics", "/%6Detrics"):
            answer = httpx.get(proxied.url + path)
            assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")
        own = httpx.get(f"{proxied.stats_url}/metrics").text
    assert 'haproxy_server_status{proxy="replicas",server="replica1",state="UP"} 1' in own


def test_what_is_no_http_is_refused(start: Start, tmp_path: Path) -> None:
    """By the proxy, in words of its own that no setting changes, and the connection ends."""
    with proxy([port_of(start())], tmp_path) as proxied:
        with socket.create_connection(proxied.address, timeout=10) as client:
            client.sendall(b"BREW /\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(65_536), b""))
        assert answer.startswith(b"HTTP/1.1 400 ")


def test_a_stream_comes_through_event_by_event(
    start: Start, tmp_path: Path, tiny_folder: Callable[[str], Path]
) -> None:
    """The first token is there while the replica still decodes."""
    server = start("model", model=str(tiny_folder("llama")))
    with proxy([port_of(server)], tmp_path) as proxied, Client(proxied.url) as client:
        stream = client.stream(context="it is", max_tokens=400, ignore_eos=True)
        next(stream)
        await_true(lambda: httpx.get(f"{server.url}/health").status_code == 200)
        assert httpx.get(f"{server.url}/health").json()["queue"]["queued_requests"] == 1
        began = time.monotonic()
        stream.close()
        server.await_requests(0)
        assert time.monotonic() - began < TIMEOUT_S
