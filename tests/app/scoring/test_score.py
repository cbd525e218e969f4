"""POST /v1/score: the numbers, over a law of probabilities that is written out by hand."""

from __future__ import annotations

import math

import httpx
import pytest

from tests.app.calls import NO, YES, call, log, only, score_with
from tests.app.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine() -> FakeEngine:
    """It is the law that answers."""
    return FakeEngine()


async def test_every_number_of_a_result(client: httpx.AsyncClient) -> None:
    """A plain candidate has its numbers, and nothing that was not asked for."""
    answer = await call(client, "score")
    no = answer["results"][1]
    assert no == {
        "index": 1,
        "rank": 2,
        "score": log(0.25),
        "logprob": log(0.25),
        "token_count": 1,
        "mean_logprob": log(0.25),
        "logprob_per_byte": log(0.25) / 3,
        "probability": pytest.approx(1 / 3),
        "greedy": False,
    }
    assert answer["results"][0]["greedy"] is True


async def test_the_answer_around_the_results(client: httpx.AsyncClient) -> None:
    """The answer says which model, where the join was, what it cost and how long it took."""
    answer = await call(client, "score")
    assert answer["id"].startswith("score-")
    assert answer["object"] == "score"
    assert (answer["model"], answer["fingerprint"]) == ("org/toy", "f" * 24)
    assert "numeric_error" not in answer
    assert answer["boundary"] == {
        "policy": "joint",
        "start_token": 2,
        "shift_bytes": 0,
        "context_tokens": 2,
        "bos_added": False,
    }
    assert answer["usage"] == {
        "prompt_tokens": 2,
        "scored_tokens": 2,
        "cached_tokens": 3,
        "computed_tokens": 4,
        "reused_scores": 0,
    }
    timings = answer["timings_ms"]
    assert (timings["queue"], timings["model"]) == (1.0, 2.0)
    assert 0 < timings["tokenize"] < timings["total"]


async def test_a_total_is_the_sum_of_its_tokens(client: httpx.AsyncClient) -> None:
    """Each token is conditional on all before it, and the total is their left-to-right sum."""
    result = only(await call(client, "score", candidates=[" yes.\n"], token_logprobs=True))
    logprobs = [token["logprob"] for token in result["tokens"]]
    assert logprobs == [log(0.5), log(0.125), log(0.5)]
    assert result["logprob"] == (logprobs[0] + logprobs[1]) + logprobs[2]
    assert [token["rank"] for token in result["tokens"]] == [1, 3, 1]
    assert result["greedy"] is False


async def test_floats_round_trip_exactly(client: httpx.AsyncClient) -> None:
    """A float in the body reads back as the very float that was computed."""
    response = await client.post("/v1/score", json={"context": "it is", "candidates": [YES]})
    assert f'"logprob":{log(0.5)!r}' in response.text


async def test_equal_candidates_share_a_rank(client: httpx.AsyncClient) -> None:
    """Ranks are competition ranks, and a candidate may stand twice."""
    answer = await call(client, "score", candidates=[NO, YES, YES, "."])
    assert [result["rank"] for result in answer["results"]] == [3, 1, 1, 4]
    assert answer["results"][1]["score"] == answer["results"][2]["score"]


@pytest.mark.parametrize("temperature", [0.25, 1, 3.5, 1000.0])
async def test_probabilities_are_a_softmax_of_the_scores(
    client: httpx.AsyncClient, temperature: float
) -> None:
    """Temperature changes the probabilities, which sum to one, and nothing else."""
    plain = await call(client, "score", candidates=[YES, NO, "."])
    answer = await call(client, "score", candidates=[YES, NO, "."], temperature=temperature)
    weights = [math.exp(r["score"] / temperature) for r in plain["results"]]
    found = [result["probability"] for result in answer["results"]]
    assert found == pytest.approx([weight / sum(weights) for weight in weights])
    assert math.fsum(found) == pytest.approx(1.0, abs=1e-15)
    for result in plain["results"] + answer["results"]:
        del result["probability"]
    assert plain["results"] == answer["results"]


@pytest.mark.parametrize(
    ("normalization", "divisor"), [("sum", 1), ("mean", 2), ("per_char", 4), ("per_byte", 6)]
)
async def test_normalizations(client: httpx.AsyncClient, normalization: str, divisor: int) -> None:
    """The score is the sum, or the sum per token, code point or UTF-8 byte of the candidate."""
    result = only(
        await call(client, "score", candidates=[" no\N{SNOWMAN}"], normalization=normalization)
    )
    assert result["score"] == result["logprob"] / divisor
    assert result["mean_logprob"] == result["logprob"] / 2
    assert result.get("logprob_per_char", result["logprob"] / 4) == result["logprob"] / 4
    assert ("logprob_per_char" in result) is (normalization == "per_char")
    assert result["logprob_per_byte"] == result["logprob"] / 6


async def test_rank_and_probability_follow_the_chosen_score(client: httpx.AsyncClient) -> None:
    """A longer candidate that loses by its sum may win by its mean."""
    candidates = [NO, " no no no"]
    by_sum = await call(client, "score", candidates=candidates)
    by_mean = await call(client, "score", candidates=candidates, normalization="mean")
    assert [result["rank"] for result in by_sum["results"]] == [1, 2]
    assert [result["rank"] for result in by_mean["results"]] == [2, 1]
    assert by_mean["results"][1]["probability"] > 0.5


async def test_prefixes_are_named(client: httpx.AsyncClient) -> None:
    """A candidate that begins others names them, unless an end makes them different events."""
    candidates = [" no no", NO, " no no no", YES]
    answer = await call(client, "score", candidates=candidates)
    assert [result.get("prefix_of") for result in answer["results"]] == [[2], [0, 2], None, None]
    ended = await call(client, "score", candidates=candidates, append_eos=True)
    assert not any("prefix_of" in result for result in ended["results"])


async def test_scores_within_numeric_error_are_tied() -> None:
    """Neighbours closer than their combined error share a tie group; the rest have none."""
    law = {" is": {" yes": 0.3, " no": 0.29, " maybe": 0.1}}
    answer = await score_with(
        FakeEngine(law, numeric_error=(0.02, 0.01)), candidates=[" maybe", NO, YES]
    )
    assert [result.get("tie_group") for result in answer["results"]] == [None, 1, 1]
    assert [result["rank"] for result in answer["results"]] == [3, 2, 1]
    assert answer["numeric_error"] == 0.02
    assert [result["numeric_error"] for result in answer["results"]] == [0.02] * 3


async def test_numeric_error_shrinks_with_the_normalization() -> None:
    """The same gap that ties two sums does not tie two sums per character."""
    law = {" is": {" yes": 0.3, " no": 0.29}, " yes": {"aaaa": 0.5}}
    engine = FakeEngine(law, numeric_error=(0.02, 0.01))
    answer = await score_with(engine, normalization="per_char")
    assert not any("tie_group" in result for result in answer["results"])
