"""`chainrule serve` as users start it: the installed entry point, a port, real requests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

TIMEOUT_S = 120.0


class LiveServer:
    """A running server, ready for requests."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{int(self.await_line('listening')['port'])}"
        self.await_line("ready")
        self.client = httpx.Client(base_url=self.url, timeout=TIMEOUT_S)

    def await_line(self, message: str) -> dict[str, Any]:
        """Read the log up to the line with this message."""
        if self.process.stderr is None:
            raise RuntimeError("the server was started without a pipe for its log")
        seen = []
        for text in self.process.stderr:
            seen.append(text)
            if text.startswith("{") and json.loads(text)["message"] == message:
                line: dict[str, Any] = json.loads(text)
                return line
        raise AssertionError(f"the server ended before {message!r}: {seen}")

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request that succeeds."""
        response = self.client.post(path, json=body)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def metric(self, name: str) -> float:
        """A counter or gauge without labels."""
        for line in self.client.get("/metrics").text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        raise AssertionError(f"no metric {name}")


@contextmanager
def live_server(**settings: object) -> Iterator[LiveServer]:
    """Start a server with these settings; it is ended with SIGTERM and must exit with 0."""
    environment = {f"CHAINRULE_{name.upper()}": str(value) for name, value in settings.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "serve", "--port", "0"],
        env=os.environ | environment | {"HF_HUB_OFFLINE": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        server = LiveServer(process)
        yield server
        server.client.close()
        process.terminate()
        process.communicate(timeout=30)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()
