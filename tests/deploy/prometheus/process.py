"""A real Prometheus with the files of ``deploy/prometheus/``."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.deploy.prometheus.files import CONFIG, RULE_FILES, with_key

TIMEOUT_S = 60.0
INTERVAL_S = 1.0
"""Between two scrapes, and two evaluations of the rules."""

Series = dict[str, str]


class Prometheus:
    """One that runs."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url, timeout=TIMEOUT_S)

    def get(self, path: str, **params: str) -> Any:
        """The data of an answer that succeeds."""
        response = self.client.get(f"/api/v1/{path}", params=params)
        answer = response.json()
        assert answer["status"] == "success", answer
        assert "warnings" not in answer, answer
        return answer["data"]

    def query(self, expr: str) -> list[tuple[Series, float]]:
        """The labels and values of what an expression gives now."""
        data = self.get("query", query=expr)
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(one["metric"], float(one["value"][1])) for one in data["result"]]

    def value(self, expr: str) -> float | None:
        """The only value; None where there is none."""
        found = self.query(expr)
        assert len(found) <= 1, found
        return found[0][1] if found else None

    def await_true(self, condition: Callable[[], bool]) -> None:
        """Ask until it holds; what is scraped or evaluated is seen a moment later."""
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, self.get("targets")["activeTargets"]
            time.sleep(INTERVAL_S / 4)


def free_address() -> str:
    """Where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def config(targets: Sequence[str], more: str = "") -> str:
    """The config for these targets, with the key's lines, and with ``more`` jobs."""
    text = with_key(CONFIG.read_text()).replace("../api_key", "api_key")
    assert "          - localhost:8000\n" in text and text.count(": 15s") == 2
    listed = "".join(f"          - {target}\n" for target in targets)
    text = text.replace("          - localhost:8000\n", listed)
    return text.replace(": 15s", f": {INTERVAL_S:.0f}s") + more


@contextmanager
def running_prometheus(folder: Path, text: str, key: str) -> Iterator[Prometheus]:
    """Start one with a config, our rules and the key's file; it must end when it is told to."""
    for path in RULE_FILES:
        shutil.copy(path, folder)
    (folder / "api_key").write_text(key)
    (folder / CONFIG.name).write_text(text)
    address = free_address()
    command = ["prometheus", f"--config.file={folder / CONFIG.name}", "--log.level=warn"]
    flags = [f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}"]
    log = folder / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen([*command, *flags], stdout=stderr, stderr=stderr)
    try:
        prometheus = Prometheus(f"http://{address}")
        prometheus.await_true(lambda: _is_ready(process, prometheus, log))
        yield prometheus
        prometheus.client.close()
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0
        assert "level=error" not in log.read_text()
    finally:
        process.kill()
        process.wait()


def _is_ready(process: subprocess.Popen[bytes], prometheus: Prometheus, log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        return prometheus.client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False
