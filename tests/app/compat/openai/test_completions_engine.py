"""POST /v1/completions over real engines: the numbers are the native routes' to the bit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.compat.openai.logprobs import token_names
from model_runtime import Engine, EngineConfig
from model_runtime.tokenization.tokenizer import Tokenizer
from tests.app.calls import call
from tests.app.compat.openai.completion_calls import HARNESS, choice_of, complete, harness_reading
from tests.app.conftest import client_of, shell_app
from tests.conftest import TinyFolder
from tests.tiny_models import CORE_KINDS

pytestmark = pytest.mark.anyio

CONTEXT = [11, 42, 7, 99, 3]
CONTINUATIONS = [[5, 17], [8], [5, 17, 23, 4]]


@pytest.fixture(params=["llama", "qwen3"])
async def client(
    request: pytest.FixtureRequest, tiny_folder: TinyFolder, anyio_backend: str
) -> AsyncIterator[httpx.AsyncClient]:
    """A tiny model with random weights; one of qwen3's has head rows without a token."""
    config = EngineConfig(model=str(tiny_folder(request.param)), kv_cache_bytes=1 << 20)
    async with client_of(shell_app(Engine.load(config))) as client:
        yield client


async def score(client: httpx.AsyncClient, **body: Any) -> list[dict[str, Any]]:
    """The native results for the continuations."""
    fields = {"context": CONTEXT, "candidates": CONTINUATIONS, "top_logprobs": 3}
    return list((await call(client, "score", **fields, **body))["results"])


async def test_a_harness_reads_the_native_numbers(client: httpx.AsyncClient) -> None:
    """Log-likelihoods and greedy flags of an echoed batch are those of /v1/score, bit for bit."""
    prompts = [CONTEXT + continuation for continuation in CONTINUATIONS]
    answer = await complete(client, prompt=prompts, **HARNESS)
    for choice, native in zip(answer["choices"], await score(client), strict=True):
        listed = choice["logprobs"]["token_logprobs"][len(CONTEXT) : -1]
        assert listed == [token["logprob"] for token in native["tokens"]]
        assert harness_reading(choice, len(CONTEXT)) == (native["logprob"], native["greedy"])


async def test_the_greedy_path_is_found_greedy(client: httpx.AsyncClient) -> None:
    """Of the model's own greedy continuation every token equals the maximum of its row."""
    found = (await call(client, "decode", context=CONTEXT, max_tokens=6, ignore_eos=True))[
        "sequences"
    ][0]
    prompt = CONTEXT + found["token_ids"]
    choice = await choice_of(client, prompt=prompt, **HARNESS)
    assert harness_reading(choice, len(CONTEXT)) == (found["logprob"], True)
    spoiled = [*prompt[:-1], (prompt[-1] + 1) % 100]
    assert not harness_reading(await choice_of(client, prompt=spoiled, **HARNESS), len(CONTEXT))[1]


async def test_the_alternatives_are_the_native_ones(client: httpx.AsyncClient) -> None:
    """``logprobs`` of k lists the k most probable tokens with the native floats, and the token."""
    prompts = [CONTEXT + continuation for continuation in CONTINUATIONS]
    answer = await complete(client, prompt=prompts, echo=True, max_tokens=0, logprobs=3)
    for choice, native in zip(answer["choices"], await score(client), strict=True):
        rows = choice["logprobs"]["top_logprobs"][len(CONTEXT) :]
        for row, token in zip(rows, native["tokens"], strict=True):
            best = [top["logprob"] for top in token["top_logprobs"]]
            assert list(row.values())[:3] == best
            assert token["logprob"] in row.values()


async def test_neither_neighbours_nor_the_cache_change_a_bit(client: httpx.AsyncClient) -> None:
    """A prompt alone, in a batch, and asked again has the same choice."""
    prompts = [CONTEXT + continuation for continuation in CONTINUATIONS]
    batch = (await complete(client, prompt=prompts, **HARNESS))["choices"]
    for index, prompt in enumerate(prompts):
        for salt in ("", "fresh"):
            choice = await choice_of(client, prompt=prompt, cache_salt=salt, **HARNESS)
            assert choice == {**batch[index], "index": 0}


async def test_one_token_is_the_first_of_more(client: httpx.AsyncClient) -> None:
    """The row behind a prompt gives what greedy search begins with, to the bit."""
    body: dict[str, Any] = {"prompt": CONTEXT, "logprobs": 2, "ignore_eos": True}
    one = (await choice_of(client, max_tokens=1, **body))["logprobs"]
    three = (await choice_of(client, max_tokens=3, **body))["logprobs"]
    for name, column in one.items():
        assert column == three[name][:1]


async def test_what_is_cached_is_on_the_bill(client: httpx.AsyncClient) -> None:
    """Prompt tokens that were computed for an earlier request are told apart."""
    cached = []
    for _ in range(2):
        usage = (await complete(client, prompt=CONTEXT, max_tokens=2))["usage"]
        assert usage["prompt_tokens"] == len(CONTEXT)
        cached.append(usage["prompt_tokens_details"]["cached_tokens"])
    assert cached[0] < cached[1] <= len(CONTEXT)


@pytest.mark.parametrize("kind", CORE_KINDS)
def test_every_token_has_a_name_of_its_own(kind: str, tiny_folder: TinyFolder) -> None:
    """Names are as many as head rows, no two alike, and texts wherever there is one."""
    tokenizer = Tokenizer.load(tiny_folder(kind), head_rows=2_000)
    names = token_names(tokenizer)
    assert len(names) == len(set(names)) == 2_000
    texts = [tokenizer.token_text(token_id) for token_id in range(tokenizer.vocab_size)]
    plain = [text for text in texts if text and "\N{REPLACEMENT CHARACTER}" not in text]
    assert set(plain) <= set(names)
