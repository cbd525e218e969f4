"""A server process under observation: memory, threads, open files, tasks, and what it logs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.end_to_end.live_server import LiveServer
from tests.soak.observed_server import LEAK, TASKS

SETTLE_S = 60.0
_BAD_LEVELS = ("error", "critical")


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds that it has to give back.

    Attributes:
        threads: of the process.
        files: open file descriptors, sockets among them.
        tasks: of asyncio.
        requests: admitted to the engine and not finished.
        tokens: of those requests.
    """

    threads: int
    files: int
    tasks: int
    requests: float
    tokens: float


class Observed:
    """A running server whose log is read to the end by a thread.

    Attributes:
        complaints: lines of the log that say error or critical, and those that are no JSON.
    """

    def __init__(self, process: subprocess.Popen[str], key: str | None) -> None:
        self.server = LiveServer(process)
        if key is not None:
            self.server.client.headers["Authorization"] = f"Bearer {key}"
        self.url = self.server.url
        self.complaints: list[str] = []
        self._proc = Path(f"/proc/{process.pid}")
        self._reader = threading.Thread(target=self._read_log, args=(process,), daemon=True)
        self._reader.start()

    def resident(self) -> int:
        """Bytes of memory that are resident."""
        return int((self._proc / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def held(self) -> Held:
        """Of this moment; the connection that asks is among the files each time."""
        tasks = self.server.client.get(TASKS)
        tasks.raise_for_status()
        return Held(
            threads=len(list((self._proc / "task").iterdir())),
            files=len(list((self._proc / "fd").iterdir())),
            tasks=int(tasks.text),
            requests=self.server.metric("chainrule_queued_requests"),
            tokens=self.server.metric("chainrule_queued_tokens"),
        )

    def plant_leak(self, size: int) -> None:
        """Let every request from now on leave so many bytes behind."""
        self.server.client.post(LEAK, content=str(size)).raise_for_status()

    def settled(self, limit: Held, within_s: float = SETTLE_S) -> Held:
        """What it holds as soon as that is nowhere more than ``limit``, or else at last."""

        def fits(held: Held) -> bool:
            return all(getattr(held, name) <= getattr(limit, name) for name in Held.__slots__)

        deadline = time.monotonic() + within_s
        while not fits(held := self.held()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return held

    def queued_at_last(self, within_s: float = SETTLE_S) -> float:
        """Tokens in the queue: 0 as soon as it is empty, or what is left in the end."""
        deadline = time.monotonic() + within_s
        while (queued := self.server.metric("chainrule_queued_tokens")) and (
            time.monotonic() < deadline
        ):
            time.sleep(0.05)
        return queued

    def close(self) -> None:
        """Wait for the end of the log, when the process has ended."""
        self.server.client.close()
        self._reader.join()

    def _read_log(self, process: subprocess.Popen[str]) -> None:
        if process.stderr is None:
            raise RuntimeError("the server was started without a pipe for its log")
        for text in process.stderr:
            if not text.startswith("{") or json.loads(text)["level"] in _BAD_LEVELS:
                self.complaints.append(text.rstrip())


@contextmanager
def observed_server(key: str | None = None, **settings: object) -> Iterator[Observed]:
    """Start a server; it is ended with SIGTERM and must exit with 0.

    Args:
        key: what the observer shows as its API key.
        settings: of the server.
    """
    environment = {f"CHAINRULE_{name.upper()}": str(value) for name, value in settings.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.soak.observed_server", "serve", "--port", "0"],
        env=os.environ | environment | {"HF_HUB_OFFLINE": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    observed: Observed | None = None
    try:
        observed = Observed(process, key)
        yield observed
        process.terminate()
        process.wait(60)
        if process.returncode != 0:
            raise RuntimeError(f"the server ended with {process.returncode}: {observed.complaints}")
    finally:
        process.kill()
        process.wait()
        if observed is not None:
            observed.close()
        if process.stderr is not None:
            process.stderr.close()


class Sampler:
    """Calls ``sample`` on a thread every ``every_s`` seconds until the block ends.

    Attributes:
        samples: seconds since the start, and what it said.
    """

    def __init__(self, sample: Callable[[], float], every_s: float) -> None:
        self.samples: list[tuple[float, float]] = []
        self._sample, self._every_s = sample, every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        began = time.monotonic()
        while not self._over.wait(self._every_s):
            self.samples.append((time.monotonic() - began, self._sample()))
