"""``skip_special_tokens`` of POST /v1/completions, stops, and where the listed tokens begin."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer as RustTokenizer

from app.decoding.token_rules import TokenRules
from model_runtime.tokenization.tokenizer import Tokenizer
from tests.app.compat.openai.completion_calls import choice_of, glued, pieces_of
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import END, STOP, FakeEngine
from tests.conftest import TinyFolder
from tests.tiny_models import CORE_KINDS

pytestmark = pytest.mark.anyio

LAW = {
    "it": {STOP: 0.5},
    STOP: {" yes": 0.5},
    " yes": {"c": 0.5},
    "c": {STOP: 0.25, "d": 0.125},
    " no": {END: 0.5},
    END: {" no": 0.5},
}
"""A control token that ends nothing comes first, behind " no" the model's end."""


@pytest.fixture
def engine() -> FakeEngine:
    """It is the law that answers."""
    return FakeEngine(LAW)


async def whole(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    """The choice of a request, which its pieces make as well."""
    choice = await choice_of(client, **body)
    assert glued(await pieces_of(client, **body), 0) == choice
    return choice


@pytest.mark.parametrize("max_tokens", [1, 2, 3])
async def test_they_are_left_out_of_the_text_and_listed(
    client: httpx.AsyncClient, max_tokens: int
) -> None:
    """By default the text is what transformers decode without special tokens."""
    body: dict[str, Any] = {"prompt": "it", "max_tokens": max_tokens, "logprobs": 0}
    texts = ["", " yes", "c"][:max_tokens]
    for more in ({}, {"skip_special_tokens": True}, {"skip_special_tokens": None}):
        choice = await whole(client, **body, **more)
        assert choice["text"] == "".join(texts)
        assert choice["logprobs"]["tokens"] == [STOP, *texts[1:]]
        assert choice["logprobs"]["text_offset"] == [2, 2, 6][:max_tokens]
        assert choice["finish_reason"] == "length"


async def test_they_are_shown_on_demand(client: httpx.AsyncClient) -> None:
    """All but the one that ends the completion."""
    body: dict[str, Any] = {"prompt": "it", "max_tokens": 2, "skip_special_tokens": False}
    choice = await whole(client, **body, logprobs=0)
    assert choice["text"] == f"{STOP} yes"
    assert choice["logprobs"]["text_offset"] == [2, 2 + len(STOP)]
    choice = await whole(client, **{**body, "prompt": "it is no"})
    assert (choice["text"], choice["finish_reason"]) == ("", "stop")


@pytest.mark.parametrize("skip", [True, False])
async def test_an_end_that_ends_nothing_is_a_control_token(
    client: httpx.AsyncClient, skip: bool
) -> None:
    """With ``ignore_eos`` it is generated like any other."""
    body: dict[str, Any] = {"prompt": "it is no", "max_tokens": 3, "ignore_eos": True}
    choice = await whole(client, **body, skip_special_tokens=skip)
    assert choice["text"] == (" no" if skip else f"{END} no{END}")


@pytest.mark.parametrize("skip", [True, False])
async def test_an_echo_shows_the_prompt_as_it_is(client: httpx.AsyncClient, skip: bool) -> None:
    """Control tokens of the prompt are its text, whatever the completion's are."""
    prompt = f"{STOP}it"
    body: dict[str, Any] = {"prompt": prompt, "max_tokens": 2, "echo": True, "logprobs": 0}
    choice = await whole(client, **body, skip_special_tokens=skip)
    assert choice["text"] == prompt + (" yes" if skip else f"{STOP} yes")
    behind = len(prompt) + (0 if skip else len(STOP))
    assert choice["logprobs"]["text_offset"] == [0, len(STOP), len(prompt), behind]


async def test_a_stop_is_looked_for_in_what_is_shown(client: httpx.AsyncClient) -> None:
    """A hidden token neither holds a stop's letters nor parts them."""
    body: dict[str, Any] = {"max_tokens": 4, "prompt": "it"}
    assert (await whole(client, **body, stop="top"))["text"].startswith(" yesc")
    assert (await whole(client, **body, stop="top", skip_special_tokens=False))["text"] == "<s"
    law = {"x": {"a": 0.5}, "a": {STOP: 0.5}, STOP: {"b": 0.5}, "b": {"c": 0.5}}
    async with client_of(shell_app(FakeEngine(law))) as parted:
        body = {"prompt": "x", "max_tokens": 4, "stop": "ab"}
        choice = await whole(parted, **body)
        assert (choice["text"], choice["finish_reason"]) == ("", "stop")
        choice = await whole(parted, **body, skip_special_tokens=False)
        assert (choice["text"], choice["finish_reason"]) == (f"a{STOP}bc", "length")


@pytest.mark.parametrize("max_tokens", [1, 5])
@pytest.mark.parametrize("skip", [True, False])
async def test_a_stop_that_spells_a_control_token_is_that_token(
    client: httpx.AsyncClient, max_tokens: int, skip: bool
) -> None:
    """It ends the completion and is no part of the text, whether they are shown or not."""
    body: dict[str, Any] = {"prompt": "it", "max_tokens": max_tokens, "logprobs": 0}
    choice = await whole(client, **body, stop=["zz", STOP], skip_special_tokens=skip)
    assert (choice["text"], choice["finish_reason"]) == ("", "stop")
    assert choice["logprobs"]["tokens"] == [STOP]


async def test_a_stop_inside_what_is_listed(client: httpx.AsyncClient) -> None:
    """The text is cut before it; its tokens are listed, and begin where the text is as if whole."""
    body: dict[str, Any] = {"prompt": "it", "max_tokens": 5, "logprobs": 0, "stop": "esc"}
    choice = await whole(client, **body)
    assert choice["text"] == " y"
    assert choice["logprobs"]["tokens"] == [STOP, " yes", "c"]
    assert choice["logprobs"]["text_offset"] == [2, 2, 6]


async def test_offsets_count_from_the_prompts_end(client: httpx.AsyncClient) -> None:
    """In characters of the prompt's text, whether it was sent as text or as ids."""
    sun = "\N{BLACK SUN WITH RAYS}"
    for prompt in (f"{sun}it", [*sun.encode(), 256]):
        for echo in (False, True):
            body: dict[str, Any] = {"max_tokens": 2, "logprobs": 0, "echo": echo}
            choice = await whole(client, prompt=prompt, **body)
            assert choice["logprobs"]["text_offset"][-2:] == [3, 3]
    # A BOS that was put before a prompt is no part of its text.
    choice = await whole(client, prompt="it", add_bos=True, max_tokens=1, logprobs=0)
    assert choice["logprobs"]["text_offset"] == [2]


@pytest.mark.parametrize("kind", CORE_KINDS)
def test_what_is_hidden_is_what_transformers_skip(kind: str, tiny_folder: TinyFolder) -> None:
    """Every token of a vocabulary is text for both or for neither."""
    folder = tiny_folder(kind)
    tokenizer = Tokenizer.load(folder)
    rust = RustTokenizer.from_file(str(folder / "tokenizer.json"))
    text_bytes = TokenRules(hides_control=True).text_bytes(tokenizer)
    hidden = [i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i) != text_bytes(i)]
    assert hidden
    for token_id in range(tokenizer.vocab_size):
        skipped = rust.decode([token_id], skip_special_tokens=True)
        whole_text = rust.decode([token_id], skip_special_tokens=False)
        assert (skipped != whole_text) == (token_id in hidden)
