"""POST /v1/score over a law of probabilities that is written out by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx
import numpy as np
import pytest

from model_runtime import ForwardFailed, NonFiniteLogits
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import BOS, END, LAW, STOP, FakeEngine, ToyTokenizer

pytestmark = pytest.mark.anyio

YES, NO = " yes", " no"


@pytest.fixture
def engine() -> FakeEngine:
    """It is the law that answers."""
    return FakeEngine()


def log(probability: float) -> float:
    """The float32 log-probability that the engine gives."""
    return float(np.float32(math.log(probability)))


async def score(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    """The answer to a request that succeeds; by default about "it is" and two candidates."""
    request = {"context": "it is", "candidates": [YES, NO], **body}
    response = await client.post("/v1/score", json=request)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def refusal(client: httpx.AsyncClient, status: int = 422, **body: Any) -> dict[str, Any]:
    """The error object of a request that fails."""
    request = {"context": "it is", "candidates": [YES, NO], **body}
    response = await client.post(
        "/v1/score", content=json.dumps(request), headers={"Content-Type": "application/json"}
    )
    assert response.status_code == status, response.text
    return dict(response.json()["error"])


async def score_with(engine: FakeEngine, **body: Any) -> dict[str, Any]:
    """The answer of another engine."""
    async with client_of(shell_app(engine)) as client:
        return await score(client, **body)


async def refusal_of(engine: FakeEngine, status: int = 422, **body: Any) -> dict[str, Any]:
    """The refusal by another engine."""
    async with client_of(shell_app(engine)) as client:
        return await refusal(client, status, **body)


def only(answer: dict[str, Any]) -> dict[str, Any]:
    """The one result."""
    (result,) = answer["results"]
    return dict(result)


async def test_every_number_of_a_result(client: httpx.AsyncClient) -> None:
    """A one-token candidate carries its log-probability in every unit, with rank and counts."""
    answer = await score(client)
    no = answer["results"][1]
    assert no == {
        "index": 1,
        "rank": 2,
        "tie_group": None,
        "score": log(0.25),
        "logprob": log(0.25),
        "token_count": 1,
        "tail_tokens": 0,
        "mean_logprob": log(0.25),
        "logprob_per_char": log(0.25) / 3,
        "logprob_per_byte": log(0.25) / 3,
        "perplexity": pytest.approx(4.0),
        "probability": pytest.approx(1 / 3),
        "greedy": False,
        "prefix_of": [],
        "error": None,
        "tokens": None,
    }
    assert answer["results"][0]["greedy"] is True


async def test_the_answer_around_the_results(client: httpx.AsyncClient) -> None:
    """The answer says which model, where the join was, what it cost and how long it took."""
    answer = await score(client)
    assert answer["id"].startswith("score-")
    assert answer["object"] == "score"
    assert (answer["model"], answer["fingerprint"]) == ("org/toy", "f" * 24)
    assert answer["numeric_error"] is None
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
    }
    timings = answer["timings_ms"]
    assert (timings["queue"], timings["model"]) == (1.0, 2.0)
    assert 0 < timings["tokenize"] < timings["total"]


async def test_a_total_is_the_sum_of_its_tokens(client: httpx.AsyncClient) -> None:
    """Each token is conditional on all before it, and the total is their left-to-right sum."""
    result = only(await score(client, candidates=[" yes.\n"], token_logprobs=True))
    logprobs = [token["logprob"] for token in result["tokens"]]
    assert logprobs == [log(0.5), log(0.125), log(0.5)]
    assert result["logprob"] == (logprobs[0] + logprobs[1]) + logprobs[2]
    assert result["perplexity"] == pytest.approx((0.5 * 0.125 * 0.5) ** (-1 / 3))
    assert [token["rank"] for token in result["tokens"]] == [1, 3, 1]
    assert result["greedy"] is False


async def test_floats_round_trip_exactly(client: httpx.AsyncClient) -> None:
    """A float in the body reads back as the very float that was computed."""
    response = await client.post("/v1/score", json={"context": "it is", "candidates": [YES]})
    assert f'"logprob":{log(0.5)!r}' in response.text


async def test_equal_candidates_share_a_rank(client: httpx.AsyncClient) -> None:
    """Ranks are competition ranks, and a candidate may stand twice."""
    answer = await score(client, candidates=[NO, YES, YES, "."])
    assert [result["rank"] for result in answer["results"]] == [3, 1, 1, 4]
    assert answer["results"][1]["score"] == answer["results"][2]["score"]


@pytest.mark.parametrize("temperature", [0.25, 1, 3.5, 1000.0])
async def test_probabilities_are_a_softmax_of_the_scores(
    client: httpx.AsyncClient, temperature: float
) -> None:
    """Temperature changes the probabilities, which sum to one, and nothing else."""
    plain = await score(client, candidates=[YES, NO, "."])
    answer = await score(client, candidates=[YES, NO, "."], temperature=temperature)
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
    result = only(await score(client, candidates=[" no\N{SNOWMAN}"], normalization=normalization))
    assert result["score"] == result["logprob"] / divisor
    assert result["mean_logprob"] == result["logprob"] / 2
    assert result["logprob_per_char"] == result["logprob"] / 4
    assert result["logprob_per_byte"] == result["logprob"] / 6


async def test_rank_and_probability_follow_the_chosen_score(client: httpx.AsyncClient) -> None:
    """A longer candidate that loses by its sum may win by its mean."""
    candidates = [NO, " no no no"]
    by_sum = await score(client, candidates=candidates)
    by_mean = await score(client, candidates=candidates, normalization="mean")
    assert [result["rank"] for result in by_sum["results"]] == [1, 2]
    assert [result["rank"] for result in by_mean["results"]] == [2, 1]
    assert by_mean["results"][1]["probability"] > 0.5


async def test_a_merging_candidate_moves_the_start_for_all(client: httpx.AsyncClient) -> None:
    """Beside "n't", " yes" is scored from before " is", since "isn't" shares no more with it."""
    answer = await score(client, candidates=[YES, "n't"], token_logprobs=True)
    yes, not_ = answer["results"]
    assert answer["boundary"]["start_token"] == 1
    assert answer["boundary"]["shift_bytes"] == 3
    assert (yes["tail_tokens"], not_["tail_tokens"]) == (1, 0)
    assert yes["logprob"] == log(0.5) + log(0.5)
    assert not_["logprob"] == log(0.25) + log(0.75)
    assert [(t["text"], t["start"], t["end"]) for t in not_["tokens"]] == [
        (" isn", 2, 6),
        ("'t", 6, 8),
    ]
    assert yes["logprob_per_char"] == yes["logprob"] / 4


async def test_a_pinned_start_does_not_depend_on_neighbours(client: httpx.AsyncClient) -> None:
    """With the start pinned, a candidate scores the same with and without its neighbours."""
    together = await score(client, candidates=[YES, "n't"])
    alone = await score(client, candidates=[YES], start_token=1)
    assert alone["results"][0]["logprob"] == together["results"][0]["logprob"]
    assert alone["boundary"]["shift_bytes"] == 3
    error = await refusal(client, candidates=[YES, "n't"], start_token=2)
    assert error["param"] == "start_token"


async def test_separate_never_merges(client: httpx.AsyncClient) -> None:
    """Under ``separate`` the candidate is tokenized alone."""
    answer = await score(client, candidates=["n't"], boundary="separate", token_logprobs=True)
    assert answer["boundary"]["policy"] == "separate"
    assert [token["text"] for token in only(answer)["tokens"]] == ["n", "'t"]


async def test_ids_are_scored_as_they_are(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """Ids in context or candidates are concatenated; characters and bytes are those they mean."""
    tokenizer = engine.tokenizer
    ids = [tokenizer.id(" no"), tokenizer.id(" no")]
    answer = await score(
        client, context=tokenizer.encode("it is"), candidates=[ids], token_logprobs=True
    )
    result = only(answer)
    assert answer["boundary"]["policy"] == "separate"
    assert result["logprob"] == log(0.25) + log(0.5)
    assert result["logprob_per_char"] == result["logprob"] / 6
    assert [(token["start"], token["end"]) for token in result["tokens"]] == [(5, 8), (8, 11)]
    assert (
        answer["results"]
        == (await score(client, candidates=[" no no"], token_logprobs=True, boundary="separate"))[
            "results"
        ]
    )


async def test_token_entries(client: httpx.AsyncClient) -> None:
    """An entry has the token's id, text, exact bytes, place and most probable rivals."""
    result = only(await score(client, candidates=[NO], top_logprobs=2))
    assert result["tokens"] == [
        {
            "id": 261,
            "text": " no",
            "bytes": [32, 110, 111],
            "start": 5,
            "end": 8,
            "logprob": log(0.25),
            "rank": 2,
            "top_logprobs": [
                {"id": 260, "text": " yes", "logprob": log(0.5)},
                {"id": 261, "text": " no", "logprob": log(0.25)},
            ],
        }
    ]


async def test_offsets_count_bytes(client: httpx.AsyncClient) -> None:
    """Offsets are bytes of UTF-8, and a token that is half a character shows as U+FFFD."""
    result = only(
        await score(client, context="\N{SNOWMAN}", candidates=["\xe9"], token_logprobs=True)
    )
    assert [(t["start"], t["end"], t["bytes"], t["text"]) for t in result["tokens"]] == [
        (3, 4, [0xC3], "\ufffd"),
        (4, 5, [0xA9], "\ufffd"),
    ]
    assert result["logprob_per_char"] == result["logprob"]


async def test_a_text_that_was_normalized_has_no_offsets() -> None:
    """Where tokens do not spell the given text, their places are null rather than wrong."""

    class Lowering(ToyTokenizer):
        def encode(self, text: str, *, parse_special: bool = False) -> list[int]:
            return super().encode(text.replace("yesyes", "yes"), parse_special=parse_special)

    answer = await score_with(
        FakeEngine(tokenizer=Lowering()), candidates=[" yesyes", YES], token_logprobs=True
    )
    doubled, plain = answer["results"]
    assert [(t["start"], t["end"]) for t in doubled["tokens"]] == [(None, None)]
    assert [(t["start"], t["end"]) for t in plain["tokens"]] == [(5, 9)]


async def test_append_eos_scores_the_end(client: httpx.AsyncClient) -> None:
    """The end is one more token with a place of no width behind the candidate."""
    answer = await score(client, append_eos=True, token_logprobs=True, top_logprobs=1)
    yes, no = answer["results"]
    assert yes["logprob"] == log(0.5) + log(0.5)
    assert no["logprob"] == log(0.25) + log(0.25)
    assert yes["token_count"] == 2
    assert yes["greedy"] is True
    end = no["tokens"][1]
    assert (end["text"], end["start"], end["end"], end["rank"]) == (END, 8, 8, 2)
    assert end["top_logprobs"][0]["text"] == " no"
    assert answer["usage"]["scored_tokens"] == 4


async def test_append_eos_sums_over_several_ends() -> None:
    """A model with two end tokens ends with the probability of either."""
    tokenizer = ToyTokenizer()
    ends = (tokenizer.id(STOP), tokenizer.id(END))
    answer = await score_with(
        FakeEngine(end_token_ids=ends), candidates=[YES], append_eos=True, token_logprobs=True
    )
    end = only(answer)["tokens"][1]
    assert end["logprob"] == pytest.approx(math.log(0.5 + 0.25), abs=1e-7)
    assert (end["text"], end["rank"]) == (END, 1)


async def test_append_eos_needs_an_end_token() -> None:
    """A model without an end token cannot score the end."""
    error = await refusal_of(FakeEngine(end_token_ids=()), append_eos=True)
    assert error["param"] == "append_eos"


async def test_an_impossible_end_fails_its_candidate_alone() -> None:
    """A candidate whose end has no probability at all is an item error, by name."""
    law = {**LAW, " no": {END: 0.0, " no": 0.5}}
    with np.errstate(divide="ignore"):
        answer = await score_with(FakeEngine(law), append_eos=True)
    yes, no = answer["results"]
    assert yes["error"] is None
    assert no["error"]["code"] == "non_finite_logits"


async def test_prefixes_are_named(client: httpx.AsyncClient) -> None:
    """A candidate that begins others names them, unless an end makes them different events."""
    candidates = [" no no", NO, " no no no", YES]
    answer = await score(client, candidates=candidates)
    assert [result["prefix_of"] for result in answer["results"]] == [[2], [0, 2], [], []]
    ended = await score(client, candidates=candidates, append_eos=True)
    assert all(result["prefix_of"] == [] for result in ended["results"])


async def test_scores_within_numeric_error_are_tied() -> None:
    """Neighbours closer than their combined error share a tie group; the rest have none."""
    law = {" is": {" yes": 0.3, " no": 0.29, " maybe": 0.1}}
    answer = await score_with(
        FakeEngine(law, numeric_error=(0.02, 0.01)), candidates=[" maybe", NO, YES]
    )
    assert [result["tie_group"] for result in answer["results"]] == [None, 1, 1]
    assert [result["rank"] for result in answer["results"]] == [3, 2, 1]
    assert answer["numeric_error"] == 0.02


async def test_numeric_error_shrinks_with_the_normalization() -> None:
    """The same gap that ties two sums does not tie two sums per character."""
    law = {" is": {" yes": 0.3, " no": 0.29}, " yes": {"aaaa": 0.5}}
    engine = FakeEngine(law, numeric_error=(0.02, 0.01))
    answer = await score_with(engine, normalization="per_char")
    assert [result["tie_group"] for result in answer["results"]] == [None, None]


async def test_a_perplexity_beyond_floats_is_null() -> None:
    """A log-probability below -709 per token has no finite perplexity."""
    result = only(await score_with(FakeEngine({" is": {" yes": 1e-320}}), candidates=[YES]))
    assert result["logprob"] < -709
    assert result["perplexity"] is None


async def test_bad_candidates_fail_alone(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """What cannot be scored is an item error by index, and changes nothing for the others."""
    unknown = engine.info.vocab_size
    bad: list[Any] = ["", [], [unknown], [-1], [2**63], "x" * 64]
    alone = await score(client, boundary="separate")
    answer = await score(client, candidates=[*bad, YES, NO], boundary="separate")
    for index, result in enumerate(answer["results"][: len(bad)]):
        numbers = {k: v for k, v in result.items() if k not in ("index", "error", "prefix_of")}
        assert set(numbers.values()) == {None}
        assert result["index"] == index
        assert result["error"]["param"] == f"candidates.{index}"
        assert result["error"]["type"] == "invalid_request_error"
    codes = [result["error"]["code"] for result in answer["results"][: len(bad)]]
    assert codes == [
        "invalid_value",
        "invalid_value",
        "token_id_out_of_range",
        "token_id_out_of_range",
        "token_id_out_of_range",
        "context_length_exceeded",
    ]
    good = answer["results"][len(bad) :]
    assert [{**r, "index": i} for i, r in enumerate(good)] == alone["results"]


async def test_failed_candidates_do_not_move_the_start(client: httpx.AsyncClient) -> None:
    """A candidate that is too long to be scored still has a start, but one that is empty none."""
    answer = await score(client, candidates=["", YES])
    assert answer["boundary"]["start_token"] == 2
    assert answer["results"][1]["rank"] == 1


async def test_a_failed_forward_is_an_item_error() -> None:
    """A candidate that the model chokes on is an item error without internals."""
    engine = FakeEngine(failures={" no": ForwardFailed("/secret/path: bad kernel")})
    answer = await score_with(engine)
    assert answer["results"][0]["probability"] == 1.0
    error = answer["results"][1]["error"]
    assert (error["code"], error["type"], error["param"]) == (
        "forward_failed",
        "server_error",
        None,
    )
    assert "secret" not in error["message"]


async def test_all_bad_is_a_refusal(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """Where no candidate can be scored the request fails, and the model is not asked."""
    error = await refusal(client, candidates=["", []])
    assert error["param"] == "candidates.0"
    assert engine.queries == []


async def test_all_failed_forwards_are_a_failure() -> None:
    """Where the model fails at every candidate the status says whose fault it is."""
    engine = FakeEngine(failures={" no": NonFiniteLogits("nan")})
    assert (await refusal_of(engine, 500, candidates=[NO]))["code"] == "non_finite_logits"


async def test_all_or_nothing(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """On demand one bad candidate refuses the request, before the model is asked."""
    error = await refusal(client, candidates=[YES, ""], all_or_nothing=True)
    assert error["param"] == "candidates.1"
    assert engine.queries == []


async def test_all_or_nothing_covers_the_forward() -> None:
    """A failure that only the forward finds refuses an all-or-nothing request, too."""
    engine = FakeEngine(failures={" no": ForwardFailed("no")})
    assert (await refusal_of(engine, 500, all_or_nothing=True))["code"] == "forward_failed"


async def test_the_limit_is_exact(client: httpx.AsyncClient) -> None:
    """A path as long as the model fits; a token more in context or candidate is named."""
    answer = await score(client, context="x" * 63, candidates=["y", "yz"])
    assert answer["results"][0]["error"] is None
    assert answer["results"][1]["error"]["code"] == "context_length_exceeded"
    for length in (64, 65, 5000):
        error = await refusal(client, context="x" * length, candidates=["y"])
        assert (error["param"], error["code"]) == ("context", "context_length_exceeded")


async def test_top_logprobs_have_a_budget(client: httpx.AsyncClient) -> None:
    """Positions times ``top_logprobs`` is bounded, and the field is named."""
    body = {"context": "it", "candidates": ["abcde" * 2] * 7}
    assert (await refusal(client, **body, top_logprobs=1000))["param"] == "top_logprobs"
    answer = await score(client, **body, top_logprobs=900)
    assert len(answer["results"][0]["tokens"][0]["top_logprobs"]) == 272


async def test_another_model_is_not_served(client: httpx.AsyncClient) -> None:
    """The model's name is a check: the served one or none."""
    await score(client, model="org/toy")
    await score(client, model=None)
    error = await refusal(client, 404, model="gpt-5")
    assert (error["param"], error["code"]) == ("model", "model_not_found")


async def test_text_that_spells_a_control_token_stays_text(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """Neither context nor candidate can smuggle a control token in."""
    result = only(
        await score(client, context=f"a{END}", candidates=[f"{BOS}b"], token_logprobs=True)
    )
    assert [token["text"] for token in result["tokens"]] == list(f"{BOS}b")
    assert max(engine.queries[0].tokens) < engine.tokenizer.id(BOS)


async def test_an_empty_context_needs_a_first_token(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """Nothing can be conditional on nothing: BOS, or a token of the caller's choice."""
    assert (await refusal(client, context="", candidates=["it"]))["param"] == "context"
    assert (await refusal(client, context=[], candidates=["it"]))["param"] == "context"
    with_bos = await score(client, context="", candidates=["it"], add_bos=True)
    assert with_bos["boundary"]["bos_added"] is True
    assert with_bos["usage"]["prompt_tokens"] == 1
    await score(client, context="", candidates=["it"], prefix_token_id=7)
    assert [query.tokens[0] for query in engine.queries] == [engine.tokenizer.id(BOS), 7]
    beyond = engine.info.vocab_size
    error = await refusal(client, context="", candidates=["it"], prefix_token_id=beyond)
    assert error["param"] == "prefix_token_id"


async def test_the_tokenizers_own_rule_adds_bos() -> None:
    """A tokenizer that begins texts with BOS does so here, once, unless told not to."""
    engine = FakeEngine(tokenizer=ToyTokenizer(adds_bos=True))
    answer = await score_with(engine, candidates=[YES])
    assert answer["boundary"]["bos_added"] is True
    assert answer["boundary"]["start_token"] == 3
    await score_with(engine, candidates=[YES], add_bos=False)
    assert [len(query.tokens) for query in engine.queries] == [4, 3]


async def test_ids_without_text_have_no_per_character_score(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """A row of the head without a token can be scored, but not per character or byte."""
    unused = [engine.info.vocab_size - 1]
    result = (await score(client, candidates=[unused, YES]))["results"][0]
    assert result["logprob"] < 0
    assert result["logprob_per_char"] is None
    assert result["logprob_per_byte"] is None
    per_char = await score(client, candidates=[unused, YES], normalization="per_char")
    assert per_char["results"][0]["error"]["param"] == "candidates.0"
    assert per_char["results"][1]["rank"] == 1


INTEGERS = ["start_token", "top_logprobs", "prefix_token_id", "timeout_ms"]
NOT_INTEGERS = [2**31, -1, True, "1", 1e308, 1.5, [], {}]


@pytest.mark.parametrize("field", INTEGERS)
@pytest.mark.parametrize("value", NOT_INTEGERS, ids=repr)
async def test_integers_are_strict(client: httpx.AsyncClient, field: str, value: Any) -> None:
    """Out of range, or not an integer at all: refused by the field's name."""
    assert (await refusal(client, **{field: value}))["param"] == field


@pytest.mark.parametrize("field", ["start_token", "timeout_ms"])
async def test_zero_is_refused_where_it_means_nothing(
    client: httpx.AsyncClient, field: str
) -> None:
    """Nothing starts at token 0, and no request has 0 ms."""
    assert (await refusal(client, **{field: 0}))["param"] == field


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"temperature": 0}, "temperature"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": 1e308}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": 2**31}, "temperature"),
        ({"candidates": []}, "candidates"),
        ({"candidates": None}, "candidates"),
        ({"candidates": " yes"}, "candidates"),
        ({"candidates": ["a"] * 2049}, "candidates"),
        ({"candidates": ["a", 3]}, "candidates.1"),
        ({"candidates": ["a", None]}, "candidates.1"),
        ({"candidates": ["a", ["b"]]}, "candidates.1.0"),
        ({"candidates": ["a", [1, True]]}, "candidates.1.1"),
        ({"candidates": ["a", [1.0]]}, "candidates.1.0"),
        ({"candidates": ["a", [[1]]]}, "candidates.1.0"),
        ({"candidates": ["a", {"text": "b"}]}, "candidates.1"),
        ({"context": None}, "context"),
        ({"context": 3}, "context"),
        ({"context": {"text": "a"}}, "context"),
        ({"context": [1, -1]}, "context.1"),
        ({"context": [1, 2**63]}, "context.1"),
        ({"context": [272]}, "context"),
        ({"context": [1, "a"]}, "context.1"),
        ({"context": [[[[1]]]]}, "context.0"),
        ({"context": [{"role": "user"}]}, "context.0.content"),
        ({"context": [{"role": "root", "content": "a"}]}, "context.0.role"),
        ({"context": [{"role": "user", "content": "a", "name": "b"}]}, "context.0.name"),
        ({"context": [{"role": "user", "content": ["a"]}]}, "context.0.content"),
        ({"context": [{"role": "user", "content": "a"}, 1]}, "context.1"),
        ({"boundary": "marginal"}, "boundary"),
        ({"boundary": "joint", "candidates": [[1]]}, "boundary"),
        ({"boundary": "joint", "context": [1]}, "boundary"),
        ({"normalization": "gnmt"}, "normalization"),
        ({"normalization": 1}, "normalization"),
        ({"add_bos": 1}, "add_bos"),
        ({"add_bos": "true"}, "add_bos"),
        ({"append_eos": 0}, "append_eos"),
        ({"token_logprobs": "yes"}, "token_logprobs"),
        ({"all_or_nothing": 1}, "all_or_nothing"),
        ({"priority": "urgent"}, "priority"),
        ({"timeout_ms": 3_600_001}, "timeout_ms"),
        ({"top_logprobs": 1001}, "top_logprobs"),
        ({"model": 1}, "model"),
        ({"model": "m" * 513}, "model"),
        ({"top_n": 1}, "top_n"),
        ({"contexts": ["a"]}, "contexts"),
    ],
    ids=repr,
)
async def test_bad_input_is_refused_by_name(
    client: httpx.AsyncClient, body: dict[str, Any], param: str
) -> None:
    """Whatever is wrong, the error object names the field; nothing reaches the model."""
    error = await refusal(client, **body)
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e400"])
@pytest.mark.parametrize("field", ["temperature", "top_logprobs"])
async def test_numbers_that_are_none_are_refused(
    client: httpx.AsyncClient, field: str, value: str
) -> None:
    """NaN and infinity are no JSON, and no field takes them."""
    body = f'{{"context": "a", "candidates": ["b"], "{field}": {value}}}'
    response = await client.post(
        "/v1/score", content=body, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 422


@pytest.mark.parametrize("body", [{"context": "\ud800"}, {"candidates": ["a", "\udc00"]}], ids=repr)
async def test_half_a_surrogate_pair_is_refused(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    """Half a surrogate pair is no text, wherever it stands."""
    assert (await refusal(client, **body))["type"] == "invalid_request_error"


async def test_missing_fields_are_named(client: httpx.AsyncClient) -> None:
    """Context and candidates are all that a request needs, and it needs both."""
    for field in ("context", "candidates"):
        body = {"context": "a", "candidates": ["b"]}
        del body[field]
        response = await client.post("/v1/score", json=body)
        assert response.status_code == 422
        assert response.json()["error"]["param"] == field


async def test_null_means_the_default(client: httpx.AsyncClient) -> None:
    """Every optional field may be null, and then means what it means when it is absent."""
    optional = (
        *("model", "add_bos", "prefix_token_id", "priority", "timeout_ms", "boundary"),
        *("start_token", "append_eos", "normalization", "temperature", "token_logprobs"),
        *("top_logprobs", "all_or_nothing"),
    )
    answer = await score(client, **dict.fromkeys(optional))
    assert answer["results"] == (await score(client))["results"]
