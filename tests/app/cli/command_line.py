"""Commands as somebody types them, over the law of ``fake_engine`` or a recorded server."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from app.cli.main import main
from app.client import Client
from tests.app.fake_engine import FakeEngine


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        return True


@contextmanager
def logging_as_before() -> Iterator[None]:
    """What a command does to the log handlers of this process does not outlive the block."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    levels = {name: logging.getLogger(name).level for name in (None, "app", "model_runtime")}
    yield
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def answer_locally(monkeypatch: pytest.MonkeyPatch, engine: FakeEngine) -> None:
    """``--local`` loads this engine."""
    found = SimpleNamespace(load=lambda _config: engine)
    monkeypatch.setattr("app.cli.local_server.Engine", found)


def answer_with(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[httpx.Request], httpx.Response]
) -> list[dict[str, Any]]:
    """Every server answers so; returns the bodies that it is sent."""
    bodies: list[dict[str, Any]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return answer(request)

    client = partial(Client, transport=httpx.MockTransport(handle))
    monkeypatch.setattr("app.cli.single_request.Client", client)
    return bodies


def printed(capsys: pytest.CaptureFixture[str], *argv: str, status: int = 0) -> str:
    """What a command prints on standard output."""
    with logging_as_before():
        assert main(argv) == status
    return capsys.readouterr().out


def field_error(capsys: pytest.CaptureFixture[str], *argv: str, status: int) -> str:
    """The one line that a command fails with."""
    with logging_as_before():
        assert main(argv) == status
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("chainrule: error: ")
    return lines[0].removeprefix("chainrule: error: ")


def rows(text: str) -> list[list[str]]:
    """The words of each line."""
    return [line.split() for line in text.splitlines()]
