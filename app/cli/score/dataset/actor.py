"""What scores blocks: a process with an engine of its own.

This file is read in a process of Ray's before torch is, so that what the environment says of the
threads of torch holds; whatever brings torch is imported by ``EngineThread``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from app.cli.score.arrow_types import IdKind
from app.cli.score.dataset.block_writer import BlockWriter
from app.cli.score.dataset.blocks import Block
from app.cli.score.dataset.folder import BlockFiles
from app.cli.score.output import Counts, OutputError
from app.cli.score.run import ScoreRun
from app.client import ClientError
from app.environment import bound_compiled_products, let_idle_threads_sleep
from app.schemas.bounds import MAX_TIMEOUT_MS
from app.schemas.models import ModelCard
from app.settings import Settings
from app.telemetry.logs import configure_logging

if TYPE_CHECKING:
    from app.cli.score.dataset.service_client import ServiceClient

T = TypeVar("T")

READ_AT_ONCE: Final = 32
"""Records of a block that are read in one go."""


@dataclass(frozen=True, slots=True)
class BlockJob:
    """What every actor of a run has to know.

    Attributes:
        settings: of the engine.
        defaults: fields of the request that a record does not have itself.
        concurrency: records that are asked at once, for each block that is scored.
        size: lists with more candidates are split; None splits none.
        fingerprint: what the model's must be.
        folder: of the output.
        ids: what kind they are.
        about: what the metadata of the files says.
    """

    settings: Settings
    defaults: Mapping[str, Any]
    concurrency: int
    size: int | None
    fingerprint: str
    folder: Path
    ids: IdKind
    about: Mapping[str, Any]


class EngineThread:
    """An engine that is loaded and started, on an event loop in a thread of its own.

    Raises:
        ModelLoadError: its kinds, as ``Engine.load``.
    """

    def __init__(self, settings: Settings) -> None:
        let_idle_threads_sleep()
        bound_compiled_products()
        configure_logging("warning", "text")
        from app.cli.score.dataset.service_client import ServiceClient
        from app.requests.limits import Limits
        from app.service import ScoringService
        from model_runtime import Engine

        engine = Engine.load(settings.engine_config())
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="chainrule-loop", daemon=True).start()
        self.run(engine.start())
        limits = Limits(
            max_candidates=settings.max_candidates,
            max_top_logprobs=settings.max_top_logprobs,
            # A record waits for those before it, and nobody for the record.
            default_timeout_ms=MAX_TIMEOUT_MS,
        )
        service = ScoringService(engine, limits)
        self.card: ModelCard = service.models().data[0]
        self.client: ServiceClient = ServiceClient(service)
        self._engine = engine

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What the work returns or raises; from any thread but the loop's."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def stop(self) -> None:
        """End the engine."""
        self.run(self._engine.stop(0.0))


class BlockScorer:
    """A callable for ``Dataset.map_batches``: a batch is a block, and so is its row of the answer.

    What ends a run is told in the answer, so that it can be told in one line.
    """

    def __init__(self, job: BlockJob, blocks: tuple[Block, ...]) -> None:
        self._job = job
        self._blocks = blocks
        self._engine: EngineThread | None = None
        self._failure = _told(self._load)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Score the block of this number and write its files."""
        import numpy as np

        (number,) = (int(one) for one in batch["block"])
        counts = Counts()
        failure = self._failure or _told(lambda: self._score(number, counts))
        answer = (number, counts.scored, counts.failed, failure or "")
        names = ("block", "scored", "failed", "failure")
        return {name: np.array([value]) for name, value in zip(names, answer, strict=True)}

    def _load(self) -> None:
        engine = EngineThread(self._job.settings)
        if engine.card.fingerprint != self._job.fingerprint:
            raise ClientError(
                f"an actor's model has another fingerprint, {engine.card.fingerprint}, than the "
                f"run, {self._job.fingerprint}: its machine computes other bits"
            )
        self._engine = engine

    def _score(self, number: int, counts: Counts) -> None:
        if self._engine is None:
            raise RuntimeError("this is a bug: no engine has been loaded")
        block, job = self._blocks[number], self._job
        files = BlockFiles(job.folder, number)
        files.begin(f"{block.records} records of {block.path} from line {block.start.line} on")
        with BlockWriter(files, block.path, job.ids, job.about) as writer:
            self._engine.run(self._write_all(block, writer, self._engine.client))
        files.end()
        counts.scored, counts.failed = writer.tally.scored, writer.tally.failed

    async def _write_all(self, block: Block, writer: BlockWriter, client: ServiceClient) -> None:
        job = self._job
        run = ScoreRun(job.defaults, job.concurrency, job.size, job.fingerprint, READ_AT_ONCE)
        async with aclosing(run.run(client, block.read(), writer)) as written:
            async for _ in written:
                pass


def _told(work: Callable[[], None]) -> str | None:
    """Do it; why it could not be done, in one line."""
    from model_runtime import ChainruleError

    try:
        work()
    except (ChainruleError, ClientError, OutputError, OSError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return None


def describe_model(settings: Settings) -> tuple[ModelCard | None, str | None]:
    """What a model's card would be on this machine, or why it cannot be loaded."""
    found: list[ModelCard] = []

    def load() -> None:
        engine = EngineThread(settings)
        found.append(engine.card)
        with suppress(TimeoutError):
            engine.stop()

    failure = _told(load)
    return (found[0] if found else None), failure
