"""Cohere's own clients, as they come, against a real server: only the address is changed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from typing import Any

import cohere
import pytest
from cohere.errors import NotFoundError, UnprocessableEntityError

from tests.end_to_end.live_server import LiveServer

pytestmark = pytest.mark.process

QUERY = "capital of Japan"
DOCUMENTS = ["Paris is in France.", "Tokyo is in Japan.", "It is raining."]
TEMPLATE = "{document}\nQuery: {query}"
OURS: dict[str, Any] = {"additional_body_parameters": {"template": TEMPLATE}}


@pytest.fixture
def model(tiny_server: LiveServer) -> str:
    """The name that the server goes by; Cohere's clients must say one."""
    name: str = tiny_server.client.get("/v1/models").json()["data"][0]["id"]
    return name


@pytest.fixture
def client(tiny_server: LiveServer) -> Iterator[cohere.ClientV2]:
    """A client of the second version."""
    with cohere.ClientV2(api_key="none", base_url=tiny_server.url) as client:
        yield client


def relevance(server: LiveServer, document: str) -> float:
    """What the native route makes of the same text."""
    context = TEMPLATE.format(document=document, query="")
    (result,) = server.post("/v1/score", {"context": context, "candidates": [QUERY]})["results"]
    return math.exp(result["mean_logprob"])


def test_the_second_client_ranks(
    client: cohere.ClientV2, tiny_server: LiveServer, model: str
) -> None:
    """Best first, with the scores that /v1/score gives, to the bit."""
    answer = client.rerank(model=model, query=QUERY, documents=DOCUMENTS, request_options=OURS)
    found = [(one.index, one.relevance_score) for one in answer.results]
    wanted = {index: relevance(tiny_server, text) for index, text in enumerate(DOCUMENTS)}
    assert found == sorted(wanted.items(), key=lambda item: -item[1])
    assert answer.meta is not None
    assert answer.meta.billed_units is not None
    assert answer.meta.billed_units.search_units == 1
    assert answer.meta.warnings is None


def test_the_second_client_says_what_was_cut(client: cohere.ClientV2, model: str) -> None:
    """The bound on a document's tokens is kept, and told."""
    answer = client.rerank(
        model=model, query=QUERY, documents=DOCUMENTS, top_n=2, max_tokens_per_doc=2
    )
    assert len(answer.results) == 2
    assert answer.meta is not None
    assert answer.meta.warnings == ["cut to max_tokens_per_doc, 2, are the documents 0, 1, 2"]


def test_the_asynchronous_client_ranks_alike(
    client: cohere.ClientV2, tiny_server: LiveServer, model: str
) -> None:
    """The same request, the same answer."""

    async def ask() -> list[tuple[int, float]]:
        async with cohere.AsyncClientV2(api_key="none", base_url=tiny_server.url) as waiting:
            answer = await waiting.rerank(model=model, query=QUERY, documents=DOCUMENTS)
        return [(one.index, one.relevance_score) for one in answer.results]

    answer = client.rerank(model=model, query=QUERY, documents=DOCUMENTS)
    assert asyncio.run(ask()) == [(one.index, one.relevance_score) for one in answer.results]


def test_the_first_client_ranks_objects(tiny_server: LiveServer, model: str) -> None:
    """Documents come back, and the fields that count are chosen."""
    documents = [{"title": text, "text": "?"} for text in DOCUMENTS]
    with cohere.Client(api_key="none", base_url=tiny_server.url) as client:
        answer = client.rerank(
            model=model,
            query=QUERY,
            documents=documents,
            rank_fields=["title"],
            return_documents=True,
            top_n=1,
            request_options=OURS,
        )
    (best,) = answer.results
    wanted = [relevance(tiny_server, text) for text in DOCUMENTS]
    assert best.relevance_score == max(wanted)
    assert best.document is not None
    assert best.document.dict() == documents[best.index]


def test_errors_are_the_clients_own(client: cohere.ClientV2, model: str) -> None:
    """A wrong model and a wrong document are raised as what they are, with our words."""
    with pytest.raises(NotFoundError) as unknown:
        client.rerank(model="rerank-v4.0-pro", query=QUERY, documents=DOCUMENTS)
    assert "rerank-v4.0-pro" in unknown.value.body["message"]
    with pytest.raises(UnprocessableEntityError) as wrong:
        client.rerank(model=model, query=QUERY, documents=["good", "x " * 1000])
    assert wrong.value.body["message"].startswith("documents.1: ")
