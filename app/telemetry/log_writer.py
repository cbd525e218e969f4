"""Log lines on their way out: a queue with a bound, and a thread that writes.

A write blocks for as long as whoever reads the log pleases, as a full pipe has no room. So no line
is written by the thread that logs it, which may be the event loop's or the model's.
"""

from __future__ import annotations

import logging
import os
import select
from queue import SimpleQueue
from threading import Event, Thread
from typing import Final

MAX_WAITING_BYTES: Final = 4 << 20
"""Lines that may wait to be written; what is logged beyond is dropped."""

FLUSH_S: Final = 2.0
"""Seconds that the end of the process waits for a reader that does not read."""


class LogWriter(logging.Handler):
    """Writes lines to a file descriptor, each whole or not at all, and never makes anybody wait.

    Lines are formatted where they are logged, since they speak of that moment. A critical line, the
    reason why the process ends, is never dropped. After lines were dropped one line says how many.

    Args:
        fd: where to write; this process's standard error is 2.
        max_bytes: what may wait.
    """

    def __init__(self, fd: int, max_bytes: int = MAX_WAITING_BYTES) -> None:
        super().__init__()
        self._fd = fd
        self._max_bytes = max_bytes
        self._queue: SimpleQueue[bytes | Event | None] = SimpleQueue()
        # Each of these is counted by one side alone: by who logs, or by the thread that writes.
        self._taken_bytes = self._refused = 0
        self._done_bytes = self._failed = self._told = 0
        self._closed = False
        Thread(target=self._run, name="log-writer", daemon=True).start()

    @property
    def dropped(self) -> int:
        """Lines that found no room or could not be written, so far."""
        return self._refused + self._failed

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record's line."""
        try:
            line = self._line(record)
        except Exception:
            self.handleError(record)
            return
        if self._waiting + len(line) > self._max_bytes and record.levelno < logging.CRITICAL:
            self._refused += 1
            return
        self._taken_bytes += len(line)
        self._queue.put(line)

    def flush(self) -> None:
        """Wait until what was logged is written, or for ``FLUSH_S`` seconds."""
        if not self._closed:
            written = Event()
            self._queue.put(written)
            written.wait(FLUSH_S)

    def close(self) -> None:
        """Let the thread end once it has written everything; it is not waited for."""
        self._closed = True
        self._queue.put(None)
        super().close()

    @property
    def _waiting(self) -> int:
        return self._taken_bytes - self._done_bytes

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(errors="backslashreplace")

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if isinstance(item, Event):
                item.set()
                continue
            written = self._write(item)
            self._done_bytes += len(item)
            if not written:
                self._failed += 1
            elif self.dropped > self._told and self._waiting <= self._max_bytes // 2:
                self._tell()

    def _tell(self) -> None:
        dropped = self.dropped
        facts = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING"}
        message = "log lines were dropped, as they were not read in time"
        lines = {"msg": message, "lines": dropped - self._told}
        if self._write(self._line(logging.makeLogRecord({**facts, **lines}))):
            self._told = dropped

    def _write(self, line: bytes) -> bool:
        while line:
            try:
                line = line[os.write(self._fd, line) :]
            except BlockingIOError:
                # Whoever started the process may have made the pipe one that does not block.
                select.select([], [self._fd], [])
            except OSError:
                return False
        return True
