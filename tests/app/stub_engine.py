"""An engine with no model, for everything around the engine: it waits when asked to work."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from app.dependencies import EngineDependency
from app.http.json_body import JsonRoute
from model_runtime import EngineStats, EngineStopping, ModelInfo, Priority

INFO = ModelInfo(
    name="stub",
    fingerprint="0" * 24,
    architecture="StubForCausalLM",
    dtype="float32",
    device="cpu",
    vocab_size=8,
    max_model_len=16,
    bos_token_id=None,
    end_token_ids=(7,),
    parameters=0,
    kernels_reason="no compiler",
)


class StubEngine:
    """Keeps the engine's promises about starting, stopping and dying."""

    def __init__(self) -> None:
        self.info = INFO
        self.tokenizer = None
        self.working = 0
        self.finished = 0
        self.counters = EngineStats()

    async def start(self) -> None:
        """Become ready."""
        self._stopped = asyncio.Event()
        self._death: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self.counters = replace(self.counters, ready=True)

    async def work(self, seconds: float) -> None:
        """Take so long; fail with ``EngineStopping`` once stopped."""
        self.working += 1
        try:
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
        except TimeoutError:
            self.finished += 1
            return
        finally:
            self.working -= 1
        raise EngineStopping("stopped under a request at /some/path")

    async def stop(self, drain_s: float) -> None:
        """Fail what still works after ``drain_s`` seconds."""
        deadline = asyncio.get_running_loop().time() + drain_s
        while self.working and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)
        self._stopped.set()

    async def wait_dead(self) -> BaseException:
        """Return when ``die`` was called."""
        return await asyncio.shield(self._death)

    def die(self, cause: BaseException | None = None) -> None:
        """The model thread ends, or is given up."""
        self.counters = replace(self.counters, alive=False, ready=False)
        self._death.set_result(cause or RuntimeError("the model\nthread fell over"))

    def check_room(self, _priority: Priority = Priority.INTERACTIVE) -> None:
        """There always is."""

    def stats(self) -> EngineStats:
        """What was counted."""
        return replace(self.counters, queued_requests=self.working)


class Work(BaseModel):
    """A body with a field of each kind that bad input goes wrong in."""

    model_config = ConfigDict(extra="forbid", strict=True)

    seconds: float = 0.0
    candidates: list[str | list[int]] = []


work_router = APIRouter(route_class=JsonRoute)


@work_router.post("/work/{name}")
async def work(name: str, body: Work, engine: EngineDependency) -> Work:
    """Keep the engine busy."""
    await engine.work(body.seconds)  # type: ignore[attr-defined]
    return body


@work_router.post("/die")
async def die(engine: EngineDependency) -> None:
    """Kill the engine."""
    engine.die()  # type: ignore[attr-defined]


@work_router.get("/broken")
async def broken() -> None:
    """Fail as nobody expects."""
    raise RuntimeError("no such thing: /etc/secret/path")
