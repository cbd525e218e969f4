"""Replicas behind Ray Serve, for benchmarks and tests, started and asked from outside of Ray."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

PATIENCE_S = 180.0

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deploy.ray.proxy:middlewares",
    "HF_HUB_OFFLINE": "1",
}
"""Of every process of Ray's. It never tells anybody that it was used."""


@dataclass(frozen=True, slots=True)
class ReplicaProcess:
    """One replica, as Serve's controller knows it."""

    id: str
    pid: int | None
    state: str


class RayFleet:
    """Ray on this machine, and a port behind which the app's replicas are."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def deploy(self, **args: object) -> None:
        """Deploy with these arguments, or change them; returns when the replicas are ready.

        Raises:
            RuntimeError: they cannot be.
        """
        answer = self._ask(do="deploy", args=args, wait=True)
        if "failed" in answer:
            raise RuntimeError(answer["failed"])

    def change(self, **args: object) -> None:
        """The same, without waiting."""
        self._ask(do="deploy", args=args, wait=False)

    def replicas(self, *states: str) -> list[ReplicaProcess]:
        """Those in one of ``states``; by default those that run."""
        found = [ReplicaProcess(**one) for one in self._ask(do="replicas")]
        return [one for one in found if one.state in (states or ("RUNNING",))]

    def await_replicas(self, count: int, *, without: ReplicaProcess | None = None) -> None:
        """Wait until so many run, ``without`` none of them, and no other is left.

        Raises:
            TimeoutError: they do not.
        """
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            every = [ReplicaProcess(**one) for one in self._ask(do="replicas")]
            running = [one for one in every if one.state == "RUNNING"]
            left = without is not None and without.id in {one.id for one in every}
            if len(running) == len(every) == count and not left:
                return
            time.sleep(0.2)
        raise TimeoutError(f"there are not {count} replicas: {every}")

    def metrics_port(self) -> int:
        """Where this node shows its metrics to Prometheus."""
        return int(self._ask(do="metrics_port"))

    def _ask(self, **command: object) -> Any:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("this is a bug: Ray's process has no pipes")
        print(json.dumps(command), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("Ray's process has ended")
        return json.loads(answer)


@contextmanager
def ray_fleet(*, cpus: int = 4, **environment: str) -> Iterator[RayFleet]:
    """Start Ray and Serve, without a replica; all of it ends with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    options = json.dumps({"port": port, "cpus": cpus})
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.ray_program", options],
        env=os.environ | {"PYTHONPATH": os.getcwd()} | ENVIRONMENT | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield RayFleet(process, port)
    finally:
        try:
            # The end of its input is its sign to stop.
            process.communicate(timeout=60)
        finally:
            process.kill()
            process.communicate()
