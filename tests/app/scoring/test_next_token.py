"""POST /v1/next_token over a law of probabilities that is written out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import httpx
import pytest

from model_runtime import NonFiniteLogits
from tests.app.calls import call, log, refusal
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import END, LAW, FakeEngine

pytestmark = pytest.mark.anyio

VOCABULARY = 272
OTHERS = (VOCABULARY - 3, 0.125 / (VOCABULARY - 3))
"""How many tokens the law does not name after " is", and the probability of each."""


@pytest.fixture
def engine() -> FakeEngine:
    """It is the law that answers."""
    return FakeEngine()


def texts(tokens: list[dict[str, Any]]) -> list[str]:
    """What the tokens say."""
    return [token["text"] for token in tokens]


async def test_the_most_probable_tokens(client: httpx.AsyncClient) -> None:
    """Each of the top k tokens has its id, text, log-probability, probability and rank."""
    answer = await call(client, "next_token", top_k=2)
    assert answer["tokens"] == [
        {
            "id": 260,
            "text": " yes",
            "logprob": log(0.5),
            "probability": math.exp(log(0.5)),
            "rank": 1,
        },
        {
            "id": 261,
            "text": " no",
            "logprob": log(0.25),
            "probability": math.exp(log(0.25)),
            "rank": 2,
        },
    ]
    assert "chosen" not in answer
    assert answer["remaining_probability"] == pytest.approx(0.25)


async def test_the_answer_around_the_tokens(client: httpx.AsyncClient) -> None:
    """The answer says which model, what it cost and how long it took."""
    answer = await call(client, "next_token")
    assert answer["id"].startswith("next-")
    assert (answer["object"], answer["model"]) == ("next_token", "org/toy")
    assert answer["usage"] == {
        "prompt_tokens": 2,
        "scored_tokens": 1,
        "cached_tokens": 3,
        "computed_tokens": 2,
        "reused_scores": 0,
    }
    assert set(answer["timings_ms"]) == {"queue", "tokenize", "model", "total"}


async def test_entropy_is_of_the_whole_distribution(client: httpx.AsyncClient) -> None:
    """Entropy is in nats and over every token, not only over those that are listed."""
    count, rest = OTHERS
    by_hand = -(0.5 * math.log(0.5) + 0.25 * math.log(0.25) + 0.125 * math.log(0.125))
    by_hand -= count * rest * math.log(rest)
    assert (await call(client, "next_token", top_k=1))["entropy"] == pytest.approx(
        by_hand, rel=1e-6
    )


async def test_ten_tokens_by_default(client: httpx.AsyncClient) -> None:
    """Without a wish the ten most probable tokens are listed; equal ones share a rank."""
    answer = await call(client, "next_token")
    assert [token["rank"] for token in answer["tokens"]] == [1, 2, 3, *[4] * 7]
    assert answer["tokens"] == (await call(client, "next_token", top_k=None, top_p=None))["tokens"]


async def test_no_tokens_on_demand(client: httpx.AsyncClient) -> None:
    """``top_k`` of zero lists nothing, and all the mass remains."""
    answer = await call(client, "next_token", top_k=0)
    assert (answer["tokens"], answer["remaining_probability"]) == ([], 1.0)


async def test_the_whole_vocabulary_is_the_most_there_is(client: httpx.AsyncClient) -> None:
    """Asking for more tokens than there are lists each once, and their mass is one."""
    answer = await call(client, "next_token", top_k=1000)
    assert sorted(token["id"] for token in answer["tokens"]) == list(range(VOCABULARY))
    assert answer["remaining_probability"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("top_p", "listed"), [(0.4, 1), (0.5, 2), (0.6, 2), (0.76, 3), (0.8749, 3), (0.8755, 5)]
)
async def test_top_p_is_the_smallest_set_that_reaches_the_mass(
    client: httpx.AsyncClient, top_p: float, listed: int
) -> None:
    """Tokens are listed best first until their mass reaches ``top_p``."""
    # exp(float32(log 0.5)) is a hair below one half, so one token does not reach 0.5.
    assert math.exp(log(0.5)) < 0.5
    answer = await call(client, "next_token", top_p=top_p)
    assert len(answer["tokens"]) == listed


async def test_top_k_bounds_top_p(client: httpx.AsyncClient) -> None:
    """Where the mass is not reached within ``top_k`` tokens, what is missing is reported."""
    answer = await call(client, "next_token", top_p=0.99, top_k=2)
    assert texts(answer["tokens"]) == [" yes", " no"]
    assert answer["remaining_probability"] == pytest.approx(0.25)


async def test_a_mass_that_cannot_be_listed_is_refused() -> None:
    """Fewer tokens than reach ``top_p`` are never passed off as those that do."""
    async with client_of(shell_app(FakeEngine(), max_top_logprobs=1)) as client:
        assert (await refusal(client, "next_token", top_p=0.99))["param"] == "top_p"


async def test_chosen_ids_and_labels(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """Ids, then labels, in the request's order, as often as asked, whatever their rank."""
    end = engine.tokenizer.id(END)
    answer = await call(
        client, "next_token", top_k=0, token_ids=[end, 65, end], labels=[" no", " yes"]
    )
    assert texts(answer["chosen"]) == [END, "A", END, " no", " yes"]
    assert [token["rank"] for token in answer["chosen"]] == [3, 4, 3, 2, 1]
    assert answer["chosen"][3]["probability"] == math.exp(log(0.25))


@pytest.mark.parametrize(
    ("label", "reason"), [(" yes.", "2 tokens"), ("n't", "merges"), (" is maybe", "2 tokens")]
)
async def test_a_label_must_be_one_token_after_the_context(
    client: httpx.AsyncClient, engine: FakeEngine, label: str, reason: str
) -> None:
    """A label that is not one token there is refused by index and pointed to /v1/score."""
    error = await refusal(client, "next_token", labels=[" no", label])
    assert error["param"] == "labels.1"
    assert reason in error["message"]
    assert "/v1/score" in error["message"]
    assert engine.queries == []


async def test_labels_after_ids_are_tokenized_alone(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """After token ids there is no text to merge with."""
    answer = await call(
        client, "next_token", context=engine.tokenizer.encode("it is"), labels=[" no", "'t"]
    )
    assert texts(answer["chosen"]) == [" no", "'t"]
    assert (await refusal(client, "next_token", context=[65], labels=["n't"]))[
        "param"
    ] == "labels.0"


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0, 1000.0])
async def test_temperature_changes_probabilities_only(
    client: httpx.AsyncClient, temperature: float
) -> None:
    """Probabilities are softmax(logits / T) over the whole vocabulary; the rest is the model's."""
    count, rest = OTHERS
    mass = sum(p ** (1 / temperature) for p in (0.5, 0.25, 0.125))
    mass += count * rest ** (1 / temperature)
    plain = await call(client, "next_token", top_k=4, labels=["."])
    answer = await call(client, "next_token", top_k=4, labels=["."], temperature=temperature)
    found = [token["probability"] for token in answer["tokens"] + answer["chosen"]]
    by_hand = [p ** (1 / temperature) / mass for p in (0.5, 0.25, 0.125, rest, rest)]
    assert found == pytest.approx(by_hand, rel=1e-5)
    assert answer["remaining_probability"] == pytest.approx(1 - sum(by_hand[:4]), abs=1e-6)
    for token in (*plain["tokens"], *plain["chosen"], *answer["tokens"], *answer["chosen"]):
        del token["probability"]
    assert answer["tokens"] == plain["tokens"]
    assert answer["chosen"] == plain["chosen"]
    assert answer["entropy"] == plain["entropy"]


async def test_a_temperature_asks_for_one_number_more(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """The model lists no token more than without one."""
    await call(client, "next_token", top_k=3)
    await call(client, "next_token", top_k=3, temperature=2.0)
    plain, tempered = engine.queries
    assert tempered == replace(plain, temperatures=(2.0,))


async def test_without_a_list_the_probabilities_are_the_same(client: httpx.AsyncClient) -> None:
    """The best token, which they are measured by, is not listed where none is asked for."""
    asked = {"labels": [" no", "."], "temperature": 0.5}
    some = await call(client, "next_token", top_k=5, **asked)
    none = await call(client, "next_token", top_k=0, **asked)
    assert none["chosen"] == some["chosen"]
    assert (none["tokens"], none["remaining_probability"]) == ([], 1.0)
    async with client_of(shell_app(FakeEngine(), max_top_logprobs=0)) as narrow:
        assert (await call(narrow, "next_token", **asked))["tokens"] == []


async def test_the_least_temperature_leaves_the_best(client: httpx.AsyncClient) -> None:
    """Any positive number is a temperature: of the smallest the limit is told."""
    answer = await call(client, "next_token", top_k=2, labels=["."], temperature=5e-324)
    found = [token["probability"] for token in answer["tokens"] + answer["chosen"]]
    assert (found, answer["remaining_probability"]) == ([1.0, 0.0, 0.0], 0.0)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
async def test_top_p_is_reached_at_the_temperature(
    client: httpx.AsyncClient, temperature: float
) -> None:
    """Tokens are listed until their probabilities, as they are reported, reach ``top_p``."""
    whole = await call(client, "next_token", top_k=VOCABULARY, temperature=temperature)
    falling = [token["probability"] for token in whole["tokens"]]
    answer = await call(client, "next_token", top_p=0.6, temperature=temperature)
    listed = [token["probability"] for token in answer["tokens"]]
    assert listed == falling[: len(listed)]
    assert sum(listed[:-1]) < 0.6 <= sum(listed)


async def test_the_limit_is_exact(client: httpx.AsyncClient) -> None:
    """A context as long as the model takes is answered; one token more is refused."""
    await call(client, "next_token", context="x" * 64)
    error = await refusal(client, "next_token", context="x" * 65)
    assert (error["param"], error["code"]) == ("context", "context_length_exceeded")


async def test_a_failed_row_fails_the_request() -> None:
    """There is one row, so its failure is the request's."""
    engine = FakeEngine(LAW, failures={" is": NonFiniteLogits("nan")})
    async with client_of(shell_app(engine)) as client:
        assert (await refusal(client, "next_token", 500))["code"] == "non_finite_logits"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"context": ""}, "context"),
        ({"context": [272]}, "context"),
        ({"token_ids": [1, 272]}, "token_ids.1"),
        ({"token_ids": [1, -1]}, "token_ids.1"),
        ({"token_ids": [2**31]}, "token_ids.0"),
        ({"token_ids": [True]}, "token_ids.0"),
        ({"token_ids": ["1"]}, "token_ids.0"),
        ({"token_ids": [1e308]}, "token_ids.0"),
        ({"token_ids": 1}, "token_ids"),
        ({"token_ids": [0] * 1025}, "token_ids"),
        ({"labels": [" no", ""]}, "labels.1"),
        ({"labels": [" no", 3]}, "labels.1"),
        ({"labels": " no"}, "labels"),
        ({"labels": [" no"] * 257}, "labels"),
        ({"labels": ["x" * 1025]}, "labels.0"),
        ({"top_k": -1}, "top_k"),
        ({"top_k": 1001}, "top_k"),
        ({"top_k": True}, "top_k"),
        ({"top_k": "1"}, "top_k"),
        ({"top_k": 2**31}, "top_k"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.01}, "top_p"),
        ({"top_p": True}, "top_p"),
        ({"temperature": 0}, "temperature"),
        ({"prefix_token_id": 272, "context": ""}, "prefix_token_id"),
        ({"full": True}, "full"),
        ({"candidates": ["a"]}, "candidates"),
    ],
    ids=repr,
)
async def test_bad_input_is_refused_by_name(
    client: httpx.AsyncClient, engine: FakeEngine, body: dict[str, Any], param: str
) -> None:
    """Whatever is wrong, the error object names the field and the model is not asked."""
    assert (await refusal(client, "next_token", **body))["param"] == param
    assert engine.queries == []
