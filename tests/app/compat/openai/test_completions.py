"""POST /v1/completions over a law of probabilities that is written out by hand."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from model_runtime import NonFiniteLogits, Priority
from tests.app.calls import call, log
from tests.app.compat.openai.completion_calls import (
    HARNESS,
    choice_of,
    complete,
    harness_reading,
    refused,
)
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import BOS, END, FakeEngine, ToyTokenizer

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine() -> FakeEngine:
    """It is the law that answers."""
    return FakeEngine()


async def test_the_answer_around_the_choices(client: httpx.AsyncClient) -> None:
    """The answer has OpenAI's fields, and its fingerprint is the model's."""
    answer = await complete(client, prompt="it is", model="org/toy")
    assert answer["id"].startswith("cmpl-")
    assert (answer["object"], answer["model"]) == ("text_completion", "org/toy")
    assert answer["system_fingerprint"] == "f" * 24
    assert answer["created"] > 1_700_000_000
    assert answer["choices"] == [
        {"text": " yes", "index": 0, "logprobs": None, "finish_reason": "stop"}
    ]
    assert answer["usage"] == {
        "prompt_tokens": 2,
        "completion_tokens": 2,
        "total_tokens": 4,
        "prompt_tokens_details": {"cached_tokens": 2},
    }


async def test_sixteen_tokens_by_default(client: httpx.AsyncClient) -> None:
    """Where nothing is said so many tokens are generated as OpenAI would."""
    choice = await choice_of(client, prompt="xyz", max_tokens=None)
    assert (len(choice["text"]), choice["finish_reason"]) == (16, "length")


async def test_what_the_harness_sends_is_one_question_a_prompt(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """All rows of a prompt and the row behind it come out of one query, and nothing is decoded."""
    prompts = [engine.tokenizer.encode(text) for text in ("it is no", "it is")]
    await complete(client, prompt=prompts, **HARNESS)
    asked = [(q.tokens, q.score_from, q.targets, q.top_k, q.keep) for q in engine.queries]
    assert asked == [(tuple(ids), 1, (), 1, len(ids)) for ids in prompts]
    assert len(engine.options) == 1


async def test_what_the_harness_reads(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """One entry more than the prompt has tokens, the first null, the argmax in every other."""
    ids = engine.tokenizer.encode("it is no")
    choice = await choice_of(client, prompt=[ids], **HARNESS)
    assert choice["logprobs"] == {
        "text_offset": [0, 2, 5, 8],
        "token_logprobs": [None, log(0.5), log(0.25), log(0.5)],
        "tokens": ["it", " is", " no", " no"],
        "top_logprobs": [
            None,
            {" is": log(0.5)},
            {" yes": log(0.5), " no": log(0.25)},
            {" no": log(0.5)},
        ],
    }
    assert (choice["text"], choice["finish_reason"]) == ("it is no no", "length")
    assert harness_reading(choice, 1) == (log(0.5) + log(0.25), False)
    assert harness_reading(choice, 3) == (0, True)


async def test_a_generated_end_is_listed(client: httpx.AsyncClient) -> None:
    """The token behind the prompt is there although it is an end, and adds no text."""
    choice = await choice_of(client, prompt="it is yes", **HARNESS)
    assert choice["logprobs"]["tokens"] == ["it", " is", " yes", END]
    assert (choice["text"], choice["finish_reason"]) == ("it is yes", "stop")


@pytest.mark.parametrize("max_tokens", [1, 3])
async def test_a_stop_takes_text_and_no_tokens(client: httpx.AsyncClient, max_tokens: int) -> None:
    """A token that completes a stop text is listed; the text is cut before the stop."""
    choice = await choice_of(
        client, prompt="it is", max_tokens=max_tokens, stop=["es", "zz"], logprobs=0
    )
    assert (choice["text"], choice["finish_reason"]) == (" y", "stop")
    assert choice["logprobs"]["tokens"] == [" yes"]


async def test_one_token_is_what_a_search_of_one_finds(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """The row behind a prompt and a greedy search agree on the token, ends ignored or not."""
    for prompt in ("it is", "it is yes", "b", "x"):
        for ignore_eos in (False, True):
            body: dict[str, Any] = {"max_tokens": 1, "ignore_eos": ignore_eos}
            choice = await choice_of(client, prompt=prompt, skip_special_tokens=False, **body)
            (found,) = (await call(client, "decode", context=prompt, **body))["sequences"]
            assert choice["text"] == found["text"]
            assert choice["finish_reason"] == found["finish_reason"]


async def test_ids_are_taken_as_they_are() -> None:
    """Neither ids nor texts get a BOS; texts do by the tokenizer's rule, any prompt on demand."""
    engine = FakeEngine(tokenizer=ToyTokenizer(adds_bos=True))
    bos, ids = engine.tokenizer.id(BOS), engine.tokenizer.encode("it is")
    async with client_of(shell_app(engine)) as client:
        for prompt, more, first in [
            (ids, {}, ids),
            ("it is", {}, ids),
            ("it is", {"add_special_tokens": True}, [bos, *ids]),
            (ids, {"add_special_tokens": True}, ids),
            (ids, {"add_bos": True}, [bos, *ids]),
            ("it is", {"add_bos": False, "add_special_tokens": True}, ids),
        ]:
            choice = await choice_of(client, prompt=prompt, max_tokens=1, **more)
            assert engine.queries.pop().tokens == tuple(first)
            assert choice["text"] == " yes"


async def test_bos_that_a_prompt_spells_is_not_doubled_by_rule() -> None:
    """The rule adds none before a text that begins with it; ``add_bos`` does as it says."""
    engine = FakeEngine(tokenizer=ToyTokenizer(adds_bos=True))
    bos, ids = engine.tokenizer.id(BOS), engine.tokenizer.encode("it is")
    async with client_of(shell_app(engine)) as client:
        for more, first in [
            ({"add_special_tokens": True}, [bos, *ids]),
            ({"add_bos": True}, [bos, bos, *ids]),
        ]:
            choice = await choice_of(client, prompt=f"{BOS}it is", echo=True, max_tokens=1, **more)
            assert engine.queries.pop().tokens == tuple(first)
            assert choice["text"] == f"{BOS}it is yes"


async def test_an_added_bos_is_listed_and_not_shown(client: httpx.AsyncClient) -> None:
    """The text is the caller's own; the BOS that was added has an entry of its own."""
    choice = await choice_of(client, prompt="it is", add_bos=True, **HARNESS)
    assert choice["text"] == "it is yes"
    assert choice["logprobs"]["tokens"] == [BOS, "it", " is", " yes"]
    assert choice["logprobs"]["text_offset"] == [0, 0, 2, 5]


async def test_control_tokens_in_texts(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """A prompt may spell control tokens, unless it is said that it must not."""
    text = f"it{END}"
    for body, ids in [
        ({}, engine.tokenizer.encode(text, parse_special=True)),
        ({"parse_special": False}, engine.tokenizer.encode(text)),
    ]:
        choice = await choice_of(client, prompt=text, **HARNESS, **body)
        assert engine.queries.pop().tokens == tuple(ids)
        assert choice["text"].startswith(text)
        assert len(choice["logprobs"]["tokens"]) == len(ids) + 1


async def test_tokens_of_the_same_text_keep_apart(engine: FakeEngine) -> None:
    """Bytes that are no text, and ids without a text, all have keys of their own."""
    law = {"it": {END: 0.5}}
    async with client_of(shell_app(FakeEngine(law))) as client:
        choice = await choice_of(client, prompt=[256, 128], echo=True, logprobs=1000, max_tokens=1)
    vocabulary = engine.tokenizer.head_rows
    for row in choice["logprobs"]["top_logprobs"][1:]:
        assert len(row) == vocabulary
    assert choice["logprobs"]["tokens"][1] == "bytes:\\x80"
    row = choice["logprobs"]["top_logprobs"][1]
    assert row["bytes:\\x80"] == choice["logprobs"]["token_logprobs"][1]
    assert {"bytes:\\x81", f"token_id:{vocabulary - 1}", END} <= row.keys()


async def test_offsets_are_characters_of_the_text(client: httpx.AsyncClient) -> None:
    """A token that holds a part of a character begins where that character does."""
    sun = "\N{BLACK SUN WITH RAYS}"
    choice = await choice_of(client, prompt=f"{sun}it", echo=True, logprobs=0, max_tokens=0)
    assert choice["text"] == f"{sun}it"
    assert choice["logprobs"]["text_offset"] == [0, 0, 0, 1]
    # Half a character at the prompt's end shows as one; the completion begins behind it.
    half = list(sun.encode()[:2])
    choice = await choice_of(client, prompt=half, echo=True, logprobs=0, max_tokens=1)
    assert choice["logprobs"]["text_offset"] == [0, 0, 1]
    assert choice["text"].startswith("\N{REPLACEMENT CHARACTER}")


async def test_no_alternatives_on_demand(client: httpx.AsyncClient) -> None:
    """With ``logprobs`` of 0 the dictionaries hold the tokens themselves and no others."""
    choice = await choice_of(client, prompt="it is no", echo=True, logprobs=0, max_tokens=0)
    assert choice["logprobs"]["top_logprobs"] == [None, {" is": log(0.5)}, {" no": log(0.25)}]


async def test_an_echo_alone(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """Nothing is generated for ``max_tokens`` of 0; without ``logprobs`` nothing is computed."""
    answer = await complete(client, prompt=["it is", "it"], echo=True, max_tokens=0, logprobs=1)
    assert [choice["text"] for choice in answer["choices"]] == ["it is", "it"]
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["length"] * 2
    assert answer["choices"][1]["logprobs"]["token_logprobs"] == [None]
    assert answer["usage"]["completion_tokens"] == 0
    assert [query.tokens for query in engine.queries] == [(256, 257)]
    engine.queries.clear()
    assert (await choice_of(client, prompt="it is", echo=True, max_tokens=0))["text"] == "it is"
    assert engine.queries == []


async def test_a_prompt_may_be_as_long_as_the_model_takes(client: httpx.AsyncClient) -> None:
    """The limit counts what is generated as well, and is exact."""
    for length, max_tokens in ((64, 0), (63, 1), (60, 4)):
        body: dict[str, Any] = {"echo": True, "logprobs": 1, "max_tokens": max_tokens}
        choice = await choice_of(client, prompt="x" * length, **body)
        assert len(choice["logprobs"]["tokens"]) == 64
        error = await refused(client, prompt="x" * (length + 1), **body)
        assert (error["param"], error["code"]) == ("prompt", "context_length_exceeded")


async def test_an_echo_with_a_longer_completion(client: httpx.AsyncClient) -> None:
    """The prompt's rows and a search's tokens make one choice."""
    choice = await choice_of(client, prompt="it is", echo=True, logprobs=1)
    assert choice["text"] == "it is yes"
    assert choice["logprobs"]["tokens"] == ["it", " is", " yes", END]
    assert choice["logprobs"]["token_logprobs"] == [None, *[log(0.5)] * 3]
    assert choice["logprobs"]["text_offset"] == [0, 2, 5, 9]


async def test_choices_come_in_the_order_of_their_prompts(client: httpx.AsyncClient) -> None:
    """With ``n`` the choices of one prompt stand together, best first, all numbered through."""
    prompts = ["it is", "a"]
    answer = await complete(client, prompt=prompts, n=2, max_tokens=2, skip_special_tokens=False)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    texts = [choice["text"] for choice in answer["choices"]]
    beam = {"strategy": "beam", "num_beams": 2, "num_return_sequences": 2, "max_tokens": 2}
    for place, context in enumerate(prompts):
        found = (await call(client, "decode", context=context, **beam))["sequences"]
        assert texts[2 * place : 2 * place + 2] == [sequence["text"] for sequence in found]
    assert answer["usage"]["completion_tokens"] == 8


async def test_the_best_of_several_beams(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """``best_of`` is how wide the search is; ``n`` of its completions are returned."""
    (choice,) = (await complete(client, prompt="it is", best_of=3, max_tokens=4))["choices"]
    beam = {"strategy": "beam", "num_beams": 3, "max_tokens": 4}
    (found,) = (await call(client, "decode", **beam))["sequences"]
    assert choice["text"] == found["text"]


async def test_a_batch_is_answered_whole_or_not_at_all() -> None:
    """What one prompt fails with is what the request fails with, whatever the others do."""
    engine = FakeEngine(failures={" is": NonFiniteLogits("nan")})
    async with client_of(shell_app(engine)) as client:
        for max_tokens in (1, 4):
            error = await refused(client, 500, prompt=["it", "it is"], max_tokens=max_tokens)
            assert error["code"] == "non_finite_logits"


async def test_our_own_fields(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """Priority, deadline and salt reach the engine, for rows and for searches."""
    ours = {"priority": "bulk", "timeout_ms": 60_000, "cache_salt": "mine"}
    await complete(client, prompt="it is", echo=True, logprobs=1, max_tokens=4, **ours)
    assert len(engine.options) == 2
    for options in engine.options:
        assert options.priority is Priority.BULK
        assert options.cache_salt == "/mine"
        assert options.deadline is not None and 0 < options.deadline - time.monotonic() <= 60
