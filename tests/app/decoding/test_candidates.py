"""POST /v1/decode over a closed set of candidates, over a law that is written out by hand."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.decoding import candidates as closed_choice
from tests.app.calls import call, log, refusal
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import END, STOP, FakeEngine

pytestmark = pytest.mark.anyio

STRATEGIES = ("greedy", "beam", "exact")


@pytest.fixture
def engine() -> FakeEngine:
    """It is the law that answers."""
    return FakeEngine()


async def first(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    """The best sequence."""
    return dict((await call(client, "decode", **body))["sequences"][0])


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_only_a_candidate_is_found(
    client: httpx.AsyncClient, engine: FakeEngine, strategy: str
) -> None:
    """The best of the set, with its own never renormalised log-probability and its index."""
    sequence = await first(client, strategy=strategy, candidates=[" maybe", " no"])
    assert (sequence["text"], sequence["candidate"]) == (" no", 1)
    assert sequence["token_ids"] == [261, engine.tokenizer.id(END)]
    assert sequence["logprob"] == log(0.25) + log(0.25)
    assert sequence["finish_reason"] == "stop"


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_without_an_end_a_candidate_ends_with_its_last_token(
    client: httpx.AsyncClient, strategy: str
) -> None:
    """``append_eos`` false adds no token; a candidate that begins another one wins."""
    body: dict[str, Any] = {"candidates": [" no no", " no"], "append_eos": False}
    if strategy == "beam":
        body["length_penalty"] = 0.0
    sequence = await first(client, strategy=strategy, **body)
    assert (sequence["candidate"], sequence["token_ids"]) == (1, [261])
    assert sequence["logprob"] == log(0.25)


async def test_an_end_lets_the_longer_candidate_win(client: httpx.AsyncClient) -> None:
    """With an end token the shorter of two candidates has no head start."""
    body = {"context": "a", "candidates": ["b", "bc"], "strategy": "exact"}
    assert (await first(client, **body))["text"] == "bc"
    assert (await first(client, **body, append_eos=False))["text"] == "b"


async def test_ids_are_taken_as_they_are(client: httpx.AsyncClient) -> None:
    """Candidates of ids stand behind the context, and the first of equal ones is named."""
    answer = await call(client, "decode", candidates=[[262], [260], [260]])
    assert answer["sequences"][0]["candidate"] == 1
    assert answer["sequences"][0]["text"] == " yes"
    assert answer["boundary"]["policy"] == "separate"


async def test_a_merge_moves_the_start(client: httpx.AsyncClient) -> None:
    """Where a candidate merges with the context, all are searched from before the merge, and the
    text is the candidate's own."""
    body: dict[str, Any] = {"candidates": ["n't", " yes"], "top_logprobs": 1}
    answer = await call(client, "decode", strategy="exact", num_return_sequences=2, **body)
    assert answer["boundary"] == {
        "policy": "joint",
        "start_token": 1,
        "shift_bytes": 3,
        "context_tokens": 2,
        "bos_added": False,
    }
    assert answer["usage"]["prompt_tokens"] == 2
    texts = {sequence["text"]: sequence for sequence in answer["sequences"]}
    assert [token["text"] for token in texts["n't"]["tokens"]] == [" isn", "'t", END]
    assert [token["text"] for token in texts[" yes"]["tokens"]] == [" is", " yes", END]
    assert [token["start"] for token in texts[" yes"]["tokens"]] == [2, 5, 9]


async def test_the_default_limit_is_the_longest_candidate(
    client: httpx.AsyncClient,
) -> None:
    """Whatever the candidates need is searched, more than 32 tokens too."""
    long = "ab" * 20
    sequence = await first(client, candidates=[long])
    assert sequence["text"] == long
    assert len(sequence["token_ids"]) == 41


async def test_what_does_not_fit_max_tokens_is_no_candidate(client: httpx.AsyncClient) -> None:
    """The shorter ones are searched; where none fits the setting is named."""
    body: dict[str, Any] = {"context": "a", "candidates": ["bcd", "x"]}
    assert (await first(client, **body))["text"] == "bcd"
    assert (await first(client, **body, max_tokens=3))["text"] == "x"
    assert (await refusal(client, "decode", **body, max_tokens=1))["param"] == "max_tokens"
    assert (await first(client, **body, max_tokens=1, append_eos=False))["text"] == "x"
    assert (await first(client, **body, min_tokens=2))["text"] == "bcd"
    assert (await refusal(client, "decode", **body, min_tokens=4))["param"] == "min_tokens"
    assert (await refusal(client, "decode", **body, min_tokens=2, max_tokens=3))[
        "param"
    ] == "min_tokens"


async def test_a_stop_token_may_end_a_candidate(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """Where the model's own ends are ignored the caller's can end a candidate."""
    stop = engine.tokenizer.id(STOP)
    body: dict[str, Any] = {"candidates": [" yes"], "ignore_eos": True}
    sequence = await first(client, **body, stop_token_ids=[stop])
    assert sequence["token_ids"] == [260, stop]
    assert (await refusal(client, "decode", **body, append_eos=True))["param"] == "append_eos"
    assert (await first(client, **body))["token_ids"] == [260]


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_the_total_is_the_score_of_the_candidate(
    client: httpx.AsyncClient, strategy: str
) -> None:
    """/v1/score gives the best candidate the same float under the same boundary."""
    body: dict[str, Any] = {"candidates": ["n't", " yes", " no"], "append_eos": True}
    sequence = await first(client, strategy=strategy, **body)
    response = await client.post("/v1/score", json={"context": "it is", **body})
    scores = [result["logprob"] for result in response.json()["results"]]
    assert sequence["logprob"] == scores[sequence["candidate"]]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"candidates": []}, "candidates"),
        ({"candidates": [" yes", ""]}, "candidates.1"),
        ({"candidates": [[260], []]}, "candidates.1"),
        ({"candidates": [[260], [272]]}, "candidates.1"),
        ({"candidates": [[260], [-1]]}, "candidates.1"),
        ({"candidates": [" yes", [1.5]]}, "candidates.1.0"),
        ({"candidates": [" yes", 1]}, "candidates.1"),
        ({"candidates": [" yes", "a" * 62]}, "candidates.1"),
        ({"candidates": [" yes", [260, 265]]}, "candidates.1"),
        ({"candidates": ["a"] * 2049}, "candidates"),
        ({"candidates": "a"}, "candidates"),
        ({"append_eos": True}, "append_eos"),
        ({"candidates": ["a"], "regex": "a"}, "regex"),
        ({"candidates": ["a"], "json_schema": {}}, "json_schema"),
        ({"regex": "a", "json_schema": {}}, "json_schema"),
        ({"regex": ""}, "regex"),
        ({"regex": "a" * 8193}, "regex"),
        ({"regex": 1}, "regex"),
        ({"json_schema": []}, "json_schema"),
        ({"json_schema": {"enum": ["a" * 70_000]}}, "json_schema"),
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_bad_input_is_refused_by_name(
    client: httpx.AsyncClient, engine: FakeEngine, body: dict[str, Any], param: str
) -> None:
    """A search over a set has no result for a bad item, so the whole is refused, by its name."""
    assert (await refusal(client, "decode", **body))["param"] == param
    assert engine.queries == []


async def test_the_operators_limit_holds_here_too(engine: FakeEngine) -> None:
    """``max_candidates`` bounds a closed set as it bounds /v1/score."""
    async with client_of(shell_app(engine, max_candidates=2)) as client:
        assert (await refusal(client, "decode", candidates=["a", "b", "c"]))[
            "param"
        ] == "candidates"


async def test_a_stop_is_not_found_in_the_contexts_end(client: httpx.AsyncClient) -> None:
    """What a shifted start scores again is context all the same."""
    body = {"context": "it is", "candidates": ["n't", " yes"], "stop": [" is"]}
    sequence = await first(client, **body)
    assert sequence["finish_reason"] == "stop"
    assert sequence["candidate"] is not None


async def test_all_candidates_together_are_bounded(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are held as a trie, so their tokens count, not their number."""
    monkeypatch.setattr(closed_choice, "MAX_CHOICE_IDS", 5)
    await call(client, "decode", candidates=[[1, 2], [1, 2, 3]])
    error = await refusal(client, "decode", candidates=[[1, 2, 3], [1, 2, 3]])
    assert error["param"] == "candidates"
