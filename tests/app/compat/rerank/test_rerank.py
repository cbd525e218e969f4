"""POST /v2/rerank, /v1/rerank and /rerank over a law of probabilities written out by hand."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from model_runtime import EngineOverloaded, NonFiniteLogits, Priority
from tests.app.calls import log
from tests.app.compat.rerank.rerank_calls import PLAIN, message, reply, reranking, scores
from tests.app.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio

V1, V2, TEI = "/v1/rerank", "/v2/rerank", "/rerank"
DOCUMENTS = ["it", "it is", "isn"]
LIKELY: dict[str, Any] = {"query": " yes.", "documents": DOCUMENTS, "template": PLAIN}
ASKED: dict[str, Any] = {
    "query": "it",
    "documents": ["x", " is", " no"],
    "mode": "yes_no",
    "template": "{query}{document}",
    "labels": [" yes", " no"],
}
TEXTS: dict[str, Any] = {"query": " yes.", "texts": DOCUMENTS, "template": PLAIN}


@pytest.fixture
def engine() -> FakeEngine:
    """An engine that knows the law."""
    return FakeEngine()


@pytest.fixture
async def client(engine: FakeEngine, anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server with default settings."""
    async with reranking(engine) as client:
        yield client


async def test_likelihood_is_the_mean_probability_of_the_query(
    client: httpx.AsyncClient,
) -> None:
    """The score is exp of the mean of the tokens' logs, and the likeliest document comes first."""
    answer = await reply(client, V2, **LIKELY)
    assert [one["index"] for one in answer["results"]] == [1, 2, 0]
    assert scores(answer)[1] == math.exp((log(0.5) + log(0.125)) / 2)


async def test_yes_no_is_the_share_of_yes(client: httpx.AsyncClient) -> None:
    """Of the two labels' probability behind the prompt, by their ids."""
    answer = await reply(client, V2, **ASKED)
    assert [one["index"] for one in answer["results"]] == [1, 0, 2]
    assert scores(answer)[1] == pytest.approx(0.5 / 0.75, rel=1e-6)
    assert scores(answer)[0] == 0.5
    assert scores(answer)[2] < 0.1


async def test_equal_documents_keep_their_order(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """Ties are by index, and what is equal is asked once."""
    answer = await reply(client, V2, **LIKELY | {"documents": ["it is"] * 3})
    assert [one["index"] for one in answer["results"]] == [0, 1, 2]
    assert len(engine.queries) == 1


@pytest.mark.parametrize("path", [V2, V1])
@pytest.mark.parametrize(("top_n", "count"), [(1, 1), (3, 3), (99, 3), (None, 3)])
async def test_top_n_returns_the_best(
    client: httpx.AsyncClient, path: str, top_n: int | None, count: int
) -> None:
    """So many; all, where there are no more or nothing is said."""
    answer = await reply(client, path, **LIKELY, top_n=top_n)
    assert [one["index"] for one in answer["results"]] == [1, 2, 0][:count]
    assert answer["meta"]["billed_units"] == {"search_units": 1}


async def test_vllms_top_n_of_zero_is_all(client: httpx.AsyncClient) -> None:
    """Its clients send it where nothing is said."""
    assert len((await reply(client, V1, **LIKELY, top_n=0))["results"]) == 3
    assert "top_n" in await message(client, V2, **LIKELY, top_n=0)


async def test_the_second_version_answers_in_its_shape(client: httpx.AsyncClient) -> None:
    """Nothing but what Cohere's client reads, and what it cost."""
    answer = await reply(client, V2, **LIKELY)
    meta = answer.pop("meta")
    assert answer.keys() == {"id", "results"}
    assert all(one.keys() == {"index", "relevance_score"} for one in answer["results"])
    assert meta == {
        "api_version": {"version": "2"},
        "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": 3 + 4 + 5, "output_tokens": 0},
        "cached_tokens": 0,
        "warnings": None,
        "fingerprint": "f" * 24,
    }


async def test_the_first_version_answers_in_its_shape(client: httpx.AsyncClient) -> None:
    """Beside Cohere's fields those of Jina and vLLM: the model and the usage."""
    answer = await reply(client, V1, **LIKELY)
    assert answer.keys() == {"id", "object", "model", "usage", "results", "meta"}
    assert answer["model"] == "org/toy"
    assert answer["usage"] == {"prompt_tokens": 12, "total_tokens": 12}
    assert answer["meta"]["api_version"] == {"version": "1"}
    assert all(one.keys() == {"index", "relevance_score"} for one in answer["results"])


async def test_documents_come_back_as_they_came(client: httpx.AsyncClient) -> None:
    """A text as an object with text, an object with all that is in it."""
    documents = ["it", {"text": "it is", "id": "7"}]
    body = LIKELY | {"documents": documents, "return_documents": True}
    answer = await reply(client, V1, **body)
    assert [one["document"] for one in answer["results"]] == [documents[1], {"text": "it"}]


async def test_rank_fields_choose_what_counts(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """The fields' values stand a line each, in the order they are named in."""
    document = {"title": "a", "text": "b", "more": "it"}
    await reply(client, V1, **LIKELY | {"documents": [document], "rank_fields": ["more", "title"]})
    assert engine.tokenizer.decode(engine.queries[-1].tokens) == "it\na yes."


@pytest.mark.parametrize(
    ("documents", "rank_fields", "place"),
    [
        (["it", {"title": "a"}], None, "documents.1.text"),
        ([{"title": "a"}], ["title", "author"], "documents.0.author"),
        (["it"], ["title"], "documents.0"),
    ],
)
async def test_an_object_without_its_field_is_refused(
    client: httpx.AsyncClient, documents: list[Any], rank_fields: Any, place: str
) -> None:
    """The message names the document and the field."""
    body = LIKELY | {"documents": documents, "rank_fields": rank_fields}
    assert (await message(client, V1, **body)).startswith(f"{place}: ")


@pytest.mark.parametrize(
    ("path", "place", "value", "neutral"),
    [
        (V1, "max_chunks_per_doc", 3, 10),
        (V1, "truncate_prompt_tokens", 5, None),
        (V2, "relevant_spans.mode", {"mode": "enabled"}, {"mode": "disabled"}),
        (V2, "relevant_spans.mode", {"max_spans": 3}, {"mode": "disabled", "max_spans": 3}),
        (V2, "relevant_spans.more", {"mode": "disabled", "more": 1}, None),
    ],
)
async def test_what_is_not_served_is_refused_by_name(
    client: httpx.AsyncClient, path: str, place: str, value: Any, neutral: Any
) -> None:
    """Unless it asks for nothing."""
    field = place.partition(".")[0]
    assert (await message(client, path, **LIKELY, **{field: value})).startswith(f"{place}: ")
    await reply(client, path, **LIKELY, **{field: neutral})


@pytest.mark.parametrize(
    ("path", "fields", "place"),
    [
        (V2, {"documents": []}, "documents"),
        (V2, {"documents": ["it", 3]}, "documents.1"),
        (V2, {"documents": [{"text": 3}]}, "documents.0.text"),
        (V2, {"query": ""}, "query"),
        (V2, {"rank_fields": []}, "rank_fields"),
        (V2, {"max_tokens_per_doc": 0}, "max_tokens_per_doc"),
        (V1, {"documents": ["it", {"text": 3}]}, "documents.1.text"),
        (V1, {"priority": 0.5}, "priority"),
        (V1, {"labels": ["a"]}, "labels"),
        (TEI, {"texts": ["it"]}, "documents"),
        (TEI, {"return_text": True}, "return_text"),
    ],
)
async def test_a_bad_field_is_named(
    client: httpx.AsyncClient, path: str, fields: dict[str, Any], place: str
) -> None:
    """Unknown keys too, and those of the other APIs."""
    assert (await message(client, path, **LIKELY | fields)).startswith(f"{place}: ")


@pytest.mark.parametrize(
    ("labels", "place"),
    [([" yes", " no no"], "labels.1"), ([" yes", " yes"], "labels")],
)
async def test_labels_are_two_different_tokens(
    client: httpx.AsyncClient, labels: list[str], place: str
) -> None:
    """One that is more than a token is named."""
    assert (await message(client, V2, **ASKED | {"labels": labels})).startswith(f"{place}: ")


async def test_a_model_without_the_templates_tokens_is_told_so(client: httpx.AsyncClient) -> None:
    """The prompt of a model that was trained on its tokens is not put into other words."""
    text = await message(client, V2, query="it", documents=["it"], mode="yes_no")
    assert text.startswith("template: it needs the token <|im_start|>")


@pytest.mark.parametrize("path", [V1, V2, TEI])
async def test_a_large_body_is_read_alike(client: httpx.AsyncClient, path: str) -> None:
    """It is validated beside the event loop, and complaints about it name the same field."""
    texts = ["it"] * 16_000
    answer = await reply(client, path, **LIKELY | {"documents": texts})
    assert len(answer["results"]) == 16_000
    assert answer["meta"]["billed_units"] == {"search_units": 160}
    body = LIKELY | {"documents": [*texts, 3]}
    assert (await message(client, path, **body)).startswith("documents.16000: ")


async def test_a_long_list_of_texts_is_one_list(client: httpx.AsyncClient) -> None:
    """However many pieces it is written in."""
    ranks = await reply(client, TEI, **TEXTS | {"texts": ["it"] * 1_300})
    assert [one["index"] for one in ranks] == list(range(1_300))


async def test_too_many_documents_are_refused(engine: FakeEngine) -> None:
    """The operator's bound on candidates is one on documents."""
    async with reranking(engine, max_candidates=2) as client:
        assert (await message(client, V2, **LIKELY)).startswith("documents: 3 is more")
        assert (await message(client, TEI, **TEXTS)).startswith("texts: 3 is more")


@pytest.mark.parametrize(
    ("priority", "heard"),
    [(None, "interactive"), (0, "interactive"), (7, "bulk"), ("bulk", "bulk")],
)
async def test_a_number_is_a_priority(
    client: httpx.AsyncClient, engine: FakeEngine, priority: Any, heard: str
) -> None:
    """Cohere's and vLLM's 0 is the most urgent, and more is less; our own words do as well."""
    await reply(client, V2, **LIKELY, priority=priority)
    assert engine.options[-1].priority is Priority(heard)


async def test_all_documents_are_one_request(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """They reach the engine together, each as a path of its own."""
    await reply(client, V2, **ASKED)
    assert len(engine.options) == 1
    assert len(engine.queries) == 3
    assert all(query.targets for query in engine.queries)


async def test_only_the_common_beginning_is_kept_where_the_query_comes_first(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """A document behind a query will not be asked about again; one before it may be."""
    await reply(client, V2, **ASKED)
    assert {query.keep for query in engine.queries} == {1}
    await reply(client, V2, **LIKELY)
    assert {query.keep for query in engine.queries[3:]} == {None}


async def test_another_model_is_refused_in_coheres_shape(client: httpx.AsyncClient) -> None:
    """The clients read ``message``; Jina's read ``detail``."""
    response = await client.post(V1, json=LIKELY | {"model": "rerank-v3.5"})
    assert response.status_code == 404
    assert response.json().keys() == {"message", "detail"}


@pytest.mark.parametrize("path", [V1, V2, TEI])
async def test_a_full_queue_says_when_to_come_back(
    client: httpx.AsyncClient, engine: FakeEngine, path: str
) -> None:
    """In every shape: the clients read the header."""
    engine.refusal = EngineOverloaded("full", 3.0)
    response = await client.post(path, json=TEXTS if path == TEI else LIKELY)
    assert response.status_code == 429
    assert response.headers["Retry-After"] == "3"


async def test_texts_are_answered_as_a_bare_list(client: httpx.AsyncClient) -> None:
    """As text-embeddings-inference does it, best first, with what it cost in the headers."""
    response = await client.post(TEI, json=TEXTS)
    ranks = response.json()
    assert [one["index"] for one in ranks] == [1, 2, 0]
    assert all(one.keys() == {"index", "score"} for one in ranks)
    assert response.headers["X-Compute-Tokens"] == "12"
    assert response.headers["X-Truncated-Texts"] == "0"


async def test_raw_scores_are_sums_of_logs(client: httpx.AsyncClient) -> None:
    """Of the query's tokens, in the order of these sums."""
    ranks = await reply(client, TEI, **TEXTS, raw_scores=True)
    assert ranks[0]["score"] == log(0.5) + log(0.125)
    assert [one["score"] for one in ranks] == sorted((r["score"] for r in ranks), reverse=True)


async def test_raw_scores_are_log_odds(client: httpx.AsyncClient) -> None:
    """Of yes against no."""
    body = {**ASKED, "texts": ASKED["documents"], "raw_scores": True}
    del body["documents"]
    ranks = await reply(client, TEI, **body)
    assert {one["index"]: one["score"] for one in ranks}[1] == log(0.5) - log(0.25)


async def test_texts_come_back_where_they_are_wanted(client: httpx.AsyncClient) -> None:
    """Each with its score."""
    ranks = await reply(client, TEI, **TEXTS, return_text=True)
    assert [one["text"] for one in ranks] == [DOCUMENTS[one["index"]] for one in ranks]


async def test_the_third_route_answers_documents_too(client: httpx.AsyncClient) -> None:
    """The keys of the body decide."""
    first, third = await reply(client, V1, **LIKELY), await reply(client, TEI, **LIKELY)
    assert third["results"] == first["results"]


@pytest.mark.parametrize(
    ("failure", "status", "kind"),
    [(NonFiniteLogits("nan"), 424, "Backend"), (EngineOverloaded("full", 1.0), 429, "Overloaded")],
)
async def test_failures_of_texts_have_their_own_shape(
    failure: Exception, status: int, kind: str
) -> None:
    """``error`` and ``error_type``, with the statuses of text-embeddings-inference."""
    engine = FakeEngine(failures={".": failure})
    async with reranking(engine) as client:
        response = await client.post(TEI, json=TEXTS)
    assert response.status_code == status
    assert response.json().keys() == {"error", "error_type"}
    assert response.json()["error_type"] == kind


async def test_the_operators_mode_is_everybodys(engine: FakeEngine) -> None:
    """A request that says nothing gets the prompt of the settings."""
    settings = {
        "rerank_mode": "yes_no",
        "rerank_template": "{query}{document}",
        "rerank_labels": " yes, no",
    }
    async with reranking(engine, **settings) as client:
        answer = await reply(client, V2, query="it", documents=[" is"])
    assert scores(answer)[0] == pytest.approx(2 / 3, rel=1e-6)
