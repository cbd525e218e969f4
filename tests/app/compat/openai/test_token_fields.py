"""``allowed_token_ids`` and ``logit_bias`` of POST /v1/completions: masks, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM, LogitsProcessorList

from model_runtime import Engine, EngineConfig
from tests.app.calls import call, log
from tests.app.compat.openai.completion_calls import (
    choice_of,
    complete,
    glued,
    pieces_of,
    refused,
)
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import END, FakeEngine, ToyTokenizer
from tests.conftest import TinyFolder

pytestmark = pytest.mark.anyio

TOY = ToyTokenizer()
YES, NO, DOT, EOS = (TOY.id(text) for text in (" yes", " no", ".", END))


@pytest.fixture
def engine() -> FakeEngine:
    """It is the law that answers."""
    return FakeEngine()


@pytest.mark.parametrize(
    "mask",
    [
        {"allowed_token_ids": [NO, EOS, DOT]},
        {"logit_bias": {str(YES): -100}},
        {"logit_bias": {str(NO): 100, str(EOS): 100.0}},
        {"logit_bias": {str(NO): 100, str(YES): -100, str(EOS): 100, "5": 0}},
        {"allowed_token_ids": [YES, NO, EOS], "logit_bias": {str(YES): -100}},
        {"allowed_token_ids": [NO, EOS, 5], "logit_bias": {str(NO): 100, str(EOS): 100}},
    ],
    ids=repr,
)
@pytest.mark.parametrize("max_tokens", [1, 2])
async def test_the_best_of_what_may_come(
    client: httpx.AsyncClient, mask: dict[str, Any], max_tokens: int
) -> None:
    """The most probable token is left out, and the next one keeps the model's own number."""
    body: dict[str, Any] = {"prompt": "it is", "max_tokens": max_tokens, "logprobs": 1, **mask}
    choice = await choice_of(client, **body)
    assert choice["text"] == " no no"[: 3 * max_tokens]
    assert choice["logprobs"]["token_logprobs"] == [log(0.25), log(0.5)][:max_tokens]
    # What is listed beside it is what the model finds most probable, forbidden or not.
    assert choice["logprobs"]["top_logprobs"][0] == {" yes": log(0.5), " no": log(0.25)}
    assert [glued(await pieces_of(client, **body), 0)] == [choice]


async def test_an_end_is_a_token_like_any_other(client: httpx.AsyncClient) -> None:
    """It ends a completion where it may come, and where it may not nothing does."""
    body: dict[str, Any] = {"prompt": "it is yes", "max_tokens": 3}
    for mask, tokens, reason in [
        ({}, 1, "stop"),
        ({"allowed_token_ids": [NO, EOS]}, 1, "stop"),
        ({"allowed_token_ids": [NO]}, 3, "length"),
        ({"logit_bias": {str(EOS): -100, str(TOY.id("<stop>")): -100}}, 3, "length"),
        ({"allowed_token_ids": [EOS]}, 1, "stop"),
    ]:
        answer = await complete(client, **body, **mask)
        assert answer["choices"][0]["finish_reason"] == reason, mask
        assert answer["usage"]["completion_tokens"] == tokens, mask


async def test_the_prompts_own_tokens_are_not_masked(client: httpx.AsyncClient) -> None:
    """An echo has the numbers and alternatives that it has without a mask."""
    body: dict[str, Any] = {"prompt": "it is no", "echo": True, "logprobs": 2, "max_tokens": 1}
    plain = (await choice_of(client, **body))["logprobs"]
    masked = (await choice_of(client, **body, logit_bias={str(NO): -100}))["logprobs"]
    for name, column in plain.items():
        assert masked[name][:3] == column[:3]
    assert masked["tokens"][3] == END


async def test_more_completions_than_tokens_leave(client: httpx.AsyncClient) -> None:
    """None is made up: the field that asks for them is named."""
    body = {"prompt": "it is", "max_tokens": 1, "allowed_token_ids": [YES, NO]}
    texts = [c["text"] for c in (await complete(client, **body, n=2))["choices"]]
    assert texts == [" yes", " no"]
    assert (await refused(client, **body, n=3))["param"] == "n"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"allowed_token_ids": []}, "allowed_token_ids"),
        ({"allowed_token_ids": [272]}, "allowed_token_ids.0"),
        ({"allowed_token_ids": [5, -1]}, "allowed_token_ids.1"),
        ({"allowed_token_ids": ["5"]}, "allowed_token_ids.0"),
        ({"allowed_token_ids": [True]}, "allowed_token_ids.0"),
        ({"allowed_token_ids": 5}, "allowed_token_ids"),
        ({"allowed_token_ids": [5] * 131_073}, "allowed_token_ids"),
        ({"logit_bias": {"5": 1}}, "logit_bias.5"),
        ({"logit_bias": {"5": -99.5}}, "logit_bias.5"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"logit_bias": {"5": True}}, "logit_bias.5"),
        ({"logit_bias": {"5": "100"}}, "logit_bias.5"),
        ({"logit_bias": {"5": None}}, "logit_bias.5"),
        ({"logit_bias": {"6": 100, "5": []}}, "logit_bias.5"),
        ({"logit_bias": {"yes": 100}}, "logit_bias"),
        ({"logit_bias": {"05": 100}}, "logit_bias"),
        ({"logit_bias": {"-1": 100}}, "logit_bias"),
        ({"logit_bias": {"272": -100}}, "logit_bias"),
        ({"logit_bias": {"9" * 30: -100}}, "logit_bias"),
        ({"logit_bias": [5]}, "logit_bias"),
        ({"logit_bias": {str(i): 0 for i in range(1_001)}}, "logit_bias"),
        ({"allowed_token_ids": [5], "logit_bias": {"5": -100}}, "allowed_token_ids"),
        ({"allowed_token_ids": [5], "logit_bias": {"6": 100}}, "allowed_token_ids"),
        ({"logit_bias": {str(i): -100 for i in range(272)}}, "logit_bias"),
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_bad_input_is_refused_by_name(
    client: httpx.AsyncClient, engine: FakeEngine, body: dict[str, Any], param: str
) -> None:
    """Ids that are none, other biases than masks, and masks that leave nothing."""
    assert (await refused(client, prompt="it is", **body))["param"] == param
    assert engine.queries == []


async def test_a_bias_that_is_none(client: httpx.AsyncClient) -> None:
    """Nulls, empty objects and zeros ask for nothing."""
    plain = await choice_of(client, prompt="it is")
    for body in ({"logit_bias": None}, {"logit_bias": {}}, {"logit_bias": {str(YES): 0.0}}):
        assert await choice_of(client, prompt="it is", **body) == plain


@pytest.fixture
async def real(
    tiny_folder: TinyFolder, anyio_backend: str
) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    """A server of a tiny model, and the model's folder."""
    folder = str(tiny_folder("llama"))
    config = EngineConfig(model=folder, kv_cache_bytes=1 << 20)
    async with client_of(shell_app(Engine.load(config))) as client:
        yield client, folder


CONTEXT = [11, 42, 7, 99, 3]
LETTERS = list(range(40, 90))


async def test_the_numbers_are_those_of_score(real: tuple[httpx.AsyncClient, str]) -> None:
    """What masked greedy and beam searches find has the bits that /v1/score gives it."""
    client, _ = real
    body: dict[str, Any] = {"prompt": CONTEXT, "max_tokens": 5, "logprobs": 0, "echo": True}
    for more in ({}, {"n": 3}):
        answer = await complete(client, **body, **more, allowed_token_ids=LETTERS)
        for choice in answer["choices"]:
            tokens = choice["logprobs"]["tokens"][len(CONTEXT) :]
            ids = await _ids_of(client, tokens)
            assert set(ids) <= set(LETTERS)
            (scored,) = (await call(client, "score", context=CONTEXT, candidates=[ids]))["results"]
            assert scored["logprob"] == sum(choice["logprobs"]["token_logprobs"][len(CONTEXT) :])


async def _ids_of(client: httpx.AsyncClient, names: list[str]) -> list[int]:
    """The ids of tokens by their names: those of one letter each."""
    ids = []
    for name in names:
        response = await client.post(
            "/tokenize", json={"prompt": name, "add_special_tokens": False}
        )
        (token_id,) = response.json()["tokens"]
        ids.append(token_id)
    return ids


async def test_it_is_what_transformers_generate(real: tuple[httpx.AsyncClient, str]) -> None:
    """With a logits processor that takes the same tokens away."""
    client, folder = real
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.generation_config.eos_token_id = None
    prompt = torch.tensor([CONTEXT])

    def mask(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        kept = torch.full_like(scores, -torch.inf)
        kept[:, LETTERS] = scores[:, LETTERS]
        return kept

    found = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=6,
        do_sample=False,
        pad_token_id=0,
        logits_processor=LogitsProcessorList([mask]),
    )[0, len(CONTEXT) :].tolist()
    choice = await choice_of(
        client, prompt=CONTEXT, max_tokens=6, logprobs=0, allowed_token_ids=LETTERS
    )
    assert await _ids_of(client, choice["logprobs"]["tokens"]) == found
