"""POST /v1/score: bad candidates fail alone, bad requests by the name of the field."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.http.strict_json import MAX_KEYS
from model_runtime import ForwardFailed, NonFiniteLogits
from tests.app.calls import NO, YES, call, refusal, refusal_of, score_with
from tests.app.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine() -> FakeEngine:
    """It is the law that answers."""
    return FakeEngine()


async def test_bad_candidates_fail_alone(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """What cannot be scored is an item error by index, and changes nothing for the others."""
    unknown = engine.info.vocab_size
    bad: list[Any] = ["", [], [unknown], [-1], [2**63], "x" * 64]
    alone = await call(client, "score", boundary="separate")
    answer = await call(client, "score", candidates=[*bad, YES, NO], boundary="separate")
    for index, result in enumerate(answer["results"][: len(bad)]):
        assert result.keys() == {"index", "error"}
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
    error = await refusal(client, "score", candidates=["", []])
    assert error["param"] == "candidates.0"
    assert engine.queries == []


async def test_all_failed_forwards_are_a_failure() -> None:
    """Where the model fails at every candidate the status says whose fault it is."""
    engine = FakeEngine(failures={" no": NonFiniteLogits("nan")})
    assert (await refusal_of(engine, 500, candidates=[NO]))["code"] == "non_finite_logits"


async def test_all_or_nothing(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """On demand one bad candidate refuses the request, before the model is asked."""
    error = await refusal(client, "score", candidates=[YES, ""], all_or_nothing=True)
    assert error["param"] == "candidates.1"
    assert engine.queries == []


async def test_all_or_nothing_covers_the_forward() -> None:
    """A failure that only the forward finds refuses an all-or-nothing request, too."""
    engine = FakeEngine(failures={" no": ForwardFailed("no")})
    assert (await refusal_of(engine, 500, all_or_nothing=True))["code"] == "forward_failed"


async def test_the_limit_is_exact(client: httpx.AsyncClient) -> None:
    """A path as long as the model fits; a token more in context or candidate is named."""
    answer = await call(client, "score", context="x" * 63, candidates=["y", "yz"])
    assert answer["results"][0]["rank"] == 1
    assert answer["results"][1]["error"]["code"] == "context_length_exceeded"
    for length in (64, 65, 5000):
        error = await refusal(client, "score", context="x" * length, candidates=["y"])
        assert (error["param"], error["code"]) == ("context", "context_length_exceeded")


async def test_top_logprobs_have_a_budget(client: httpx.AsyncClient) -> None:
    """Positions times ``top_logprobs`` is bounded, and the field is named."""
    body = {"context": "it", "candidates": ["abcde" * 2] * 7}
    assert (await refusal(client, "score", **body, top_logprobs=235))["param"] == "top_logprobs"
    answer = await call(client, "score", **body, top_logprobs=234)
    assert len(answer["results"][0]["tokens"][0]["top_logprobs"]) == 234


async def test_listed_tokens_have_a_budget(client: httpx.AsyncClient) -> None:
    """Candidates that are cheap, being equal, cannot make an answer without bounds."""
    body = {"context": "it", "candidates": ["x" * 62] * 1058}
    assert (await refusal(client, "score", **body, token_logprobs=True))[
        "param"
    ] == "token_logprobs"


async def test_another_model_is_not_served(client: httpx.AsyncClient) -> None:
    """The model's name is a check: the served one or none."""
    await call(client, "score", model="org/toy")
    await call(client, "score", model=None)
    error = await refusal(client, "score", 404, model="gpt-5")
    assert (error["param"], error["code"]) == ("model", "model_not_found")


@pytest.mark.parametrize("field", ["start_token", "top_logprobs", "prefix_token_id", "timeout_ms"])
@pytest.mark.parametrize("value", [2**31, -1, True, "1", 1e308, 1.5, [], {}], ids=repr)
async def test_integers_are_strict(client: httpx.AsyncClient, field: str, value: Any) -> None:
    """Out of range, or not an integer at all: refused by the field's name."""
    assert (await refusal(client, "score", **{field: value}))["param"] == field


@pytest.mark.parametrize("field", ["start_token", "timeout_ms"])
async def test_zero_is_refused_where_it_means_nothing(
    client: httpx.AsyncClient, field: str
) -> None:
    """Nothing starts at token 0, and no request has 0 ms."""
    assert (await refusal(client, "score", **{field: 0}))["param"] == field


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
        ({"candidates": ["a"] * 4097}, "candidates"),
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
        ({"boundary": "sideways"}, "boundary"),
        ({"boundary": "joint", "candidates": [[1]]}, "boundary"),
        ({"boundary": "joint", "context": [1]}, "boundary"),
        ({"normalization": "median"}, "normalization"),
        ({"normalization": 1}, "normalization"),
        ({"add_bos": 1}, "add_bos"),
        ({"add_bos": "true"}, "add_bos"),
        ({"append_eos": 0}, "append_eos"),
        ({"token_logprobs": "yes"}, "token_logprobs"),
        ({"all_or_nothing": 1}, "all_or_nothing"),
        ({"priority": "urgent"}, "priority"),
        ({"cache_salt": "x" * 129}, "cache_salt"),
        ({"cache_salt": 7}, "cache_salt"),
        ({"timeout_ms": 3_600_001}, "timeout_ms"),
        ({"top_logprobs": 1001}, "top_logprobs"),
        ({"model": 1}, "model"),
        ({"model": "m" * 513}, "model"),
        ({"max_expansions": 5}, "max_expansions"),
        ({"top_n": 0}, "top_n"),
        ({"compact": True, "token_logprobs": True}, "compact"),
        ({"contexts": ["a"]}, "contexts"),
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_bad_input_is_refused_by_name(
    client: httpx.AsyncClient, body: dict[str, Any], param: str
) -> None:
    """Whatever is wrong, the error object names the field; nothing reaches the model."""
    error = await refusal(client, "score", **body)
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
    assert (await refusal(client, "score", **body))["type"] == "invalid_request_error"


async def test_an_object_of_too_many_keys_is_refused(client: httpx.AsyncClient) -> None:
    """It is told how many it has, and no key of it is complained of one by one."""
    extra = {f"key {number}": 1 for number in range(MAX_KEYS)}
    error = await refusal(client, "score", **extra)
    assert error["message"] == f"An object has {MAX_KEYS + 2} keys; no request has that many."
    fewer = dict(list(extra.items())[:-2])
    assert (await refusal(client, "score", **fewer))["param"] == "key 0"


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
        *("top_logprobs", "all_or_nothing", "cache_salt", "receipt"),
    )
    answer = await call(client, "score", **dict.fromkeys(optional))
    assert answer["results"] == (await call(client, "score"))["results"]


async def test_joined_tokenizing_is_bounded(client: httpx.AsyncClient) -> None:
    """A long context times many candidates is refused before it is tokenized that often."""
    error = await refusal(client, "score", context="x" * 100_000, candidates=[YES] * 200)
    assert error["param"] == "candidates"
    assert "start_token" in error["message"]


async def test_endless_keys_are_refused_at_once(client: httpx.AsyncClient) -> None:
    """An object of more keys than any request has is not complained about key by key."""
    error = await refusal(client, "score", **{f"key{index}": 0 for index in range(2000)})
    assert "keys" in error["message"]


async def test_the_first_wrong_entry_is_enough(client: httpx.AsyncClient) -> None:
    """Reading a list stops at its first bad entry, and names it."""
    error = await refusal(client, "score", context=[1, 2, *[None] * 1000])
    assert error["param"] == "context.2"


async def test_a_large_body_is_judged_as_a_small_one_is(client: httpx.AsyncClient) -> None:
    """Read beside the event loop, a field is still checked, and refused by its name."""
    many: list[Any] = ["y" * 20] * 5000
    answer = await call(client, "score", candidates=many, compact=True)
    assert len(answer["compact"]["ranked"]["index"]) == 5000
    error = await refusal(client, "score", candidates=[*many, 7], compact=True)
    assert error["param"] == "candidates.5000"
    error = await refusal(client, "score", candidates=many, compact=True, tempereture=1)
    assert (error["param"], error["code"]) == ("tempereture", "unknown_field")


async def test_more_tokens_than_can_be_held_are_refused_before_they_are_made(
    client: httpx.AsyncClient,
) -> None:
    """A pinned start gives every candidate the context's end; so long a list of it is no list."""
    body: dict[str, Any] = {"context": "it" * 60, "candidates": ["y"] * 100_000, "compact": True}
    error = await refusal(client, "score", **body, start_token=1)
    assert error["param"] == "start_token" and "4194304" in error["message"]


async def test_too_many_candidates_that_begin_one_another_are_refused(
    client: httpx.AsyncClient,
) -> None:
    """Their pairs grow with the square of the list; columns do without them."""
    many = ["y"] * 300 + ["ya"] * 300
    error = await refusal(client, "score", candidates=many)
    assert error["param"] == "candidates" and "compact" in error["message"]
    answer = await call(client, "score", candidates=many, compact=True)
    assert len(answer["compact"]["ranked"]["index"]) == 600


@pytest.mark.parametrize("policy", [{}, {"boundary": "marginal", "max_expansions": 2}])
async def test_too_many_pairs_are_refused_before_the_model_is_asked(policy: dict[str, Any]) -> None:
    """4,096 candidates can begin one another four million times; those are counted, not listed."""
    engine = FakeEngine()
    candidates = [" yes"] * 2_048 + [" yes no"] * 2_048
    error = await refusal_of(engine, context="it is", candidates=candidates, **policy)
    assert error["param"] == "candidates"
    assert "4194304 pairs" in error["message"]
    assert engine.queries == []
