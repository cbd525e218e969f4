"""Replicas that are restarted, or die, under a load that does not stop."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.client import Client, Retries
from tests.app.stub_server import ServerProcess
from tests.deploy.haproxy.load import body_of, running_load
from tests.deploy.haproxy.proxy import Proxy, free_port, proxy

pytestmark = pytest.mark.fleet

BODIES = 12
CLIENTS = 8


class Replicas:
    """Two servers of one model; each may be ended and started anew at its port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ports = [free_port(), free_port()]
        self.servers = [self._started(port) for port in self.ports]

    def restart(self, index: int) -> None:
        """As an upgrade does it: SIGTERM, wait for the end, start the next."""
        self.servers[index].signal(signal.SIGTERM)
        assert self.servers[index].exit_code() == 0
        self.servers[index].kill()
        self.servers[index] = self._started(self.ports[index])

    def end(self) -> None:
        """End both."""
        for server in self.servers:
            server.kill()

    def _started(self, port: int) -> ServerProcess:
        server = ServerProcess(
            "model",
            model=str(self._folder),
            port=port,
            kv_cache_bytes=64 << 20,
            drain_delay_s=5.0,
            threads=1,
        )
        server.await_line("ready")
        return server


@pytest.fixture
def replicas(tiny_folder: Callable[[str], Path]) -> Iterator[Replicas]:
    """Both, ready."""
    both = Replicas(tiny_folder("llama"))
    yield both
    both.end()


@pytest.fixture
def proxied(replicas: Replicas, tmp_path: Path) -> Iterator[Proxy]:
    """The proxy in front of both."""
    with proxy(replicas.ports, tmp_path) as proxied:
        proxied.await_up(1, 2)
        yield proxied


def test_a_rolling_restart_fails_no_request(replicas: Replicas, proxied: Proxy) -> None:
    """Both replicas are replaced one after the other; every request is answered the first time it
    is sent, with the bits that either gives."""
    pids = [server.pid for server in replicas.servers]
    with running_load(proxied.url, clients=CLIENTS, bodies=BODIES) as load:
        load.await_more(50)
        for index in range(2):
            replicas.restart(index)
            proxied.await_up(1, 2)
            load.await_more(50)
    assert not load.failures, load.failures[:3]
    assert not set(pids) & {server.pid for server in replicas.servers}
    assert min(proxied.requests().values()) > 50
    assert sorted(load.bits()) == list(range(BODIES))
    assert all(len(answers) == 1 for answers in load.bits().values())
    assert len({one.fingerprint for one in load.asked}) == 1


def test_a_killed_replica_takes_only_what_it_held(replicas: Replicas, proxied: Proxy) -> None:
    """What was in flight may fail; what is sent once the replica is gone does not."""
    with running_load(proxied.url, clients=CLIENTS, bodies=BODIES) as load:
        load.await_more(50)
        replicas.servers[0].kill()
        gone = time.monotonic()
        load.await_more(200)
        proxied.await_up(2)
    assert [one for one in load.failures if one.began > gone] == []
    assert len(load.failures) <= CLIENTS
    assert all(len(answers) == 1 for answers in load.bits().values())


def test_our_client_repeats_what_a_killed_replica_held(replicas: Replicas, proxied: Proxy) -> None:
    """It gets every answer, and each is the one that it would have had."""
    want = {}
    with Client(proxied.url) as client:
        for number in range(BODIES):
            want[number] = [one.logprob for one in client.score(body_of(number)).results]
    numbers = [number % BODIES for number in range(300)]
    retries = Retries(attempts=5, first_wait_s=0.05, longest_wait_s=1.0)
    with (
        Client(proxied.url, session="context", retries=retries) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        answers = client.score_many((body_of(number) for number in numbers), concurrency=CLIENTS)
        got = [[one.logprob for one in next(answers).results] for _ in range(30)]
        killed = pool.submit(replicas.servers[0].kill)
        got += [[one.logprob for one in answer.results] for answer in answers]
        killed.result()
    assert got == [want[number] for number in numbers]
