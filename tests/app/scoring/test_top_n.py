"""top_n and compact answers of POST /v1/score, over the toy law and the real runtime."""

from __future__ import annotations

import math
import random
from typing import Any

import httpx
import pytest

from model_runtime import RequestOptions, RequestOutput
from model_runtime.decoding.top_n import top_candidates
from tests.app.calls import call, refusal, score_with
from tests.app.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine() -> FakeEngine:
    """The law."""
    return FakeEngine()


@pytest.fixture(autouse=True)
def _rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few candidates are enough for a search in rounds."""
    monkeypatch.setattr(top_candidates, "WHOLE", 64)
    monkeypatch.setattr(top_candidates, "WHOLE_DIVIDED", 64)


def many(count: int = 600, seed: int = 1) -> list[str]:
    """Different texts of one to six letters, many of which begin alike."""
    source = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(source.choice("abcxyz") for _ in range(source.randint(1, 6)))] = None
    return list(found)


async def scored(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    return await call(client, "score", context="it", **body)


@pytest.mark.parametrize("normalization", ["sum", "mean", "per_char", "per_byte", "gnmt"])
@pytest.mark.parametrize("append_eos", [False, True])
async def test_the_best_are_those_of_scoring_everything(
    client: httpx.AsyncClient, normalization: str, append_eos: bool
) -> None:
    """The ranked candidates have the ranks and numbers that they have when all are scored."""
    body = {"candidates": many(), "normalization": normalization, "append_eos": append_eos}
    everything = (await scored(client, **body))["results"]
    top = await scored(client, **body, top_n=7)
    ranked = [result for result in top["results"] if "rank" in result]
    assert len(ranked) == top["top"]["ranked"] >= 7
    for result in ranked:
        whole = everything[result["index"]]
        for field in ("rank", "score", "logprob", "token_count", "greedy"):
            assert result[field] == whole[field]
    worst = min(result["score"] for result in ranked)
    assert {r["index"] for r in everything if r["score"] > worst} <= {r["index"] for r in ranked}


async def test_a_pruned_candidate_has_a_bound_and_no_score(client: httpx.AsyncClient) -> None:
    """What is left unfinished says how high it could be at most; it has no rank, no probability."""
    body = {"candidates": many()}
    everything = (await scored(client, **body))["results"]
    top = await scored(client, **body, top_n=3)
    pruned = [result for result in top["results"] if "bound" in result]
    assert len(pruned) == top["top"]["pruned"] > 0
    for result in pruned:
        assert result.keys() <= {"index", "prefix_of", "bound"}
        assert everything[result["index"]]["score"] <= result["bound"] + 1e-12


async def test_probabilities_beside_pruned_candidates_are_bounds(client: httpx.AsyncClient) -> None:
    """The softmax over all candidates lies within the bounds that are given instead of it."""
    for extra in ({}, {"normalization": "mean"}, {"temperature": 3.0}, {"append_eos": True}):
        body = {"candidates": many(), **extra}
        everything = (await scored(client, **body))["results"]
        top = await scored(client, **body, top_n=3)
        assert top["top"]["pruned"] > 0
        for result in top["results"]:
            if "score" in result:
                low, high = result["probability_bounds"]
                assert low <= everything[result["index"]]["probability"] * (1 + 1e-12)
                assert everything[result["index"]]["probability"] <= high * (1 + 1e-12)


async def test_off_candidate_mass_beside_pruned_candidates_is_bounded(
    client: httpx.AsyncClient,
) -> None:
    """What the model gives to all else lies within bounds, where it is defined at all."""
    body = {"candidates": many(), "append_eos": True}
    whole = (await scored(client, **body))["off_candidate_mass"]
    top = await scored(client, **body, top_n=3)
    low, high = top["off_candidate_mass_bounds"]
    assert "off_candidate_mass" not in top
    assert low - 1e-12 <= whole <= high + 1e-12
    nested = await scored(client, candidates=many(), top_n=3)
    assert not any(field.startswith("off_candidate_mass") for field in nested)


async def test_differences_are_ranked_by_scoring_everything(client: httpx.AsyncClient) -> None:
    """pmi has no bound; the answer says that nothing was left out, and cuts all the same."""
    body = {"candidates": many(40), "normalization": "pmi", "pmi_context": "x"}
    everything = (await scored(client, **body))["results"]
    top = await scored(client, **body, top_n=2)
    assert (top["top"]["search"], top["top"]["pruned"]) == ("all", 0)
    assert "expanded" not in top["top"]
    best = sorted(everything, key=lambda result: -result["score"])[: top["top"]["ranked"]]
    ranked = {r["index"]: r["rank"] for r in top["results"] if "rank" in r}
    assert ranked == {result["index"]: result["rank"] for result in best}
    assert all("probability" in result for result in top["results"])


async def test_ties_at_the_cut_are_all_ranked(client: httpx.AsyncClient) -> None:
    """A candidate that cannot be told from the last one is not cut off beside it."""
    answer = await scored(client, candidates=["q", " is", " is", " is"], top_n=1)
    assert [result.get("rank") for result in answer["results"]] == [None, 1, 1, 1]
    assert answer["top"]["ranked"] == 3


async def test_a_bad_candidate_fails_alone_beside_a_search(client: httpx.AsyncClient) -> None:
    """An empty candidate has its error, by its index; the others are ranked."""
    answer = await scored(client, candidates=["", " is", "q"], top_n=1)
    assert answer["results"][0]["error"]["param"] == "candidates.0"
    assert [result.get("rank") for result in answer["results"]] == [None, 1, None]


async def test_a_compact_answer_has_the_same_numbers_in_columns(client: httpx.AsyncClient) -> None:
    """Ranked, unranked, pruned and failed candidates are each listed once, in few bytes."""
    candidates = [*many(), ""]
    full = await scored(client, candidates=candidates, top_n=5)
    answer = await scored(client, candidates=candidates, top_n=5, compact=True)
    assert "results" not in answer
    columns = answer["compact"]
    by_index = {result["index"]: result for result in full["results"]}
    ranked = columns["ranked"]
    assert ranked["score"] == sorted(ranked["score"], reverse=True)
    assert set(ranked) - {"index"} == {"rank", "score", "logprob", "probability_bounds"}
    for field in set(ranked) - {"index"}:
        assert ranked[field] == [by_index[index].get(field) for index in ranked["index"]]
    unranked, pruned = columns["unranked"], columns["pruned"]
    assert unranked["score"] == [by_index[index]["score"] for index in unranked["index"]]
    assert pruned["bound"] == [by_index[index]["bound"] for index in pruned["index"]]
    assert columns["failed"]["index"] == [600]
    assert columns["failed"]["code"] == ["invalid_value"]
    lists = (ranked, unranked, pruned, columns["failed"])
    assert sorted(index for part in lists for index in part["index"]) == list(range(601))


async def test_a_compact_answer_without_top_n_ranks_everything(client: httpx.AsyncClient) -> None:
    """Columns hold every candidate, best first, equal ones in the request's order."""
    answer = await scored(client, candidates=["q", " is", "z", " isn"], compact=True)
    ranked = answer["compact"]["ranked"]
    assert ranked["index"] == [1, 3, 0, 2]
    assert ranked["rank"] == [1, 2, 3, 3]
    assert math.fsum(ranked["probability"]) == pytest.approx(1.0)
    assert "top" not in answer
    assert answer["compact"].keys() == {"ranked"}


async def test_too_many_candidates_for_a_full_report_are_refused(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """The error says how many there may be, and what to set for more."""
    error = await refusal(client, "score", context="it", candidates=["a"] * 4097)
    assert error["param"] == "candidates"
    assert "4096" in error["message"] and "compact" in error["message"]


class HastyEngine(FakeEngine):
    """An engine whose time is up as soon as a search has anything to give."""

    async def decode(self, search: Any, options: RequestOptions) -> RequestOutput[Any]:
        answered = 0
        while not search.done and not search.finish_early():
            queries = search.queries()
            answered += len(queries)
            search.advance([self.answer(query) for query in queries])
        return RequestOutput(search.result(), answered, 0, queue_s=0.0, model_s=0.0)


@pytest.mark.parametrize("temperature", [0.001, 1.0])
async def test_a_search_whose_time_is_up_says_so(temperature: float) -> None:
    """Its ranks are of what was scored, and what was not may outweigh it by any factor."""
    body = {"context": "it", "candidates": many(), "top_n": 5, "temperature": temperature}
    answer = await score_with(HastyEngine(), **body)
    assert answer["top"]["certified"] is False
    ranked = [result for result in answer["results"] if "rank" in result]
    assert 0 < len(ranked) == answer["top"]["ranked"]
    assert answer["top"]["pruned"] > 0
    for result in ranked:
        low, high = result["probability_bounds"]
        assert 0.0 <= low <= high <= 1.0
