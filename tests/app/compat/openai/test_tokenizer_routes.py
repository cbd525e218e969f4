"""POST /tokenize, POST /detokenize and GET /tokenizer_info."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from transformers import AutoTokenizer

from model_runtime import Engine, EngineConfig, Tokenizer
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import BOS, END, FakeEngine, ToyTokenizer
from tests.conftest import TinyFolder
from tests.tiny_models import prefixed_tokenizer, sentencepiece_tokenizer

pytestmark = pytest.mark.anyio

TALK = [{"role": "user", "content": f"it is{END}"}]


@pytest.fixture
def engine() -> FakeEngine:
    """Its tokenizer adds BOS."""
    return FakeEngine(tokenizer=ToyTokenizer(adds_bos=True))


@pytest.fixture
async def tiny(tiny_folder: TinyFolder, anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    """A tiny model with a real tokenizer."""
    config = EngineConfig(model=str(tiny_folder("llama")), kv_cache_bytes=1 << 20)
    async with client_of(shell_app(Engine.load(config))) as client:
        yield client


async def post(client: httpx.AsyncClient, path: str, **body: Any) -> dict[str, Any]:
    """The answer to a request that succeeds."""
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def test_a_text_is_cut_as_the_model_reads_it(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """The text of a control token is that token; BOS comes by the rule unless it is not wanted."""
    bos, ids = engine.tokenizer.id(BOS), [256, 257, engine.tokenizer.id(END)]
    for wish, head in (({}, [bos]), ({"add_special_tokens": None}, [bos])):
        answer = await post(client, "/tokenize", prompt=f"it is{END}", **wish)
        assert answer == {
            "count": 4,
            "max_model_len": 64,
            "tokens": head + ids,
            "token_strs": None,
        }
    answer = await post(client, "/tokenize", prompt=f"it is{END}", add_special_tokens=False)
    assert answer["tokens"] == ids


async def test_bos_that_a_text_spells_is_not_doubled(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """The rule's BOS stands first once, as /v1/completions feeds it."""
    for body in ({"prompt": f"{BOS}it"}, {"prompt": "it"}):
        answer = await post(client, "/tokenize", **body)
        assert answer["tokens"] == [engine.tokenizer.id(BOS), 256]


async def test_all_that_the_rule_puts_first_is_shown() -> None:
    """Several tokens may stand before a text."""
    theirs = prefixed_tokenizer()
    engine = FakeEngine()
    engine.tokenizer = Tokenizer(theirs)  # type: ignore[assignment]
    first = theirs("It is").input_ids[:-1]
    async with client_of(shell_app(engine)) as client:
        assert (await post(client, "/tokenize", prompt="It is"))["tokens"] == first


async def test_texts_of_the_tokens_on_demand(client: httpx.AsyncClient) -> None:
    """``return_token_strs`` lists them."""
    answer = await post(client, "/tokenize", prompt=f"it is{END}", return_token_strs=True)
    assert answer["token_strs"] == [BOS, "it", " is", END]


async def test_texts_that_nobody_wants_are_not_made(
    client: httpx.AsyncClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without ``return_token_strs`` no token is turned into text."""
    read: list[int] = []
    monkeypatch.setattr(engine.tokenizer, "token_text", read.append)
    await post(client, "/tokenize", prompt="it is")
    assert read == []


async def test_an_empty_text_has_no_tokens(client: httpx.AsyncClient) -> None:
    """It is a text like any other."""
    answer = await post(client, "/tokenize", prompt="", add_special_tokens=False)
    assert (answer["tokens"], answer["count"]) == ([], 0)


async def test_messages_are_the_native_context(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """A talk has the ids that /v1/next_token continues: what it spells stays text."""
    await post(client, "/v1/next_token", context=TALK)
    answer = await post(client, "/tokenize", messages=TALK)
    assert tuple(answer["tokens"]) == engine.queries[0].tokens
    by_rule = await post(client, "/tokenize", messages=TALK, add_special_tokens=True)
    assert by_rule["tokens"] == answer["tokens"], "the template has written BOS"


async def test_there_and_back(tiny: httpx.AsyncClient) -> None:
    """Any text, and any control token's, comes back as it was."""
    info = (await tiny.get("/tokenizer_info")).json()
    for text in (
        "",
        "The sky is blue.",
        "na\N{LATIN SMALL LETTER I WITH DIAERESIS}ve \n\t",
        "日本",
    ):
        for end in ("", info["eos_token"]):
            tokens = (await post(tiny, "/tokenize", prompt=text + end))["tokens"]
            assert (await post(tiny, "/detokenize", tokens=tokens)) == {"prompt": text + end}


@pytest.mark.parametrize("text", ["is", " is", "  is b", "", " ", "日本"])
async def test_the_blank_that_a_tokenizer_puts_first_is_not_shown(text: str) -> None:
    """Ids come back as the tokenizer's own decoder writes them, which leaves that blank out."""
    theirs = sentencepiece_tokenizer()
    engine = FakeEngine()
    engine.tokenizer = Tokenizer(theirs)  # type: ignore[assignment]
    async with client_of(shell_app(engine)) as client:
        tokens = (await post(client, "/tokenize", prompt=text))["tokens"]
        answer = await post(client, "/detokenize", tokens=tokens)
        inside = await post(client, "/detokenize", tokens=[*tokens, 2, *tokens])
    assert answer["prompt"] == theirs.decode(tokens) == text
    assert inside["prompt"] == theirs.decode([*tokens, 2, *tokens])


async def test_what_a_harness_asks_at_its_start(tiny: httpx.AsyncClient) -> None:
    """The control tokens it reads are texts, each of which is one token again."""
    info = (await tiny.get("/tokenizer_info")).json()
    assert {"eos_token", "bos_token", "pad_token", "chat_template"} <= info.keys()
    for name in ("eos_token", "bos_token"):
        answer = await post(tiny, "/tokenize", prompt=info[name], add_special_tokens=False)
        assert answer["tokens"] == [info[f"{name}_id"]]


@pytest.mark.parametrize(
    ("given", "told"),
    [(None, None), ("one", "one"), ({"default": "two", "tool_use": "three"}, "two")],
)
async def test_the_chat_template_is_the_models(
    tiny_folder: TinyFolder, given: Any, told: str | None
) -> None:
    """It is told as the model brought it; of several, the one that talks are rendered with."""
    hf_tokenizer = AutoTokenizer.from_pretrained(tiny_folder("llama"))
    hf_tokenizer.chat_template = given
    engine = FakeEngine()
    engine.tokenizer = Tokenizer(hf_tokenizer)  # type: ignore[assignment]
    async with client_of(shell_app(engine)) as client:
        assert (await client.get("/tokenizer_info")).json()["chat_template"] == told


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": TALK}, "prompt"),
        ("/tokenize", {"prompt": 5}, "prompt"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/tokenize", {"messages": [{"role": "tool", "content": "a"}]}, "messages"),
        ("/tokenize", {"messages": [{"role": "user"}]}, "messages.0.content"),
        (
            "/tokenize",
            {"messages": [{"role": "assistant", "content": "a"}], "add_generation_prompt": True},
            "add_generation_prompt",
        ),
        ("/tokenize", {"prompt": "a", "chat_template": "x"}, "chat_template"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": "a"}, "tokens"),
        ("/detokenize", {"tokens": [5, 272]}, "tokens.1"),
        ("/detokenize", {"tokens": [5, -1]}, "tokens.1"),
    ],
    ids=repr,
)
async def test_bad_input_is_refused_by_name(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], param: str
) -> None:
    """Whatever is wrong, the error object names the field."""
    response = await client.post(path, json=body)
    assert response.status_code == 422, response.text
    assert response.json()["error"]["param"] == param


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
async def test_another_model(client: httpx.AsyncClient, path: str) -> None:
    """A model that is not served is 404."""
    field = {"prompt": "a"} if path == "/tokenize" else {"tokens": [5]}
    response = await client.post(path, json={**field, "model": "other"})
    assert response.status_code == 404
    assert response.json()["error"]["param"] == "model"


async def test_the_routes_are_documented(client: httpx.AsyncClient) -> None:
    """/openapi.json shows what each takes and answers, with examples."""
    document = (await client.get("/openapi.json")).json()
    for path, method in (
        ("/tokenize", "post"),
        ("/detokenize", "post"),
        ("/tokenizer_info", "get"),
    ):
        route = document["paths"][path][method]
        assert route["summary"] and route["description"]
        answer = route["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
        assert document["components"]["schemas"][answer.rsplit("/", 1)[1]]["examples"]
