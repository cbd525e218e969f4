"""What clients of several rerank servers send to each of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest

from model_runtime import InvalidQuery
from tests.app.compat.rerank.rerank_calls import PLAIN, message, reply, reranking, scores
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine, ToyTokenizer

pytestmark = pytest.mark.anyio

V1, V2, TEI = "/v1/rerank", "/v2/rerank", "/rerank"
DOCUMENTS = ["it", "it is", "isn"]
LIKELY: dict[str, Any] = {"query": " yes.", "documents": DOCUMENTS, "template": PLAIN}
TEXTS: dict[str, Any] = {"query": " yes.", "texts": DOCUMENTS, "template": PLAIN}
ROUTERS: dict[str, Any] = {"rid": None, "user": None, "return_documents": True, "top_k": None}
"""What a router adds, where its client said nothing."""
STRANGE = ["it", "\x04it\x04 is", "isn"]
"""The second one with characters that a vocabulary may lack."""


class NarrowTokenizer(ToyTokenizer):
    """Has no token for the byte 4."""

    def check_text(self, text: str, param: str | None = None) -> None:
        if "\x04" in text:
            raise InvalidQuery("the vocabulary has no token for byte 0x04", param)

    def spellable(self, text: str, param: str | None = None) -> str:
        return text.replace("\x04", "")


@pytest.fixture
async def client(anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server with default settings."""
    async with reranking(FakeEngine()) as client:
        yield client


@pytest.fixture
async def narrow(anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    """The same with a vocabulary that lacks a byte."""
    async with reranking(FakeEngine(tokenizer=NarrowTokenizer())) as client:
        yield client


@pytest.mark.parametrize("path", [V1, V2])
async def test_documents_come_back_where_they_are_wanted(
    client: httpx.AsyncClient, path: str
) -> None:
    """In either version, as objects; the scores are those without them."""
    documents = ["it", {"text": "it is", "id": "7"}, "isn"]
    body = LIKELY | {"documents": documents, "return_documents": True}
    answer = await reply(client, path, **body, top_n=2)
    assert [one["document"] for one in answer["results"]] == [documents[1], {"text": "isn"}]
    plain = await reply(client, path, **LIKELY, return_documents=False)
    assert all("document" not in one for one in plain["results"])
    wanted = scores(plain)
    assert all(wanted[one["index"]] == one["relevance_score"] for one in answer["results"])


async def test_objects_are_cut_and_ranked_by_their_fields(client: httpx.AsyncClient) -> None:
    """The second version reads them as the first does, and cuts what counts of them."""
    documents = [{"a": "it is", "b": "x"}, {"a": "it", "b": " is"}]
    body = LIKELY | {"documents": documents, "rank_fields": ["a"], "max_tokens_per_doc": 1}
    answer = await reply(client, V2, **body)
    texts = await reply(client, V2, **LIKELY | {"documents": ["it", "it"]})
    assert scores(answer) == scores(texts)
    assert answer["meta"]["warnings"] == ["cut to max_tokens_per_doc, 1, are the documents 0"]


@pytest.mark.parametrize(("top_n", "count"), [(1, 1), (2, 2), (0, 3), (99, 3), (None, 3)])
async def test_so_many_texts_of_the_best(
    client: httpx.AsyncClient, top_n: int | None, count: int
) -> None:
    """With the served model's name beside them."""
    ranks = (await client.post(TEI, json={**TEXTS, "top_n": top_n, "model": "org/toy"})).json()
    assert [one["index"] for one in ranks] == [1, 2, 0][:count]
    response = await client.post(TEI, json={**TEXTS, "model": "another"})
    assert (response.status_code, response.json()["error_type"]) == (404, "Validation")


@pytest.mark.parametrize("path", [V1, TEI])
@pytest.mark.parametrize(("top_k", "count"), [(None, 3), (2, 2), (0, 3)])
async def test_a_router_gets_the_list_that_it_reads(
    client: httpx.AsyncClient, path: str, top_k: int | None, count: int
) -> None:
    """Of scores, with documents as text; told by what only routers send."""
    sent = ROUTERS | {"top_k": top_k}
    ranks = (await client.post(path, json={**LIKELY, **sent})).json()
    wanted = scores(await reply(client, V1, **LIKELY))
    assert ranks == [
        {"index": index, "score": wanted[index], "document": DOCUMENTS[index], "meta_info": None}
        for index in [1, 2, 0][:count]
    ]
    (bare,) = (await client.post(path, json={**LIKELY, "top_k": 1})).json()
    assert bare["document"] is None


@pytest.mark.parametrize("path", [V1, TEI])
@pytest.mark.parametrize("absent", sorted(ROUTERS))
async def test_nulls_that_no_router_sends_ask_for_nothing(
    client: httpx.AsyncClient, path: str, absent: str
) -> None:
    """All that routers send but one: an answer of the usual shape, and so with ``top_k`` alone."""
    usual = await reply(client, V1, **LIKELY)
    others = ROUTERS | {"return_documents": False}
    del others[absent]
    for sent in (others, {"top_k": None}):
        answer = await reply(client, path, **LIKELY, **sent)
        assert answer["results"] == usual["results"]


@pytest.mark.parametrize("path", [V1, V2])
async def test_a_character_that_cannot_be_spelled_costs_a_warning(
    narrow: httpx.AsyncClient, path: str
) -> None:
    """The document is ranked without it, the others as ever; what comes back is what came."""
    body = LIKELY | {"documents": STRANGE, "return_documents": True}
    answer = await reply(narrow, path, **body)
    assert scores(answer) == scores(await reply(narrow, path, **LIKELY))
    warning = "characters that the vocabulary cannot spell are left out: documents 1"
    assert answer["meta"]["warnings"] == [warning]
    assert {"text": STRANGE[1]} in [one["document"] for one in answer["results"]]


async def test_every_shape_says_what_was_left_out(narrow: httpx.AsyncClient) -> None:
    """A list of texts by a header, a router's list in the item."""
    response = await narrow.post(TEI, json={**TEXTS, "texts": STRANGE})
    plain = await narrow.post(TEI, json=TEXTS)
    assert response.json() == plain.json()
    assert response.headers["X-Unspelled-Texts"] == "1"
    assert "X-Unspelled-Texts" not in plain.headers
    ranks = (await narrow.post(V1, json={**LIKELY, **ROUTERS, "documents": STRANGE})).json()
    warned = {one["index"]: one["meta_info"] for one in ranks}
    assert warned.pop(1) == {
        "warnings": ["characters that the vocabulary cannot spell are left out"]
    }
    assert list(warned.values()) == [None, None]


@pytest.mark.parametrize(
    ("strange", "listed"),
    [
        ([0], "0"),
        ([2, 5], "2, 5"),
        ([0, 1, 2, 3, 7], "0-3, 7"),
        (range(300), "0-299"),
        (range(0, 256, 2), ", ".join(map(str, range(0, 256, 2)))),
        (range(1, 400, 2), ", ".join(map(str, range(1, 256, 2))) + ", ..."),
    ],
    ids=["the first", "two", "runs", "all", "as many as fit", "too many"],
)
async def test_a_header_lists_which_texts_lost_a_character(
    narrow: httpx.AsyncClient, strange: Sequence[int], listed: str
) -> None:
    """By their indices, and in no more room than a header has."""
    texts = [STRANGE[1] if i in strange else "it" for i in range(max(strange) + 1)]
    response = await narrow.post(TEI, json={**TEXTS, "texts": texts})
    assert response.status_code == 200, response.text
    assert response.headers["X-Unspelled-Texts"] == listed


async def test_a_document_of_nothing_else_is_an_empty_one(narrow: httpx.AsyncClient) -> None:
    """Where the template has a place for it."""
    body = LIKELY | {"template": "it{document}{query}"}
    answer = await reply(narrow, V2, **body | {"documents": ["\x04\x04", " is"]})
    assert scores(answer) == scores(await reply(narrow, V2, **body | {"documents": ["", " is"]}))


async def test_where_nobody_could_be_told_it_is_refused(narrow: httpx.AsyncClient) -> None:
    """Pairs have no place for a warning; a query is no document."""
    body = {"queries": " yes.", "documents": STRANGE, "template": PLAIN}
    response = await narrow.post("/v1/score", json=body)
    assert response.json()["error"]["param"] == "documents.1"
    assert await message(narrow, V2, **LIKELY | {"query": "\x04"}) == (
        "query: the vocabulary has no token for byte 0x04"
    )


async def test_native_candidates_fail_by_index(anyio_backend: str) -> None:
    """As before: the one candidate, by its name."""
    engine = FakeEngine(tokenizer=NarrowTokenizer())
    async with client_of(shell_app(engine)) as client:
        body = {"context": "it", "candidates": [" is", "\x04"]}
        results = (await client.post("/v1/score", json=body)).json()["results"]
    assert "error" not in results[0]
    assert results[1]["error"]["param"] == "candidates.1"
