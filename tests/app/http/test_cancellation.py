"""A request that ends at any of its awaits gives back everything that it held."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI

from app.http.json_body import LARGE_BODY, PARSING_THREADS
from app.http.middleware.body_limit import BodyLimit
from model_runtime import Engine, EngineConfig
from model_runtime.batching.batch import Batch, BatchOutput
from model_runtime.runner.model_runner import ModelRunner
from model_runtime.runner.native_runner import NativeModelRunner
from tests.app.conftest import shell_app
from tests.app.http.middleware.test_middleware import Message, post
from tests.conftest import TinyFolder

pytestmark = pytest.mark.anyio

SETTLED_S = 20.0
"""Against hangs alone; what is left behind is given up long before."""

LONG = "\n".join(["It is raining and it isn't cold."] * 4)
QUESTION = {"type": "choice", "instructions": "x", "choices": [{"value": "a"}, {"value": "ab"}]}
TALK = [{"role": "user", "content": LONG}]
SEARCH = {"max_tokens": 3, "ignore_eos": True}
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "score": ("/v1/score", {"context": LONG, "candidates": [" yes", " no"]}),
    "large body": ("/v1/score", {"context": "it", "candidates": ["a"]}),
    "next token": ("/v1/next_token", {"context": LONG}),
    "decode": ("/v1/decode", {"context": LONG, "max_tokens": 2}),
    "stream": ("/v1/decode", {"context": LONG, "stream": True, **SEARCH}),
    "completions": ("/v1/completions", {"prompt": ["it", "is"], **SEARCH}),
    "completions stream": ("/v1/completions", {"prompt": ["it", "is"], "stream": True, **SEARCH}),
    "chat": ("/v1/chat/completions", {"messages": TALK, **SEARCH}),
    "chat stream": ("/v1/chat/completions", {"messages": TALK, "stream": True, **SEARCH}),
    "audit": ("/v1/audit", {"context": "it is", "candidates": [" yes"]}),
    "decisions": ("/v1/decisions", {"input": LONG, "questions": [QUESTION]}),
}


class CountedAwaits:
    """Awaits a coroutine as if it were awaited directly, and counts how often it waits.

    Args:
        on_wait: called with the number of each wait, from 1 on, before the event loop has it.

    Attributes:
        waits: so far.
    """

    def __init__(self, inner: Coroutine[Any, Any, None], on_wait: Callable[[int], None]) -> None:
        self.waits = 0
        self._inner = inner
        self._on_wait = on_wait

    def __await__(self) -> Generator[Any, Any, None]:
        thrown: BaseException | None = None
        while True:
            try:
                waits_for = self._inner.throw(thrown) if thrown else self._inner.send(None)
            except StopIteration:
                return
            self.waits += 1
            self._on_wait(self.waits)
            try:
                yield waits_for
            except BaseException as error:  # the event loop's, for the coroutine inside
                thrown = error
            else:
                thrown = None


class Client:
    """Sends a request in two parts, takes every part of the answer a turn later, and may leave."""

    def __init__(self, name: str) -> None:
        path, body = REQUESTS[name]
        content = json.dumps(body).encode().ljust(LARGE_BODY + 1 if name == "large body" else 0)
        self.scope = post(content, path=path)
        self.left = asyncio.Event()
        self.received: list[Message] = []
        half = len(content) // 2
        self._parts = [(content[:half], True), (content[half:], False)]

    async def receive(self) -> Message:
        await asyncio.sleep(0)
        if self._parts and not self.left.is_set():
            part, more = self._parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": more}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await asyncio.sleep(0)
        self.received.append(message)

    @property
    def answered(self) -> bool:
        """The whole of an answer has come, and it was none of a failure."""
        first, last = self.received[0], self.received[-1]
        return first["status"] == 200 and not last.get("more_body", False)


class Counters:
    """Everything that requests to an app may hold, by name."""

    def __init__(self, app: FastAPI, engine: Engine) -> None:
        self._state = app.state
        self._engine: Any = engine
        layer: Any = app.middleware_stack or app.build_middleware_stack()
        app.middleware_stack = layer
        while not isinstance(layer, BodyLimit):
            layer = layer._app if hasattr(layer, "_app") else layer.app
        self._bodies: Any = layer
        self._tasks = asyncio.all_tasks()

    def held(self) -> dict[str, object]:
        """What is not as it was before any request."""
        stats, lines = self._engine.stats(), self._engine._scheduler._admission._lines.values()
        counts: dict[str, object] = {
            "handlers": len(self._state.lifecycle.active_requests),
            "body bytes": self._bodies._in_flight,
            "parsers": PARSING_THREADS - self._state.parser._threads._free._value,
            "requests": stats.queued_requests,
            "tokens": stats.queued_tokens,
            "queries": self._state.service._scores.inflight_queries if self._state.service else 0,
            "places": sum(len(line._tokenized) + len(line._untokenized) for line in lines),
            "tasks": [task.get_name() for task in asyncio.all_tasks() - self._tasks],
        }
        return {name: count for name, count in counts.items() if count}

    def in_forward(self) -> dict[str, object]:
        """What a forward holds."""
        running, lent = self._engine.stats().running_requests, len(self._engine._cache._batch_slots)
        return {"running": running, "slots": lent} if running or lent else {}


async def settled(held: Callable[[], dict[str, object]]) -> dict[str, object]:
    """What is still held when nothing changes any more."""
    end = asyncio.get_running_loop().time() + SETTLED_S
    while held() and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0.001)
    return held()


@pytest.fixture
def may_run(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """While it is cleared, forwards wait."""
    gate = threading.Event()
    gate.set()

    def hold(kind: type[ModelRunner] | type[NativeModelRunner]) -> None:
        run: Callable[[Any, Batch], BatchOutput] = kind.run

        def wait_and_run(runner: Any, batch: Batch) -> BatchOutput:
            gate.wait()
            return run(runner, batch)

        monkeypatch.setattr(kind, "run", wait_and_run)

    hold(ModelRunner)
    hold(NativeModelRunner)
    return gate


@asynccontextmanager
async def serving(folder: str) -> AsyncIterator[tuple[FastAPI, Engine]]:
    """The app around a tiny model."""
    engine = Engine.load(EngineConfig(model=folder, kv_cache_bytes=4 << 20))
    app = shell_app(engine)
    async with app.router.lifespan_context(app):
        yield app, engine


async def ask(app: FastAPI, client: Client, end: Callable[[], object], at: int = 0) -> int:
    """Put a request, and ``end`` while it waits for the ``at``-th time; how often it has waited.

    It is cancelled then, unless its client leaves.
    """

    def on_wait(number: int) -> None:
        if number == at:
            asyncio.get_running_loop().call_soon(end_it)

    def end_it() -> None:
        end()
        if not client.left.is_set():
            task.cancel()

    counted = CountedAwaits(app(client.scope, client.receive, client.send), on_wait)

    async def run() -> None:
        await counted

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    return counted.waits


@pytest.mark.parametrize("ending", ["cancelled", "client leaves"])
@pytest.mark.parametrize("name", REQUESTS)
async def test_every_await_may_be_the_last(
    name: str, ending: str, tiny_folder: TinyFolder, may_run: threading.Event
) -> None:
    """Whichever await of a request ends it, all that it held is free, before the model is done."""
    async with serving(str(tiny_folder("llama"))) as (app, engine):
        counters, whole = Counters(app, engine), Client(name)
        await ask(app, whole, may_run.clear)
        assert whole.answered, whole.received
        ended = 0
        while True:
            client = Client(name)

            def end(left: asyncio.Event = client.left) -> None:
                may_run.clear()
                if ending == "client leaves":
                    left.set()

            waits = await ask(app, client, end, ended + 1)
            assert await settled(counters.held) == {}, f"after {ended + 1} awaits"
            may_run.set()
            assert await settled(counters.in_forward) == {}, f"after {ended + 1} awaits"
            if waits <= ended:
                break
            ended += 1
        assert client.answered
        assert ended > 5
        engine._cache.check()
