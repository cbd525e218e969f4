"""Many ids asked of one row: the numbers of asking for each alone."""

from __future__ import annotations

import asyncio

import pytest

from model_runtime.config import EngineConfig
from model_runtime.engine import Engine
from model_runtime.logprobs.reduce import MANY
from model_runtime.types import LogprobQuery, LogprobResult
from tests.conftest import TinyFolder

PATH = (5, 9, 2, 40, 7)


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_many_targets_have_the_bits_and_ranks_of_one(tiny_folder: TinyFolder, kind: str) -> None:
    """However a row is searched, an id has one log-prob and one place among the others."""

    async def run() -> list[LogprobResult]:
        engine = Engine.load(EngineConfig(model=str(tiny_folder(kind)), device="cpu"))
        await engine.start()
        ids = tuple(range(engine.info.vocab_size))
        queries = [LogprobQuery(PATH, len(PATH), (*ids, 3, 3))]
        queries += [LogprobQuery(PATH, len(PATH), (token_id,)) for token_id in ids[: MANY - 1]]
        together = await engine.score(queries[:1])
        apart = [await engine.score([query]) for query in queries[1:]]
        await engine.stop(1.0)
        answers = [answer for outcome in (together, *apart) for answer in outcome.value]
        return [answer for answer in answers if isinstance(answer, LogprobResult)]

    together, *apart = asyncio.run(run())
    assert len(apart) == MANY - 1
    for place, alone in enumerate(apart):
        assert together.target_logprobs[place] == alone.target_logprobs[0]
        assert together.target_ranks[place] == alone.target_ranks[0]
    logprobs = together.target_logprobs
    assert together.target_ranks == tuple(
        1 + sum(other > own for other in logprobs[:-2]) for own in logprobs
    )
