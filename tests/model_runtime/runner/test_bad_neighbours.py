"""Who asks for the impossible, or breaks a forward, changes no bit of its neighbours' answers."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from model_runtime.batching.batch import Batch, BatchOutput
from model_runtime.config import EngineConfig
from model_runtime.decoding.hypothesis import DecodingResult
from model_runtime.decoding.limits import DecodingLimits
from model_runtime.engine import Engine
from model_runtime.errors import (
    ChainruleError,
    ForwardFailed,
    NonFiniteLogits,
    OutOfMemory,
    PathTooLong,
    TokenIdOutOfRange,
)
from model_runtime.types import LogprobQuery, QueryResult
from tests.conftest import TinyFolder
from tests.crowd import LIMIT_S, ask, started, watch_forwards
from tests.random_requests import DecodeRequest, Request, ScoreRequest
from tests.tiny_models import TINY_KINDS, TINY_VOCAB, tiny_model, tiny_tokenizer

POISON = 2
"""An id whose embedding is not finite in a poisoned model. The start-up sample lacks it."""

Told = tuple[QueryResult, ...] | DecodingResult | ChainruleError


@dataclass(frozen=True)
class Meeting:
    """Good requests along one trunk, and a culprit that leaves it in the middle.

    The trunk is shorter than all models here take, so that each kind can hold it.
    """

    good: tuple[Request, ...]
    trunk: tuple[int, ...]

    def culprit(self, *tail: int) -> ScoreRequest:
        """Goes 70 tokens along the trunk, then astray, to score all of it."""
        return ScoreRequest((LogprobQuery((*self.trunk[:70], *tail), 1, (), 3, True),))


def meeting() -> Meeting:
    """The same each time. No good request feeds the poisoned id: it ends a search."""
    rng = random.Random(5)
    trunk = tuple(rng.randrange(POISON + 1, TINY_VOCAB) for _ in range(110))
    queries = [
        LogprobQuery((*trunk[:cut], *trunk[100 : 100 + rng.randint(1, 9)]), start, (5, 9), 3, True)
        for cut, start in ((64, 60), (69, 69), (70, 1), (71, 65), (97, 95), (33, 30))
    ]
    limits = DecodingLimits(5, end_token_ids=frozenset({POISON}), top_logprobs=2)
    searches = [DecodeRequest(trunk[:cut], limits, beams) for cut, beams in ((63, 1), (70, 3))]
    scores = [ScoreRequest(tuple(queries[i : i + 2])) for i in (0, 2, 4)]
    return Meeting((*scores, *searches), trunk)


def answers(
    folder: Path, requests: Sequence[Request], culprits: Sequence[Request] = ()
) -> tuple[list[Told], list[Told]]:
    """What a new engine tells requests and culprits that all come at once, twice."""
    return asyncio.run(asyncio.wait_for(_answers(folder, requests, culprits), LIMIT_S))


async def _answers(
    folder: Path, requests: Sequence[Request], culprits: Sequence[Request]
) -> tuple[list[Told], list[Told]]:
    good: list[Told] = []
    failed: list[Told] = []
    async with started(Engine.load(config(folder))) as engine:
        for _ in range(2):
            tasks = [_ask(engine, request) for request in (*culprits, *requests)]
            told = await asyncio.gather(*tasks)
            good += told[len(culprits) :]
            failed += told[: len(culprits)]
    return good, failed


def in_turn(folder: Path, queries: Sequence[LogprobQuery], max_batch_tokens: int) -> list[Told]:
    """What a new engine tells queries that come one after the other."""

    async def ask_all() -> list[Told]:
        async with started(Engine.load(config(folder, max_batch_tokens))) as engine:
            return [await _ask(engine, ScoreRequest((query,))) for query in queries]

    return asyncio.run(asyncio.wait_for(ask_all(), LIMIT_S))


def config(folder: Path, max_batch_tokens: int = 300) -> EngineConfig:
    """An engine with room for all that is asked here."""
    return EngineConfig(
        model=str(folder), max_batch_tokens=max_batch_tokens, kv_cache_bytes=4 << 20
    )


async def _ask(engine: Engine, request: Request) -> Told:
    try:
        return await ask(engine, request)
    except ChainruleError as error:
        return error


def save_poisoned(kind: str, folder: Path, value: float = math.nan) -> None:
    """A tiny model whose token ``POISON`` is embedded as ``value``; its head is another matrix."""
    model = tiny_model(kind, tie_word_embeddings=False)
    with torch.no_grad():
        model.get_input_embeddings().weight[POISON] = value
    model.save_pretrained(folder)
    tiny_tokenizer(kind).save_pretrained(folder)


def errors(told: Sequence[Told]) -> list[ChainruleError]:
    """Everything that failed, whole requests and single queries."""
    parts = [part for one in told for part in (one if isinstance(one, tuple) else (one,))]
    return [part for part in parts if isinstance(part, ChainruleError)]


def same_without(folder: Path, good: Sequence[Request], culprits: Sequence[Request]) -> list[str]:
    """Names of the culprits' errors, once their neighbours' bits were seen to be untouched.

    Each culprit comes twice.
    """
    want, _ = answers(folder, good)
    got, failed = answers(folder, good, culprits)
    assert not errors(want)
    assert repr(got) == repr(want)
    return [type(error).__name__ for error in errors(failed)]


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_a_path_that_is_not_finite_fails_alone(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaNs in keys and values of one path reach none that shares its beginning or its slots."""
    save_poisoned(kind, tmp_path)
    met, seen = meeting(), watch_forwards(monkeypatch)
    culprits = [met.culprit(POISON, 7, 8), met.culprit(9, POISON)]
    assert same_without(tmp_path, met.good, culprits) == [NonFiniteLogits.__name__] * 4
    crowd = [len(it.batch.query_slices) for it in seen if it.holds(*culprits[0].queries)]
    assert max(crowd) > 1, "the culprit had no neighbours"


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_a_failed_path_leaves_nothing_in_the_cache(kind: str, tmp_path: Path) -> None:
    """Prefixes of a path that went astray have their bits afterwards, whole or in chunks."""
    save_poisoned(kind, tmp_path)
    trunk = meeting().trunk
    astray = (*trunk[:40], POISON, *trunk[40:100])
    culprits = [
        LogprobQuery(astray, len(astray), ()),
        LogprobQuery(astray, 1, (), top_k=3, keep=len(astray)),
    ]
    cuts = [LogprobQuery(trunk[:cut], cut, (), top_k=5) for cut in (39, 40)]
    later = [*cuts, LogprobQuery(trunk, 1, (), top_k=3, keep=len(trunk))]
    want = in_turn(tmp_path, later, max_batch_tokens=300)
    for budget in (300, 48):
        got = in_turn(tmp_path, [*culprits, *later, *culprits, *later], budget)
        assert [type(error) for error in errors(got)] == [NonFiniteLogits] * 4
        assert repr(got[2:5]) == repr(want)
        assert repr(got[7:]) == repr(want)


def test_only_what_lies_before_a_failed_token_stays_cached(tmp_path: Path) -> None:
    """The tokens before it are kept, neither it nor those behind it are."""
    save_poisoned("llama", tmp_path)
    trunk = meeting().trunk
    astray = LogprobQuery((*trunk[:40], POISON, *trunk[40:100]), 1, (), keep=101)

    async def used() -> int:
        async with started(Engine.load(config(tmp_path))) as engine:
            before = engine.stats().cache_slots_used
            await _ask(engine, ScoreRequest((astray,)))
            return engine.stats().cache_slots_used - before

    assert asyncio.run(used()) == 40


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_prompt_fails_in_the_chunk_that_is_not_finite(value: float, tmp_path: Path) -> None:
    """A prompt of many chunks ends at the first that is lost; a search of it ends likewise."""
    save_poisoned("llama", tmp_path, value)
    trunk = meeting().trunk * 4
    prompt = (*trunk[:100], POISON, *trunk[100:400])
    search = DecodeRequest(prompt, DecodingLimits(5))

    async def batches() -> list[int]:
        async with started(Engine.load(config(tmp_path, 40))) as engine:
            counts = [engine.stats().batches]
            for request in (ScoreRequest((LogprobQuery(prompt, 401, ()),)), search):
                assert [type(e) for e in errors([await _ask(engine, request)])] == [NonFiniteLogits]
                counts.append(engine.stats().batches)
            return [after - before for before, after in pairwise(counts)]

    assert asyncio.run(asyncio.wait_for(batches(), LIMIT_S)) == [3, 1]


def test_what_is_refused_leaves_no_trace(tiny_folder: TinyFolder) -> None:
    """Ids out of range and paths over the model's length are named; all others are as without."""
    met = meeting()
    too_long = LogprobQuery((*met.trunk, *[1] * 500), 100)
    culprits = [met.culprit(7, TINY_VOCAB), met.culprit(-1), ScoreRequest((too_long,))]
    names = same_without(tiny_folder("llama"), met.good, culprits)
    assert names == [*[TokenIdOutOfRange.__name__] * 2, PathTooLong.__name__] * 2


def test_a_refused_query_leaves_the_others_of_its_request_alone(tiny_folder: TinyFolder) -> None:
    """A bad candidate among good ones is answered by its error, the others as without it."""
    folder, met = tiny_folder("llama"), meeting()
    (good, *_), (bad,) = met.good, met.culprit(TINY_VOCAB).queries
    assert isinstance(good, ScoreRequest)
    (want, _), _ = answers(folder, [good])
    (got, _), _ = answers(folder, [ScoreRequest((bad, *good.queries, bad))])
    assert isinstance(want, tuple)
    assert isinstance(got, tuple)
    assert len(errors([got])) == 2
    assert repr(got[1:-1]) == repr(want)


def broken(batch: Batch) -> Exception:
    """A kernel that cannot run."""
    return ValueError("no such kernel")


def exhausted(batch: Batch) -> Exception:
    """A batch too large for the device."""
    return OutOfMemory(f"{len(batch.token_ids)} tokens")


@pytest.mark.parametrize(("failure", "name"), [(broken, ForwardFailed), (exhausted, OutOfMemory)])
def test_whoever_breaks_forwards_fails_alone(
    failure: Callable[[Batch], Exception],
    name: type[ChainruleError],
    tiny_folder: TinyFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Forwards that are tried again, in halves or smaller, answer the others with equal bits."""
    met, failed = meeting(), []
    culprit = met.culprit(7, 8)

    def fail(batch: Batch, output: BatchOutput) -> BatchOutput:
        if any(query_slice.query in culprit.queries for query_slice in batch.query_slices):
            failed.append(len(batch.query_slices))
            raise failure(batch)
        return output

    watch_forwards(monkeypatch, fail)
    assert same_without(tiny_folder("llama"), met.good, [culprit]) == [name.__name__] * 2
    assert max(failed) > 1, "the culprit had no neighbours"
