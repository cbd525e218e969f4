"""How prompts become tokens: control tokens, merges, and documents that are cut."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest

from app.compat.rerank.config import RerankDefaults
from app.compat.rerank.plan import plan_rerank
from app.compat.rerank.request import PromptOptions
from app.compat.rerank.rerank_query import RerankQuery
from app.compat.rerank.truncation import truncate, truncations
from app.requests.encoding import CHUNK_TEXTS
from model_runtime import InvalidQuery, Tokenizer
from tests.app.compat.rerank.rerank_calls import PLAIN, message, reply, reranking, scores
from tests.app.fake_engine import BOS, END, FakeEngine, ToyTokenizer
from tests.tiny_models import sentencepiece_tokenizer, tiny_tokenizer

V1, V2, TEI = "/v1/rerank", "/v2/rerank", "/rerank"
ASKING: dict[str, Any] = {"mode": "yes_no", "labels": [" yes", " no"]}
MODEL_LENGTH = 64


@pytest.fixture
def engine() -> FakeEngine:
    """An engine that knows the law."""
    return FakeEngine()


@pytest.fixture
async def client(engine: FakeEngine, anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server with default settings."""
    async with reranking(engine) as client:
        yield client


def texts(engine: FakeEngine) -> list[str]:
    """What the engine was last asked about, token by token."""
    return [engine.tokenizer.token_text(token_id) for token_id in engine.queries[-1].tokens]


@pytest.mark.anyio
async def test_only_the_template_has_control_tokens(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """The same letters in a query, a document or an instruction stay letters."""
    await reply(
        client,
        V2,
        query=END,
        documents=[BOS],
        instruction=END,
        template=BOS + "{instruction}" + END + "{query}{document}" + END,
        **ASKING,
    )
    control = [BOS, END, END]
    assert [one for one in texts(engine) if len(one) > 1] == control
    assert "".join(texts(engine)) == BOS + END + END + END + BOS + END


@pytest.mark.anyio
async def test_what_is_filled_in_merges_as_in_any_text(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """A query is scored from where prompts with and without it part, as /v1/score does it."""
    await reply(client, V2, query="is yes", documents=["it"], template="{document} {query}")
    assert texts(engine) == ["it", " is", " yes"]
    assert engine.queries[-1].score_from == 1


@pytest.mark.anyio
@pytest.mark.parametrize("template", [PLAIN, BOS + PLAIN])
async def test_bos_stands_first_once(template: str) -> None:
    """By the tokenizer's own rule, unless the template writes it."""
    engine = FakeEngine(tokenizer=ToyTokenizer(adds_bos=True))
    async with reranking(engine) as client:
        await reply(client, V2, query=" yes", documents=["it"], template=template)
    assert texts(engine) == [BOS, "it", " yes"]


@pytest.mark.anyio
async def test_a_query_with_nothing_before_it_is_refused(client: httpx.AsyncClient) -> None:
    """There is no first token to be conditional on; the document that is empty is named."""
    body = {"query": " yes", "documents": ["it", ""], "template": PLAIN}
    assert (await message(client, V2, **body)).startswith("documents.1: nothing stands before")


@pytest.mark.anyio
@pytest.mark.parametrize("path", [V1, V2])
async def test_a_document_that_does_not_fit_is_named(
    client: httpx.AsyncClient, engine: FakeEngine, path: str
) -> None:
    """The model is not asked about the others either."""
    body = {"query": " yes", "documents": ["it", "x" * MODEL_LENGTH], "template": PLAIN}
    text = await message(client, path, **body)
    assert text == "documents.1: its prompt has 65 tokens; the model takes 64"
    assert not engine.queries


@pytest.mark.anyio
async def test_a_document_is_cut_to_its_first_tokens_and_a_warning_says_so(
    client: httpx.AsyncClient,
) -> None:
    """Its score is that of its beginning."""
    body = {"query": " yes", "template": PLAIN}
    cut = await reply(client, V2, **body, documents=["a", "it is no"], max_tokens_per_doc=2)
    (warning,) = cut["meta"]["warnings"]
    assert warning == "cut to max_tokens_per_doc, 2, are the documents 1"
    whole = await reply(client, V2, **body, documents=["a", "it is"])
    assert scores(cut) == scores(whole)
    assert whole["meta"]["warnings"] is None


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("direction", "kept"), [(None, "b" * 60 + "cde"), ("Right", "b" * 60 + "cde"), ("LEFT", None)]
)
async def test_a_text_is_cut_to_fit_the_model_where_that_is_asked(
    client: httpx.AsyncClient, engine: FakeEngine, direction: str | None, kept: str | None
) -> None:
    """As much as is needed, at the side that is named, and a header counts such texts."""
    text = "b" * 60 + "cdefghijkl"
    body = {"query": " yes", "texts": [text], "template": PLAIN, "truncate": True}
    response = await client.post(TEI, json=body | {"truncation_direction": direction})
    assert response.status_code == 200, response.text
    assert response.headers["X-Truncated-Texts"] == "1"
    assert texts(engine) == [*(kept or text[-63:]), " yes"]
    assert len(engine.queries[-1].tokens) == MODEL_LENGTH


@pytest.mark.anyio
@pytest.mark.parametrize("truncate", [False, True])
async def test_a_text_that_cannot_be_cut_enough_is_refused(
    client: httpx.AsyncClient, truncate: bool
) -> None:
    """The query alone is too long, and queries are never cut."""
    body = {"query": "x" * 70, "texts": ["it"], "template": PLAIN, "truncate": truncate}
    assert (await message(client, TEI, **body)).startswith("texts.0: its prompt has 71 tokens")


@pytest.mark.anyio
async def test_prompts_that_are_too_much_together_are_refused(client: httpx.AsyncClient) -> None:
    """Before any of them is tokenized: what is repeated around each document counts."""
    template = "x" * 16_000 + PLAIN
    body = {"query": " yes", "documents": ["it"] * 1_001, "template": template}
    assert (await message(client, V2, **body)).startswith("documents: with the prompt around each")


@pytest.mark.parametrize(
    ("place", "fields"),
    [
        ("query", {"query": "A"}),
        ("documents.1", {"documents": ["a", "A"]}),
        ("template", {"template": "A{document}{query}"}),
    ],
)
def test_a_text_without_tokens_is_named(place: str, fields: dict[str, Any]) -> None:
    """A byte that the vocabulary does not have is not dropped."""
    tokenizer = Tokenizer(tiny_tokenizer("llama", vocab_size=30))
    body = {"query": "a", "documents": ["a"], "template": PLAIN} | fields
    prompt = RerankDefaults().prompt(PromptOptions(template=body["template"]))
    question = RerankQuery([body["query"]], body["documents"], "documents")
    with pytest.raises(InvalidQuery) as caught:
        plan_rerank(prompt, question, tokenizer, FakeEngine().info)
    assert caught.value.param == place
    assert str(caught.value) == f"{place}: the vocabulary has no token for byte 0x41"


def test_a_cut_leaves_no_half_character() -> None:
    """A character of several tokens goes as a whole, at either end."""
    tokenizer = Tokenizer(tiny_tokenizer("llama"))
    text = "\N{SNOWMAN}a\N{SNOWMAN}"
    ids = tokenizer.encode(text)
    assert len(ids) == 7
    assert list(truncations(tokenizer, text, ids, 6, "right"))[:4] == ["\N{SNOWMAN}a"] * 3 + [
        "\N{SNOWMAN}"
    ]
    assert next(truncations(tokenizer, text, ids, 6, "left")) == "a\N{SNOWMAN}"
    assert list(truncations(tokenizer, text, ids, -1, "right")) == []


def test_a_cut_adds_no_space() -> None:
    """The space that SentencePiece puts first is no part of the document."""
    tokenizer = Tokenizer(sentencepiece_tokenizer())
    ids = tokenizer.encode("is a b")
    assert next(truncations(tokenizer, "is a b", ids, 2, "right")) == "is "
    assert next(truncations(tokenizer, "is a b", ids, 1, "left")) == "b"


@pytest.mark.parametrize("tokens", [1, 2, 5, 100])
def test_a_shortened_text_has_no_more_tokens_than_asked(tokens: int) -> None:
    """It is the beginning of the text, tokenized anew."""
    tokenizer = Tokenizer(tiny_tokenizer("llama"))
    text = "The capital of France is Paris \N{SNOWMAN}"
    whole, cut = truncate(tokenizer, ["a", text], tokens)
    assert whole == "a"
    assert text.startswith(cut)
    assert len(tokenizer.encode(cut)) <= tokens
    assert (cut == text) == (tokens == 100)


class SlowTokenizer(ToyTokenizer):
    """Counts what it is asked for, and takes its time for each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = 0

    def encode_batch(self, texts: Sequence[str], **settings: Any) -> list[list[int]]:
        self.batches += 1
        time.sleep(0.02)
        return super().encode_batch(texts, **settings)


@pytest.mark.parametrize("path", [V1, V2, TEI])
@pytest.mark.anyio
async def test_tokenizing_ends_with_the_time(path: str) -> None:
    """No document after the deadline is tokenized, whoever asks and whatever is to be cut."""
    engine = FakeEngine(tokenizer=SlowTokenizer())
    field = "texts" if path == TEI else "documents"
    body = {"query": "a", field: ["b"] * 5 * CHUNK_TEXTS, "timeout_ms": 10}
    async with reranking(engine) as client:
        response = await client.post(path, json=body)
    assert response.status_code == (424 if path == TEI else 504), response.text
    assert engine.queries == []
