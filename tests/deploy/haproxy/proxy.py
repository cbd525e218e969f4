"""HAProxy as deploy/haproxy/ sets it up, in front of servers that tests start."""

from __future__ import annotations

import csv
import io
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.app.stub_server import await_true

CONFIG = Path(__file__).parents[3] / "deploy" / "haproxy" / "haproxy.cfg"

TIMEOUT_S = 60.0

Change = tuple[str, str]
"""Words of the configuration, and what a test puts in their place."""


class Proxy:
    """A running HAProxy.

    Attributes:
        url: where it takes requests.
        http: a client that opens a connection for each request.
        stats_url: where it shows its state.
        log: what it writes.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int, stats: int, log: Path) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.address = ("127.0.0.1", port)
        self.stats_url = f"http://127.0.0.1:{stats}"
        self.log = log
        unkept = httpx.Limits(max_keepalive_connections=0)
        self.http = httpx.Client(limits=unkept, timeout=TIMEOUT_S)

    def rows(self) -> dict[str, dict[str, str]]:
        """What the proxy says of each replica, by name."""
        text = self.http.get(f"{self.stats_url}/;csv").text.removeprefix("# ")
        rows = csv.DictReader(io.StringIO(text))
        return {
            row["svname"]: row
            for row in rows
            if row["pxname"] == "replicas" and row["svname"] != "BACKEND"
        }

    def up(self) -> list[str]:
        """Names of the replicas that get requests."""
        return [name for name, row in self.rows().items() if row["status"].startswith("UP")]

    def await_up(self, *numbers: int) -> None:
        """Wait until exactly these replicas get requests."""
        wanted = [f"replica{number}" for number in numbers]
        await_true(lambda: self.up() == wanted)

    def work(self, session: str | None = None, seconds: float = 0.0) -> httpx.Response:
        """Keep a stub engine busy for so long."""
        headers = {} if session is None else {"X-Session-Id": session}
        body = {"seconds": seconds}
        return self.http.post(f"{self.url}/work/x", json=body, headers=headers)

    def requests(self) -> dict[str, int]:
        """How many each replica was given so far, by name."""
        return {name: int(row["stot"]) for name, row in self.rows().items()}


def free_port() -> int:
    """One that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def config_path(folder: Path, changes: Sequence[Change]) -> Path:
    """The configuration, with other words in places that must be there."""
    text = CONFIG.read_text()
    for old, new in changes:
        assert old in text, f"the configuration has lost {old!r}"
        text = text.replace(old, new)
    path = folder / "haproxy.cfg"
    path.write_text(text)
    return path


@contextmanager
def proxy(
    ports: Sequence[int], folder: Path, *changes: Change, by_name: str | None = None
) -> Iterator[Proxy]:
    """Start it before the servers at these ports, or at those that a name and port stand for; it
    is ended with them still there."""
    program = shutil.which("haproxy")
    assert program, "haproxy is needed: apt-get install haproxy"
    port, stats = free_port(), free_port()
    replicas = {
        f"CHAINRULE_REPLICA_{number}": f"127.0.0.1:{one}" for number, one in enumerate(ports, 1)
    }
    if by_name is not None:
        replicas = {"CHAINRULE_REPLICAS": by_name}
    own = {
        "CHAINRULE_PROXY_BIND": f"127.0.0.1:{port}",
        "CHAINRULE_PROXY_STATS_BIND": f"127.0.0.1:{stats}",
    }
    log = folder / "haproxy.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [program, "-dW", "-db", "-f", str(config_path(folder, changes))],
            env=os.environ | replicas | own,
            stderr=stderr,
        )
    try:
        started = Proxy(process, port, stats, log)
        with started.http:
            await_true(lambda: _answers(started))
            yield started
        assert process.poll() is None, log.read_text()
    finally:
        process.kill()
        process.wait()


def _answers(started: Proxy) -> bool:
    assert started.process.poll() is None, started.log.read_text()
    try:
        return started.http.get(started.stats_url).is_success
    except httpx.TransportError:
        return False
