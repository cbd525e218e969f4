"""A worker in a process group of its own, which stands still while the other side runs."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from benchmarks.peers.protocol import Answer, Request

START_TIMEOUT_S = 1800
"""Loading, converting and compiling; some peers do all three at their first start."""


class PeerFailed(Exception):
    """A peer cannot be started or asked; the message is the reason in one line."""


class NotOffered(Exception):
    """A peer has nothing that does this; the message says what it lacks."""


class PeerProcess:
    """A started worker. Between requests its whole group is stopped, so that it takes no core.

    Args:
        command: what to run; it speaks ``protocol``.
        environment: added to this process's own.
        log: where its standard error goes.
        timeout_s: seconds for one answer.

    Raises:
        PeerFailed: it ended, or said nothing in time.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, timeout_s: float
    ) -> None:
        self._log, self._timeout_s = log, timeout_s
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                stderr=errors,
                env=_inherited() | dict(environment),
                start_new_session=True,
            )
        self._unread, self._ended = b"", ""
        self._requests, self._answers = _pipes(self._process)
        try:
            self.version = str(self._read(START_TIMEOUT_S)["version"])
        except BaseException:
            self.close()
            raise
        self._signal(signal.SIGSTOP)

    @property
    def pid(self) -> int:
        """Of the process that was started."""
        return self._process.pid

    def ask(self, request: Request) -> Answer:
        """The answer to one request.

        Raises:
            NotOffered: it has nothing that does this.
            PeerFailed: it could not, or it has ended; then every later request says so too.
        """
        if self._ended:
            raise PeerFailed(self._ended)
        self._signal(signal.SIGCONT)
        try:
            os.write(self._requests.fileno(), request.to_line().encode())
            answer = self._read(self._timeout_s)
        except BrokenPipeError:
            raise self._end(self._last_words()) from None
        finally:
            self._signal(signal.SIGSTOP)
        if "not_offered" in answer:
            raise NotOffered(answer["not_offered"])
        if "error" in answer:
            raise PeerFailed(answer["error"])
        return Answer(**answer)

    def close(self) -> None:
        """End the whole group at once."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._requests.close()
        self._answers.close()

    def __enter__(self) -> PeerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _read(self, seconds: float) -> dict[str, Any]:
        """The next line, as an object."""
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise self._end(f"no answer in {seconds:.0f} s")
                piece = os.read(self._answers.fileno(), 1 << 16)
                if not piece:
                    raise self._end(self._last_words())
                self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _end(self, reason: str) -> PeerFailed:
        """Kill what is left of it, and remember why."""
        self._ended = reason
        self._signal(signal.SIGKILL)
        return PeerFailed(reason)

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return f"the worker ended; its last line: {said[-1] if said else 'nothing'}"


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    if process.stdin is None or process.stdout is None:
        raise PeerFailed("the worker has no pipes; this is a bug of the benchmark")
    return process.stdin, process.stdout


def _inherited() -> dict[str, str]:
    """This environment, but for the thread settings that were chosen for chainrule alone."""
    own = ("GOMP_SPINCOUNT", "OMP_NUM_THREADS")
    return {name: value for name, value in os.environ.items() if name not in own}
