"""The thread that writes the log: whoever logs never waits for it, and what is lost is told."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from app.telemetry import log_writer
from app.telemetry.log_writer import LogWriter
from app.telemetry.logs import JsonFormatter, dropped_lines
from app.telemetry.metrics import Metrics
from model_runtime import EngineStats


class Pipe:
    """A log's pipe, of a page, and the logger that writes into it."""

    def __init__(self, max_bytes: int) -> None:
        reader, self.fd = os.pipe()
        self.reader = os.fdopen(reader)
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
        self.handler = LogWriter(self.fd, max_bytes)
        self.handler.setFormatter(JsonFormatter())
        self.logger = logging.Logger("app.x")
        self.logger.addHandler(self.handler)

    def fill(self) -> None:
        """Log until a line is dropped."""
        while not self.handler.dropped:
            self.logger.info("x" * 1000)

    def lines(self, enough: str) -> list[dict[str, object]]:
        """Read up to a line with this message."""
        found = []
        for text in self.reader:
            found.append(json.loads(text))
            if found[-1]["message"] == enough:
                return found
        raise AssertionError(f"the log ended without {enough!r}")

    def close(self) -> None:
        """Whatever still waits finds nobody."""
        self.handler.close()
        self.reader.close()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """With room for some lines."""
    pipe = Pipe(max_bytes=16_000)
    yield pipe
    pipe.close()


DROPPED = "log lines were dropped, as they were not read in time"


def test_what_is_dropped_is_said_once_there_is_room(pipe: Pipe) -> None:
    """Whoever reads on finds the lines that had room, and how many had none."""
    pipe.fill()
    for _ in range(20):
        pipe.logger.info("x" * 1000)
    dropped = pipe.handler.dropped
    *kept, told = pipe.lines(DROPPED)
    assert {line["message"] for line in kept} == {"x" * 1000}
    assert (told["level"], told["lines"]) == ("warning", dropped)
    pipe.logger.info("again")
    assert pipe.lines("again")[-1]["level"] == "info"


def test_a_critical_line_always_has_room(pipe: Pipe) -> None:
    """Why the process ends is written behind all that waited before it."""
    pipe.fill()
    pipe.logger.critical("this is why")
    lines = [line["message"] for line in pipe.lines("this is why")]
    assert lines[0] == "x" * 1000


def test_a_flush_waits_for_what_was_logged_and_not_for_ever(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It returns with everything written, or at its end if nobody reads."""
    pipe.logger.info("here")
    pipe.handler.flush()
    assert b'"here"' in os.read(pipe.reader.fileno(), 4096)
    monkeypatch.setattr(log_writer, "FLUSH_S", 0.05)
    pipe.fill()
    pipe.handler.flush()


PROGRAM = """
import logging, sys
from app.telemetry import log_writer
from app.telemetry.logs import configure_logging
log_writer.FLUSH_S = float(sys.argv[1])
configure_logging("info", "json", queued=True)
for _ in range(100):
    logging.getLogger("app.x").info("x" * 1000)
logging.getLogger("app.x").critical("this is why")
sys.exit(3)
"""


@pytest.mark.process
@pytest.mark.parametrize("reading", [True, False])
def test_pythons_own_exit_writes_what_waits(reading: bool) -> None:
    """A program that ends with lines in the queue ends, with every line written if it is read."""
    wait_s = "60" if reading else "0.1"
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, wait_s], stderr=subprocess.PIPE, text=True
    ) as process:
        if reading:
            _, log = process.communicate()
            assert json.loads(log.splitlines()[-1])["message"] == "this is why"
            assert log.count("\n") == 101
        assert process.wait(timeout=60) == 3


def test_a_reader_that_has_gone_costs_its_lines_only(pipe: Pipe) -> None:
    """Lines for which there is no reader at all are counted, and logging goes on."""
    pipe.reader.close()
    pipe.logger.info("lost")
    pipe.handler.flush()
    assert pipe.handler.dropped == 1


def test_a_pipe_that_does_not_block_is_waited_for(pipe: Pipe) -> None:
    """A parent may have made it so; its lines arrive all the same, whole."""
    os.set_blocking(pipe.fd, False)
    for _ in range(10):
        pipe.logger.info("x" * 1000)
    pipe.logger.info("last")
    assert len(pipe.lines("last")) == 11


def test_dropped_lines_are_a_metric(pipe: Pipe) -> None:
    """The counter says how many the process has dropped so far."""
    root = logging.getLogger()
    root.addHandler(pipe.handler)
    try:
        pipe.fill()
        count = dropped_lines()
        text = Metrics(EngineStats).render().decode()
    finally:
        root.removeHandler(pipe.handler)
    assert count >= 1
    assert f"chainrule_dropped_log_lines_total {float(count)}" in text
    assert dropped_lines() == 0
