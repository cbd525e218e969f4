"""The search for the best candidates through the whole runtime, against scoring all of them."""

from __future__ import annotations

import asyncio
import random

import pytest

from model_runtime.config import EngineConfig
from model_runtime.decoding.top_n.path_score import PathScore
from model_runtime.decoding.top_n.result import Pruned, RankedCandidate, TopResult
from model_runtime.decoding.top_n.top_candidates import TopCandidates
from model_runtime.engine import Engine
from model_runtime.normalization import log_sum, total
from model_runtime.types import LogprobQuery, LogprobResult
from tests.conftest import TinyFolder

VOCAB = 256
COUNT = 1500


def catalogue(source: random.Random) -> list[tuple[int, ...]]:
    """Paths of three to six tokens that share beginnings, as product names do."""
    brands = [tuple(source.choices(range(VOCAB), k=2)) for _ in range(40)]
    return [
        source.choice(brands) + tuple(source.choices(range(VOCAB), k=source.randint(1, 4)))
        for _ in range(COUNT)
    ]


def summed(answer: LogprobResult) -> float:
    ends = (log_sum(answer.target_logprobs),) if answer.target_logprobs else ()
    return total((*answer.logprobs, *ends))


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
@pytest.mark.parametrize("cache", ["32MiB", "small"])
def test_every_bit_is_that_of_scoring_everything(
    tiny_folder: TinyFolder, kind: str, cache: str
) -> None:
    """Alone, side by side, and where the cache holds few of the prefixes that it asks about."""
    source = random.Random(kind)
    prefix = tuple(source.choices(range(VOCAB), k=70))
    paths = catalogue(source)
    slots = {"32MiB": 32 << 20, "small": 1 << 18}[cache]
    config = EngineConfig(
        model=str(tiny_folder(kind)), device="cpu", kv_cache_bytes=slots, max_queue_tokens=1 << 20
    )

    async def run() -> tuple[list[TopResult], list[tuple[LogprobResult, ...]]]:
        engine = Engine.load(config)
        await engine.start()
        error = engine.info.numeric_error
        assert error is not None
        searches = [
            TopCandidates(
                prefix,
                [
                    RankedCandidate(path, float(size), error[0] * len(path) / size)
                    for path in paths
                    for size in [len(path) if mean else 1]
                ],
                10,
                vocab_size=engine.info.vocab_size,
                end_ids=ends,
                top_k=2,
            )
            for mean in (False, True)
            for ends in (None, (3,))
        ]
        first = await engine.decode(searches[0])
        others = await asyncio.gather(*(engine.decode(search) for search in searches[1:]))
        scored = [
            await engine.score([LogprobQuery(prefix + p, len(prefix), ends, 2) for p in paths])
            for ends in (None, (3,))
        ]
        await engine.stop(1.0)
        answers = [tuple(a for a in s.value if isinstance(a, LogprobResult)) for s in scored]
        return [first.value, *(outcome.value for outcome in others)], answers

    results, answers = asyncio.run(run())
    for place, result in enumerate(results):
        mean, everything = place >= 2, answers[place % 2]
        scores = [
            summed(answer) / (len(path) if mean else 1)
            for answer, path in zip(everything, paths, strict=True)
        ]
        order = sorted(range(COUNT), key=lambda index: -scores[index])
        assert sorted(result.best[:10]) == sorted(order[:10])
        assert mean or result.pruned > COUNT // 4
        for index, end in enumerate(result.ends):
            if isinstance(end, PathScore):
                assert end.answer() == everything[index]
            else:
                assert isinstance(end, Pruned)
                assert scores[index] <= end.bound
