"""``chainrule score`` as somebody runs it, over an engine in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cli.main import main
from app.client import AsyncClient
from tests.app.cli.command_line import answer_locally, logging_as_before
from tests.app.conftest import shell_app
from tests.app.fake_engine import FakeEngine

RECORDS: list[dict[str, Any]] = [
    {"id": "first", "context": "it is", "candidates": [" yes", " no", "n't"]},
    {"context": "it is", "candidates": [" yes.\n"], "normalization": "mean"},
    {"id": 3, "context": "it is", "candidates": [""]},
    {"context": "it", "candidates": [" is", " isn"], "append_eos": True},
    {"id": None, "context": "it is", "candidate": ["?"]},
    {"context": "a", "candidates": ["b", "c", "bc"]},
]
"""Good ones, one that the server refuses, and one that is no request."""


class AppTransport(httpx.ASGITransport):
    """The app around an engine; it lives as long as the client."""

    def __init__(self, engine: FakeEngine) -> None:
        app = shell_app(engine)
        super().__init__(app)
        self._life = app.router.lifespan_context(app)
        self._lives = False
        self._starting = asyncio.Lock()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer; the first request finds the app started."""
        async with self._starting:
            if not self._lives:
                await self._life.__aenter__()
                self._lives = True
        return await super().handle_async_request(request)

    async def aclose(self) -> None:
        """Shut the app down."""
        if self._lives:
            await self._life.__aexit__(None, None, None)


def answer_from(monkeypatch: pytest.MonkeyPatch, engine: FakeEngine) -> None:
    """Every server is the app around this engine, and ``--local`` loads it."""
    send_through(monkeypatch, lambda: AppTransport(engine))
    answer_locally(monkeypatch, engine)


def send_through(
    monkeypatch: pytest.MonkeyPatch, transport: Callable[[], httpx.AsyncBaseTransport]
) -> None:
    """Every server is reached so, but for that of ``--local``."""

    def client(*args: Any, **options: Any) -> AsyncClient:
        return AsyncClient(*args, **{"transport": transport(), **options})

    monkeypatch.setattr("app.cli.score.command.AsyncClient", client)


def run(*argv: object, status: int = 0) -> None:
    """Run ``chainrule score``."""
    with logging_as_before():
        assert main(["score", *map(str, argv)]) == status


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> Path:
    """A file of records."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The records of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]
