"""POST /v1/decode by exact search, and strategies compared, over a law written out by hand."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import httpx
import pytest

from model_runtime import DeadlineExceeded, EngineOverloaded, ExactSearch, GreedySearch
from tests.app.calls import call, log, refusal
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import END, FakeEngine

pytestmark = pytest.mark.anyio

GARDEN_PATH = {
    "x": {"a": 0.5, "b": 0.4},
    "a": {"a": 0.3, "b": 0.3, "c": 0.3},
    "b": {END: 0.9},
    "c": {END: 0.9},
}
"""Greedy goes for ``a``, after which nothing is probable; ``b`` and the end is the optimum."""


@pytest.fixture
def engine() -> FakeEngine:
    """It is the law that answers."""
    return FakeEngine(GARDEN_PATH)


async def test_exact_finds_what_greedy_misses(client: httpx.AsyncClient) -> None:
    """The optimum comes with a certificate."""
    answer = await call(client, "decode", context="x", strategy="exact", max_tokens=3)
    (sequence,) = answer["sequences"]
    assert sequence["text"] == "b"
    assert sequence["logprob"] == sequence["score"] == log(0.4) + log(0.9)
    certificate = answer["certificate"]
    assert (certificate["optimal"], certificate["gap"]) == (True, 0.0)
    assert certificate["upper_bound"] == sequence["logprob"]
    assert certificate["expanded"] >= 1


async def test_the_k_best_come_in_order(client: httpx.AsyncClient) -> None:
    """``num_return_sequences`` asks for more of the best than one."""
    answer = await call(
        client, "decode", context="x", strategy="exact", max_tokens=3, num_return_sequences=3
    )
    scores = [sequence["score"] for sequence in answer["sequences"]]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)


async def test_a_spent_budget_answers_with_what_there_is(client: httpx.AsyncClient) -> None:
    """The certificate says that nothing is proven, and how far it may be off."""
    body = {"context": "x", "strategy": "exact", "max_tokens": 6, "max_expansions": 1}
    answer = await call(client, "decode", **body, num_beams=1)
    assert answer["certificate"]["optimal"] is False


async def test_a_length_penalty_is_searched_exactly(client: httpx.AsyncClient) -> None:
    """Score is logprob / length ** length_penalty for exact search as well."""
    body = {"context": "x", "strategy": "exact", "max_tokens": 4, "length_penalty": 1.0}
    answer = await call(client, "decode", **body)
    (sequence,) = answer["sequences"]
    assert sequence["score"] == sequence["logprob"] / len(sequence["token_ids"])
    assert answer["certificate"]["optimal"]


async def test_a_threshold_finds_all_that_are_probable_enough(client: httpx.AsyncClient) -> None:
    """Every completion of at least this probability, most probable first, and no other."""
    body = {"context": "x", "strategy": "exact", "max_tokens": 3}
    answer = await call(client, "decode", **body, threshold=0.1)
    found = [sequence["logprob"] for sequence in answer["sequences"]]
    assert [sequence["text"] for sequence in answer["sequences"]] == ["b", "ab", "ac"]
    assert found == sorted(found, reverse=True)
    assert min(found) >= math.log(0.1)
    assert answer["certificate"]["optimal"]
    none = await call(client, "decode", **body, threshold=1)
    assert (none["sequences"], none["certificate"]["optimal"]) == ([], True)
    one = await call(client, "decode", **body, threshold=0.1, num_return_sequences=1)
    assert len(one["sequences"]) == 1


async def test_only_what_ended_is_feasible_on_request(client: httpx.AsyncClient) -> None:
    """``ended`` leaves out what ``max_tokens`` cuts."""
    body = {"context": "a", "strategy": "exact", "max_tokens": 1}
    assert (await call(client, "decode", **body))["sequences"][0]["finish_reason"] == "length"
    ended = await call(client, "decode", **body, feasible="ended")
    assert [sequence["finish_reason"] for sequence in ended["sequences"]] == ["stop"]


async def test_greedy_and_beam_prove_nothing(client: httpx.AsyncClient) -> None:
    """There is no certificate where nothing was proven."""
    for strategy in ("greedy", "beam"):
        answer = await call(client, "decode", strategy=strategy)
        assert not answer.keys() & {"certificate", "compared", "boundary"}


async def test_strategies_are_compared_by_their_search_error(client: httpx.AsyncClient) -> None:
    """In nats below the proven optimum, 0 for whoever found it."""
    body = {"context": "x", "max_tokens": 3, "compare": ["greedy", "beam", "exact"]}
    answer = await call(client, "decode", **body)
    entries = {entry["strategy"]: entry for entry in answer["compared"]}
    assert list(entries) == body["compare"]
    best = log(0.4) + log(0.9)
    for entry in entries.values():
        assert entry["total"] == entry["sequence"]["logprob"]
        assert entry["search_error"] == best - entry["total"]
        assert "reason" not in entry
    assert entries["greedy"]["search_error"] > 0
    assert entries["exact"]["search_error"] == 0
    assert answer["sequences"] == []
    assert answer["certificate"]["optimal"]
    shown = sum(len(entry["sequence"]["token_ids"]) for entry in entries.values())
    assert answer["usage"]["scored_tokens"] == shown


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"compare": ["beam", "greedy"]}, "compare"),
        ({"compare": ["greedy", "exact"], "max_expansions": 1}, "max_expansions"),
        ({"compare": ["greedy", "exact"], "length_penalty": 0.5}, "length_penalty"),
        ({"compare": ["greedy", "exact"], "feasible": "ended"}, "feasible"),
    ],
    ids=repr,
)
async def test_no_search_error_without_a_proof_that_holds(
    client: httpx.AsyncClient, body: dict[str, Any], words: str
) -> None:
    """Where nothing is proven of the same set and the sum, none, and the setting that is why."""
    answer = await call(client, "decode", **{"context": "x", "max_tokens": 5, **body})
    for entry in answer["compared"]:
        if entry["strategy"] != "exact":
            assert "search_error" not in entry
            assert words in entry["reason"]
            assert entry["total"] == entry["sequence"]["logprob"]


async def test_candidates_are_compared_too(client: httpx.AsyncClient) -> None:
    """All strategies search the same closed set."""
    body = {"context": "x", "candidates": ["ab", "b"], "compare": ["greedy", "exact"]}
    greedy, exact = (await call(client, "decode", **body))["compared"]
    assert (greedy["sequence"]["candidate"], exact["sequence"]["candidate"]) == (0, 1)
    assert greedy["search_error"] == exact["total"] - greedy["total"] > 0


class HalfFailing(FakeEngine):
    """Fails at greedy search while the others wait."""

    ended = 0

    async def decode(self, search: Any, options: Any) -> Any:
        if isinstance(search, GreedySearch):
            await asyncio.sleep(0)
            raise EngineOverloaded("full", 2.0)
        try:
            await asyncio.sleep(60)
        finally:
            self.ended += 1


async def test_a_comparison_fails_as_a_whole() -> None:
    """What one strategy fails with is the answer, and the others are ended."""
    failing = HalfFailing(GARDEN_PATH)
    async with client_of(shell_app(failing)) as client:
        body = {"context": "x", "compare": ["beam", "greedy", "exact"]}
        assert (await refusal(client, "decode", 429, **body))["code"] == "queue_full"
        await asyncio.sleep(0)
        assert failing.ended == 2


class Late(FakeEngine):
    """Some kinds of search run out of time."""

    late: tuple[type, ...] = (GreedySearch,)

    async def decode(self, search: Any, options: Any) -> Any:
        if isinstance(search, self.late):
            raise DeadlineExceeded("the time ran out")
        return await super().decode(search, options)


async def test_a_strategy_that_is_late_says_so_and_spoils_nothing() -> None:
    """The others are answered; only when all are late is the request."""
    engine = Late(GARDEN_PATH)
    body = {"context": "x", "compare": ["greedy", "exact"], "max_tokens": 3}
    async with client_of(shell_app(engine)) as client:
        greedy, exact = (await call(client, "decode", **body))["compared"]
        assert greedy.keys() == {"strategy", "reason"}
        assert "timeout_ms" in greedy["reason"]
        assert exact["search_error"] == 0
        engine.late = (ExactSearch,)
        greedy, exact = (await call(client, "decode", **body))["compared"]
        assert "total" in greedy
        assert "timeout_ms" in greedy["reason"]
        assert "timeout_ms" in exact["reason"]
        engine.late = (GreedySearch, ExactSearch)
        assert (await refusal(client, "decode", 504, **body))["code"] == "deadline_exceeded"


async def test_compared_strategies_share_one_deadline(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """Each is told the same time that is left, and the same priority."""
    body = {"context": "x", "compare": ["greedy", "beam", "exact"], "max_tokens": 2}
    await call(client, "decode", **body, timeout_ms=5000, priority="bulk")
    assert len(engine.options) == 3
    assert len(set(engine.options)) == 1


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"strategy": "exact", "num_return_sequences": 65}, "num_return_sequences"),
        ({"strategy": "exact", "max_expansions": 0}, "max_expansions"),
        ({"strategy": "exact", "max_expansions": 100_001}, "max_expansions"),
        ({"strategy": "exact", "max_expansions": True}, "max_expansions"),
        ({"strategy": "exact", "feasible": "all"}, "feasible"),
        ({"strategy": "exact", "early_stopping": True}, "early_stopping"),
        ({"strategy": "exact", "num_beams": 0}, "num_beams"),
        ({"strategy": "exact", "threshold": 0}, "threshold"),
        ({"strategy": "exact", "threshold": 1.5}, "threshold"),
        ({"strategy": "exact", "threshold": -0.5}, "threshold"),
        ({"strategy": "exact", "threshold": "0.5"}, "threshold"),
        ({"strategy": "exact", "threshold": 0.5, "length_penalty": 1.0}, "threshold"),
        (
            {"strategy": "exact", "threshold": 0.5, "num_return_sequences": 513},
            "num_return_sequences",
        ),
        ({"strategy": "exact", "min_tokens": 9, "max_tokens": 8}, "min_tokens"),
        ({"strategy": "exact", "stream": True}, "stream"),
        ({"strategy": "beam", "threshold": 0.5}, "threshold"),
        ({"strategy": "beam", "feasible": "ended"}, "feasible"),
        ({"strategy": "beam", "max_expansions": 5}, "max_expansions"),
        ({"threshold": 0.5}, "threshold"),
        ({"feasible": "ended"}, "feasible"),
        ({"max_expansions": 5}, "max_expansions"),
        ({"compare": ["exact"]}, "compare"),
        ({"compare": []}, "compare"),
        ({"compare": ["exact", "exact"]}, "compare"),
        ({"compare": ["exact", "sample"]}, "compare.1"),
        ({"compare": "exact"}, "compare"),
        ({"compare": ["exact", "beam"], "strategy": "exact"}, "compare"),
        ({"compare": ["exact", "beam"], "stream": True}, "stream"),
        ({"compare": ["exact", "beam"], "threshold": 0.5}, "threshold"),
        ({"compare": ["exact", "beam"], "num_return_sequences": 2}, "num_return_sequences"),
        ({"compare": ["greedy", "beam"], "feasible": "ended"}, "feasible"),
        ({"compare": ["greedy", "exact"], "early_stopping": True}, "early_stopping"),
    ],
    ids=repr,
)
async def test_impossible_settings_are_refused_by_name(
    client: httpx.AsyncClient, engine: FakeEngine, body: dict[str, Any], param: str
) -> None:
    """Whatever contradicts the strategy or another setting is 422 and names the field."""
    assert (await refusal(client, "decode", **body))["param"] == param
    assert engine.queries == []
