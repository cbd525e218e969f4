"""Rerank scores are those of the native routes, to the bit, on a real model."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.compat.rerank.templates import BUILTIN
from model_runtime import Engine, EngineConfig
from tests.app.compat.rerank.rerank_calls import reply, reranking, scores
from tests.conftest import TinyFolder

pytestmark = pytest.mark.anyio

V2, TEI = "/v2/rerank", "/rerank"
QUERY = "capital of Japan"
DOCUMENTS = [
    "The capital of France is Paris.",
    "The capital of Japan is Tokyo.",
    "It is raining and it isn't cold",
]


@pytest.fixture
async def client(tiny_folder: TinyFolder, anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server of a tiny model."""
    config = EngineConfig(model=str(tiny_folder("llama")), kv_cache_bytes=4 << 20)
    async with reranking(Engine.load(config)) as client:
        yield client


def filled(template: str, document: str) -> str:
    """The text before what is scored."""
    builtin = BUILTIN[template]
    return builtin.text.format(instruction=builtin.instruction, query=QUERY, document=document)


async def test_likelihoods_are_those_of_score(client: httpx.AsyncClient) -> None:
    """The raw score is log P(query | prompt), as /v1/score gives it for the same text."""
    ranks = await reply(client, TEI, query=QUERY, texts=DOCUMENTS, raw_scores=True)
    answer = await reply(client, V2, query=QUERY, documents=DOCUMENTS)
    for rank in ranks:
        context = filled("query-likelihood", DOCUMENTS[rank["index"]]).removesuffix(QUERY)
        native = await reply(client, "/v1/score", context=context, candidates=[QUERY])
        (result,) = native["results"]
        assert native["boundary"]["shift_bytes"] == 1
        assert rank["score"] == result["logprob"]
        assert scores(answer)[rank["index"]] == math.exp(result["mean_logprob"])


async def test_labels_are_those_of_next_token(client: httpx.AsyncClient) -> None:
    """The log-odds are those of the labels' ids in the native distribution."""
    labels = [" yes", " no"]
    body = {"query": QUERY, "mode": "yes_no", "template": "plain-yes-no", "labels": labels}
    ranks = await reply(client, TEI, **body, texts=DOCUMENTS, raw_scores=True)
    answer = await reply(client, V2, **body, documents=DOCUMENTS)
    for rank in ranks:
        context = filled("plain-yes-no", DOCUMENTS[rank["index"]])
        native = await reply(client, "/v1/next_token", context=context, labels=labels)
        yes, no = (one["logprob"] for one in native["chosen"])
        assert rank["score"] == yes - no
        assert scores(answer)[rank["index"]] == pytest.approx(
            math.exp(yes) / (math.exp(yes) + math.exp(no)), rel=1e-12
        )


async def test_qwens_prompt_is_the_one_it_was_trained_on(client: httpx.AsyncClient) -> None:
    """The same ids, control tokens among them, that its own template makes of a conversation."""
    system, user = BUILTIN["qwen3-reranker"].text.split("<|im_end|>\n<|im_start|>user\n")
    user = user.split("<|im_end|>")[0]
    places = {"instruction": "Find it.", "query": QUERY, "document": DOCUMENTS[0]}
    messages = [
        {"role": "system", "content": system.removeprefix("<|im_start|>system\n")},
        {"role": "user", "content": user.format(**places)},
    ]
    body = {"query": QUERY, "mode": "yes_no", "instruction": "Find it.", "labels": ["a", "b"]}
    # The tiny model's template goes on with the assistant's turn, as Qwen's prompt does.
    template = BUILTIN["qwen3-reranker"].text.removesuffix("<think>\n\n</think>\n\n")
    ranks = await reply(
        client, TEI, **body, texts=DOCUMENTS[:1], template=template, raw_scores=True
    )
    native = await reply(client, "/v1/next_token", context=messages, labels=["a", "b"])
    yes, no = (one["logprob"] for one in native["chosen"])
    assert ranks[0]["score"] == yes - no


async def test_a_score_does_not_depend_on_the_other_documents(client: httpx.AsyncClient) -> None:
    """Alone, in a crowd and again: the same bits."""
    together = scores(await reply(client, V2, query=QUERY, documents=DOCUMENTS))
    for index, document in enumerate(DOCUMENTS):
        alone = await reply(client, V2, query=QUERY, documents=[document])
        assert scores(alone)[0] == together[index]


async def test_what_prompts_share_is_computed_once(client: httpx.AsyncClient) -> None:
    """Many documents of one query cost little more than what is their own."""
    body: dict[str, Any] = {"query": QUERY, "mode": "yes_no", "labels": ["a", "b"]}
    answer = await reply(client, V2, **body, documents=[f"Document {n}" for n in range(8)])
    meta = answer["meta"]
    assert meta["cached_tokens"] > 0.6 * meta["tokens"]["input_tokens"]
