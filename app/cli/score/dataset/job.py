"""``chainrule score --ray``: every block of a dataset to one of a cluster's actors.

    files ── cut ──> blocks ── Ray Data ──> actors with an engine each ──> part files
                        │                        │
                        └── those that are done  └── a row a block comes back: counts, no records

Ray Data hands out numbers of blocks, starts what has died again and brings its blocks to others; an
actor reads its own block and writes its own files, a group of rows at a time. So no process holds
more of the dataset than the records that are in flight, and one group of rows, for each of its
``BLOCKS_AT_ONCE``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import ray
import ray.data
from tqdm import tqdm

from app.cli.score.arrow_types import IdKind
from app.cli.score.dataset.actor import BlockJob, BlockScorer, describe_model
from app.cli.score.dataset.blocks import Block, CutFile, cut_file, find_files
from app.cli.score.dataset.cluster import ActorLayout, ray_cluster
from app.cli.score.dataset.folder import OutputFolder
from app.cli.score.output import Counts
from app.client import ClientError, InvalidRequest
from app.schemas.models import ModelCard
from app.settings import Settings

BLOCKS_AT_ONCE: Final = 2
"""That an actor works on: while one ends, the next one fills its batches."""

CONCURRENCY: Final = 32
"""Records of a block that are asked at once, by default."""


def score_dataset(args: Mapping[str, Any], fields: Mapping[str, Any], settings: Settings) -> Counts:
    """Score what ``--ray`` was given, as far as it is not done yet; the whole output's counts.

    Raises:
        InvalidRequest: a flag, or a file of the input, cannot be used.
        OutputError, OSError: the output cannot be written, or is another run's.
        ClientError: it cannot go on. The same command goes on later.
    """
    files = find_files(args["input"], args["format"])
    with ray_cluster(args["ray_address"]):
        cut = _cut_files(files, args["block_rows"])
        layout = ActorLayout.plan(args["actors"], settings)
        settings = settings.model_copy(update={"threads": layout.threads})
        card = _card(settings, layout)
        about = _about(card, fields)
        manifest = {
            "input": [[one.path, one.digest] for one in cut],
            "options": {**fields},
            "split": args["split"],
            "block_rows": args["block_rows"],
            "model": card.fingerprint,
        }
        folder = OutputFolder(args["output"].absolute(), manifest, overwrite=args["overwrite"])
        try:
            job = BlockJob(
                settings=settings,
                defaults=fields,
                concurrency=args["concurrency"] or CONCURRENCY,
                size=args["split"],
                fingerprint=card.fingerprint,
                folder=folder.path,
                ids=_ids(cut),
                about=about,
            )
            blocks = tuple(block for one in cut for block in one.blocks)
            return _score_blocks(job, blocks, folder.done(), layout)
        finally:
            folder.close()


def _cut_files(files: Sequence[tuple[str, Any]], block_rows: int) -> list[CutFile]:
    cut = ray.remote(_cut_or_failure).options(num_cpus=1)
    found = ray.get([cut.remote(path, format, block_rows) for path, format in files])
    for one in found:
        if isinstance(one, str):
            raise InvalidRequest(one)
    return list(found)


def _cut_or_failure(path: str, format: Any, block_rows: int) -> CutFile | str:
    try:
        return cut_file(path, format, block_rows)
    except (InvalidRequest, OSError) as error:
        return f"{path}: {getattr(error, 'strerror', None) or error}"


def _card(settings: Settings, layout: ActorLayout) -> ModelCard:
    """What an actor's model will be: loaded once by a process that ends with it."""
    once = {"max_calls": 1, "max_retries": 0, **layout.resources()}
    describe = ray.remote(**once)(describe_model)
    card: ModelCard | None
    card, failure = ray.get(describe.remote(settings))
    if card is None:
        raise ClientError(failure)
    return card


def _about(card: ModelCard, fields: Mapping[str, Any]) -> dict[str, Any]:
    error = {} if card.numeric_error is None else {"numeric_error": card.numeric_error.maximum}
    return {"model": card.id, "fingerprint": card.fingerprint, **error, "options": {**fields}}


def _ids(cut: Sequence[CutFile]) -> IdKind:
    """What kind the dataset's ids are, by the first file that has one."""
    return next((one.ids for one in cut if one.ids != "none"), "none")


def _score_blocks(
    job: BlockJob, blocks: tuple[Block, ...], done: Mapping[int, Counts], layout: ActorLayout
) -> Counts:
    counts = Counts()
    for one in done.values():
        counts.scored += one.scored
        counts.failed += one.failed
    with tqdm(
        total=sum(block.records for block in blocks),
        initial=counts.lines,
        unit=" records",
        disable=not sys.stderr.isatty(),
    ) as progress:
        left = [number for number in range(len(blocks)) if number not in done]
        for row in _answers(job, blocks, left, layout) if left else ():
            if row["failure"]:
                raise ClientError(str(row["failure"]))
            counts.scored += int(row["scored"])
            counts.failed += int(row["failed"])
            if counts.failed:
                progress.set_postfix(errors=counts.failed, refresh=False)
            progress.update(int(row["scored"]) + int(row["failed"]))
    return counts


def _answers(
    job: BlockJob, blocks: tuple[Block, ...], left: Sequence[int], layout: ActorLayout
) -> Iterator[dict[str, Any]]:
    """A row for each block, as soon as it is done."""
    ray.data.DataContext.get_current().enable_progress_bars = False
    actors = min(layout.actors, len(left))
    numbers = ray.data.from_items(
        [{"block": number} for number in left], override_num_blocks=len(left)
    )
    scored = numbers.map_batches(
        BlockScorer,
        fn_constructor_args=(job, blocks),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(
            size=actors,
            max_tasks_in_flight_per_actor=BLOCKS_AT_ONCE,
            max_concurrent_calls_per_actor=BLOCKS_AT_ONCE,
            enable_true_multi_threading=True,
        ),
        **layout.resources(),
    )
    yield from scored.iter_rows()
