"""POST /v1/decode over a law of probabilities that is written out by hand."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.app.calls import call, log, refusal
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import END, STOP, FakeEngine

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine() -> FakeEngine:
    """It is the law that answers."""
    return FakeEngine()


async def first(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    """The best sequence."""
    return dict((await call(client, "decode", **body))["sequences"][0])


async def test_greedy_ends_with_an_end_token(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """The end token counts in ids and log-probability, and is not in the text."""
    answer = await call(client, "decode")
    assert answer["sequences"] == [
        {
            "index": 0,
            "text": " yes",
            "token_ids": [260, engine.tokenizer.id(END)],
            "logprob": log(0.5) + log(0.5),
            "score": log(0.5) + log(0.5),
            "finish_reason": "stop",
        }
    ]
    assert answer["id"].startswith("decode-")
    assert (answer["object"], answer["model"]) == ("decode", "org/toy")
    assert answer["usage"]["prompt_tokens"] == 2
    assert answer["usage"]["scored_tokens"] == 2


async def test_greedy_ends_at_max_tokens(client: httpx.AsyncClient) -> None:
    """A completion that does not end by itself has ``max_tokens`` tokens."""
    sequence = await first(client, context="a", max_tokens=2)
    assert (sequence["text"], sequence["finish_reason"]) == ("bc", "length")


async def test_min_tokens_defers_the_end(client: httpx.AsyncClient) -> None:
    """No end token before ``min_tokens`` tokens; what comes instead keeps its own probability."""
    sequence = await first(client, min_tokens=2, token_logprobs=True)
    assert [token["text"] for token in sequence["tokens"]][:2] == [" yes", STOP]
    assert sequence["tokens"][1]["logprob"] == log(0.25)
    assert sequence["tokens"][1]["rank"] == 2


async def test_ignore_eos_and_stop_token_ids(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """The model's end tokens can be ignored, and other ids can end a completion."""
    ignored = await first(client, ignore_eos=True, max_tokens=2)
    assert (ignored["text"], ignored["finish_reason"]) == (f" yes{END}", "length")
    stopped = await first(client, stop_token_ids=[engine.tokenizer.id(" yes")])
    assert (stopped["text"], stopped["finish_reason"]) == ("", "stop")
    assert stopped["logprob"] == log(0.5)


@pytest.mark.parametrize(
    ("stop", "text", "tokens"),
    [("c", "b", 2), (["bc"], "", 2), (["zz", "cz"], "bc", 2), ([], "bc", 2)],
)
async def test_stop_texts_cut_the_text(
    client: httpx.AsyncClient, stop: str | list[str], text: str, tokens: int
) -> None:
    """A stop ends the completion, and the text is what comes before it."""
    sequence = await first(client, context="a", stop=stop, max_tokens=2)
    assert sequence["text"] == text
    assert len(sequence["token_ids"]) == tokens


async def test_a_stop_inside_a_token(client: httpx.AsyncClient) -> None:
    """A stop may lie inside a token; the ids keep the whole token, the text does not."""
    sequence = await first(client, stop="e", token_logprobs=True)
    assert (sequence["text"], sequence["token_ids"]) == (" y", [260])
    assert sequence["finish_reason"] == "stop"
    assert sequence["tokens"][0]["text"] == " yes"


async def test_a_stop_is_not_found_in_the_context(client: httpx.AsyncClient) -> None:
    """Only generated text is searched, also where a stop would begin in the context."""
    sequence = await first(client, stop=["is", "is yes"])
    assert sequence["text"] == " yes"


async def test_half_a_character_shows_as_a_replacement(client: httpx.AsyncClient) -> None:
    """Text that ends inside a character ends with U+FFFD; the ids hold the exact bytes."""
    law = {"a": {"b": 0.5}, "b": {"\N{SNOWMAN}": 0.5}}
    async with client_of(shell_app(FakeEngine(law))) as other:
        assert (await first(other, context="a", max_tokens=2))["text"] == "b\N{SNOWMAN}"
    sequence = await first(client, context="a", stop="\N{SNOWMAN}", max_tokens=1)
    assert sequence["text"] == "b"


async def test_token_entries(client: httpx.AsyncClient) -> None:
    """Entries stand behind the context; an end token has a place of no width."""
    sequence = await first(client, top_logprobs=2)
    assert [(t["text"], t["start"], t["end"], t["rank"]) for t in sequence["tokens"]] == [
        (" yes", 5, 9, 1),
        (END, 9, 9, 1),
    ]
    assert [top["text"] for top in sequence["tokens"][1]["top_logprobs"]] == [END, STOP]
    total = sequence["tokens"][0]["logprob"] + sequence["tokens"][1]["logprob"]
    assert sequence["logprob"] == total


@pytest.mark.parametrize("strategy", ["greedy", "beam"])
async def test_a_total_is_what_score_says_of_the_ids(
    client: httpx.AsyncClient, strategy: str
) -> None:
    """/v1/score gives every sequence's ids, under ``separate``, the same float."""
    answer = await call(client, "decode", strategy=strategy, max_tokens=5)
    ids = [sequence["token_ids"] for sequence in answer["sequences"]]
    response = await client.post("/v1/score", json={"context": "it is", "candidates": ids})
    scores = [result["logprob"] for result in response.json()["results"]]
    assert scores == [sequence["logprob"] for sequence in answer["sequences"]]


async def test_beam_returns_the_best_first(client: httpx.AsyncClient) -> None:
    """Scores are logprob / length ** length_penalty, falling, with indices in that order."""
    answer = await call(
        client,
        "decode",
        strategy="beam",
        num_beams=3,
        num_return_sequences=3,
        max_tokens=4,
        length_penalty=2.0,
    )
    sequences = answer["sequences"]
    assert [sequence["index"] for sequence in sequences] == [0, 1, 2]
    scores = [sequence["score"] for sequence in sequences]
    assert scores == sorted(scores, reverse=True)
    for sequence in sequences:
        length = len(sequence["token_ids"])
        assert sequence["score"] == sequence["logprob"] / length**2.0


async def test_length_penalty_decides_between_short_and_long(client: httpx.AsyncClient) -> None:
    """Without a penalty the short completion wins, with a large one the long."""
    short = await first(client, strategy="beam", length_penalty=0.0, max_tokens=6)
    long = await first(client, strategy="beam", length_penalty=5.0, max_tokens=6)
    assert short["text"] == " yes"
    assert len(long["token_ids"]) == 6


@pytest.mark.parametrize("early_stopping", [True, False, "never", None])
async def test_every_way_to_stop_early_is_served(
    client: httpx.AsyncClient, early_stopping: Any
) -> None:
    """``early_stopping`` takes true, false, "never", and null for false."""
    sequence = await first(client, strategy="beam", early_stopping=early_stopping, max_tokens=3)
    assert sequence["finish_reason"] == "stop"


async def test_beam_has_four_beams_by_default(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """Where ``num_beams`` is not given there are four."""
    await call(client, "decode", strategy="beam", max_tokens=2, ignore_eos=True)
    assert len(engine.queries) == 1 + 4
    answer = await call(client, "decode", strategy="beam", num_return_sequences=4, max_tokens=2)
    assert len(answer["sequences"]) == 4


async def test_neutral_beam_settings_are_fine_with_greedy(client: httpx.AsyncClient) -> None:
    """A setting at the value that changes nothing is no contradiction."""
    neutral = {
        "num_beams": 1,
        "num_return_sequences": 1,
        "length_penalty": 1.0,
        "early_stopping": False,
    }
    assert await first(client, **neutral) == await first(client)


async def test_the_limit_is_exact(client: httpx.AsyncClient) -> None:
    """Context and new tokens fit together or are refused, never cut."""
    sequence = await first(client, context="x" * 60 + "a", max_tokens=3)
    assert len(sequence["token_ids"]) == 3
    error = await refusal(client, "decode", context="x" * 60 + "a", max_tokens=4)
    assert (error["param"], error["code"]) == ("max_tokens", "context_length_exceeded")
    error = await refusal(client, "decode", context="x" * 64, max_tokens=1)
    assert (error["param"], error["code"]) == ("context", "context_length_exceeded")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"context": ""}, "context"),
        ({"strategy": "sample"}, "strategy"),
        ({"num_beams": 2}, "num_beams"),
        ({"num_return_sequences": 2}, "num_return_sequences"),
        ({"length_penalty": 0.5}, "length_penalty"),
        ({"early_stopping": True}, "early_stopping"),
        ({"strategy": "beam", "num_beams": 0}, "num_beams"),
        ({"strategy": "beam", "num_beams": 513}, "num_beams"),
        ({"strategy": "beam", "num_beams": True}, "num_beams"),
        ({"strategy": "beam", "num_beams": "2"}, "num_beams"),
        ({"strategy": "beam", "num_beams": 2**31}, "num_beams"),
        ({"strategy": "beam", "num_beams": 1e308}, "num_beams"),
        ({"strategy": "beam", "num_return_sequences": 5}, "num_return_sequences"),
        (
            {"strategy": "beam", "num_beams": 2, "num_return_sequences": 3},
            "num_return_sequences",
        ),
        ({"strategy": "beam", "length_penalty": 11}, "length_penalty"),
        ({"strategy": "beam", "length_penalty": "1"}, "length_penalty"),
        ({"strategy": "beam", "length_penalty": True}, "length_penalty"),
        ({"strategy": "beam", "early_stopping": "always"}, "early_stopping"),
        ({"strategy": "beam", "early_stopping": 1}, "early_stopping"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 63}, "max_tokens"),
        ({"max_tokens": 2**31}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", ""]}, "stop.1"),
        ({"stop": ["a", 1]}, "stop.1"),
        ({"stop": 1}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": "a" * 257}, "stop"),
        ({"stop_token_ids": [1, 272]}, "stop_token_ids.1"),
        ({"stop_token_ids": [-1]}, "stop_token_ids.0"),
        ({"stop_token_ids": 1}, "stop_token_ids"),
        ({"stop_token_ids": [1] * 65}, "stop_token_ids"),
        ({"ignore_eos": 1}, "ignore_eos"),
        ({"top_logprobs": 1001}, "top_logprobs"),
        ({"top_logprobs": -1}, "top_logprobs"),
        (
            {
                "strategy": "beam",
                "num_return_sequences": 4,
                "max_tokens": 40,
                "top_logprobs": 1000,
            },
            "top_logprobs",
        ),
    ],
    ids=repr,
)
async def test_bad_input_is_refused_by_name(
    client: httpx.AsyncClient, engine: FakeEngine, body: dict[str, Any], param: str
) -> None:
    """Whatever is wrong, the error object names the field and the model is not asked."""
    assert (await refusal(client, "decode", **body))["param"] == param
    assert engine.queries == []
