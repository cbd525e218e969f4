"""Every shape makes bodies that the API it speaks takes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.cli.bench.request_bodies import SHAPES
from app.cli.bench.workload import Questions, Workload
from model_runtime import Engine, EngineConfig
from tests.app.conftest import client_of, shell_app
from tests.conftest import TinyFolder

WORKLOAD = Workload(
    context_tokens=4, candidates=2, candidate_tokens=1, max_tokens=2, model="org/toy"
)


def test_a_question_has_the_size_that_was_asked_for() -> None:
    """So many words in the context, so many candidates of so many words."""
    question = Questions(Workload(context_tokens=7, candidates=3, candidate_tokens=2), "s").next()
    assert len(question.context.split()) == 7
    assert [len(candidate.split()) for candidate in question.candidates] == [2, 2, 2]


def test_the_model_is_named_where_it_is_known() -> None:
    """And never where the API has no such field."""
    question = Questions(WORKLOAD, "s").next()
    for name, shape in SHAPES.items():
        body = shape.of(question, WORKLOAD)
        assert body.get("model") == (None if name == "tei-rerank" else "org/toy")
        assert "model" not in shape.of(question, Workload())


@pytest.mark.anyio
async def test_this_server_takes_every_shape(tiny_folder: TinyFolder) -> None:
    """Its own routes and the foreign ones answer a made-up question."""
    engine = Engine.load(EngineConfig(model=str(tiny_folder("llama")), kv_cache_bytes=8 << 20))
    workload = replace(WORKLOAD, model=engine.info.name)
    question = Questions(workload, "s").next()
    refusals = {}
    async with client_of(shell_app(engine)) as client:
        for name, shape in SHAPES.items():
            response = await client.post(shape.path, json=shape.of(question, workload))
            if response.status_code != 200:
                refusals[name] = response.text
    assert refusals == {}
