"""POST /v1/audit: the parts of scores, over laws of which every number is known."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from model_runtime import EngineOverloaded, RequestOutput
from tests.app.audit.audits import BODY, NO, TRAP, YES, audit, post_audit, refusal
from tests.app.calls import log, score_with
from tests.app.fake_engine import END, STOP, FakeEngine

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine() -> FakeEngine:
    """The law in which the likelier first token leads astray."""
    return FakeEngine(TRAP)


async def test_every_token_is_taken_apart(engine: FakeEngine) -> None:
    """Conditional, rank, cumulative sum and best alternative are the law's own."""
    answer = await audit(engine, candidates=[" no yes"])
    (candidate,) = answer["candidates"]
    first, second = candidate["tokens"]
    assert (first["text"], first["logprob"], first["rank"]) == (NO, log(0.25), 2)
    assert (second["text"], second["logprob"], second["rank"]) == (YES, log(0.75), 1)
    assert [first["cumulative"], second["cumulative"]] == [log(0.25), log(0.25) + log(0.75)]
    assert (first["alternative"]["text"], first["alternative"]["logprob"]) == (YES, log(0.5))
    assert (second["alternative"]["text"], second["start"], second["end"]) == (NO, 8, 12)


async def test_the_entropy_is_that_of_the_tokens_own_place(engine: FakeEngine) -> None:
    """In nats, over the whole vocabulary, before the token was seen."""
    answer = await audit(engine, candidates=[" no yes"])
    size = engine.tokenizer.head_rows
    for token, named in zip(
        answer["candidates"][0]["tokens"], ({0.5, 0.25}, {0.75, 0.125}), strict=True
    ):
        rest = 1 - math.fsum(named)
        spread = -math.fsum(p * math.log(p) for p in named)
        spread -= rest * math.log(rest / (size - len(named)))
        assert token["entropy"] == pytest.approx(spread, abs=1e-5)


async def test_a_pair_says_where_the_lead_changes_and_what_decides(engine: FakeEngine) -> None:
    """ " yes no" leads after one token and loses at the second, which also decides."""
    answer = await audit(engine, candidates=[" yes no", " no yes"])
    (pair,) = answer["pairs"]
    assert (pair["better"], pair["worse"]) == (1, 0)
    assert pair["difference"] == pytest.approx(math.log(3), abs=1e-6)
    (change,) = pair["lead_changes"]
    assert (change["position"], change["better"], change["worse"]) == (1, YES, NO)
    assert change["lead"] == pair["difference"]
    assert pair["deciding"] == change
    assert pair["deciding"]["gain"] == pytest.approx(math.log(6), abs=1e-6)
    assert pair["lead_without"] == pytest.approx(-math.log(2), abs=1e-6)
    for words in ("0.6931 nats ahead until token 1", '" no yes" takes the lead', "1.792 nats"):
        assert words in pair["explanation"]


async def test_what_ends_first_pays_nothing_more(engine: FakeEngine) -> None:
    """A candidate that has ended stays where it is, and the longer one falls behind it."""
    (pair,) = (await audit(engine, candidates=[" yes no", NO]))["pairs"]
    (change,) = pair["lead_changes"]
    assert (pair["better"], change["position"], change.get("better")) == (1, 1, None)
    assert change["gain"] == pytest.approx(math.log(8), abs=1e-6)
    assert 'it has ended and " no" costs the other 2.079 nats' in pair["explanation"]


async def test_equal_candidates_have_no_leader(engine: FakeEngine) -> None:
    """The same text twice: no lead, no change, and the sentence says so."""
    (pair,) = (await audit(engine, candidates=[YES, YES]))["pairs"]
    assert (pair["difference"], pair["lead_changes"]) == (0, [])
    assert pair["explanation"] == '" yes" and " yes" have the same sum'


async def test_the_favourite_of_each_step_loses_on_the_total(engine: FakeEngine) -> None:
    """Why is said in the numbers of the two: the gain at the fork, and the loss behind it."""
    found = (await audit(engine, candidates=[" yes no", " no yes"]))["among_candidates"]
    assert (found["favourite"], found["best"], found["loses"]) == (" yes no", " no yes", True)
    assert found["position"] == 0
    assert found["ahead"] == pytest.approx(math.log(2), abs=1e-6)
    assert found["behind"] == pytest.approx(math.log(3), abs=1e-6)
    for words in ('" yes" (-0.693147)', '" no" (-1.38629)', "0.6931 nats ahead", "1.099 nats"):
        assert words in found["explanation"]


async def test_a_favourite_that_wins_is_said_to_win() -> None:
    """The sentence follows the numbers: here one token decides and nothing is lost."""
    found = (await audit(FakeEngine(TRAP)))["among_candidates"]
    assert (found["loses"], found.get("position"), found.get("ahead")) == (False, None, None)
    assert "nothing that was found exceeds" in found["explanation"]


async def test_searches_stand_beside_the_candidates(engine: FakeEngine) -> None:
    """Greedy misses the optimum by log 3 nats; the optimum is the second candidate."""
    answer = await audit(engine, candidates=[" yes no", " no yes"])
    greedy, beam, exact = answer["completions"]
    assert [one["strategy"] for one in (greedy, beam, exact)] == ["greedy", "beam", "exact"]
    assert (greedy["text"], greedy["candidate"]) == (" yes no", 0)
    assert (exact["text"], exact["candidate"], exact["above_best_candidate"]) == (" no yes", 1, 0)
    assert greedy["search_error"] == pytest.approx(math.log(3), abs=1e-6)
    assert greedy["above_best_candidate"] == -greedy["search_error"]
    assert beam["search_error"] == exact["search_error"] == 0
    assert answer["certificate"]["optimal"] is True
    found = answer["among_completions"]
    assert (found["favourite"], found["best"], found["loses"]) == (" yes no", " no yes", True)


async def test_training_and_ranking_look_at_the_same_numbers(engine: FakeEngine) -> None:
    """The mean NLL is minus the mean; sum, mean and per byte each have their own ranks."""
    law = {" is": {YES: 0.25, NO: 0.5}, NO: {NO: 0.4375}}
    answer = await audit(FakeEngine(law), candidates=[YES, " no no"])
    one, two = answer["candidates"]
    assert two["training"]["labels"] == 2
    assert two["training"]["nll"] == -(log(0.5) + log(0.4375))
    assert two["training"]["mean_nll"] == two["training"]["nll"] / 2
    assert [c["ranking"]["sum"]["rank"] for c in (one, two)] == [1, 2]
    assert [c["ranking"]["mean"]["rank"] for c in (one, two)] == [2, 1]
    assert two["ranking"]["mean"]["score"] == -two["training"]["mean_nll"]
    assert two["ranking"]["per_byte"]["score"] == -two["training"]["nll"] / 6
    assert 'sum puts " yes" (-1.38629) before " no no" (-1.51983)' in answer["views"]
    assert "mean the other way round: over 1 token it has -1.38629" in answer["views"]


async def test_views_that_agree_are_said_to_agree(engine: FakeEngine) -> None:
    """Nothing is explained where nothing differs."""
    answer = await audit(engine, candidates=[YES, " not"])
    assert answer["views"] == "sum, mean and per_byte rank the 2 candidates alike"


async def test_a_candidate_that_fails_is_left_out(engine: FakeEngine) -> None:
    """Its error stands at its place; pairs are those of the others."""
    answer = await audit(engine, candidates=[YES, "", NO], pairs=[[0, 2], [0, 1]])
    good, bad, _ = answer["candidates"]
    assert bad["error"]["param"] == "candidates.1"
    assert bad["tokens"] == []
    assert not [name for name in ("training", "ranking", "join") if bad.get(name)]
    assert good.get("error") is None
    assert [(pair["better"], pair["worse"]) for pair in answer["pairs"]] == [(0, 2)]


async def test_ends_are_audited_as_tokens(engine: FakeEngine) -> None:
    """An appended end is the last token, with the mass of all end tokens."""
    tokenizer = engine.tokenizer
    law = {" is": {YES: 0.5}, YES: {END: 0.25, STOP: 0.5}}
    both = FakeEngine(law, end_token_ids=(tokenizer.id(END), tokenizer.id(STOP)))
    answer = await audit(both, candidates=[YES], append_eos=True)
    tokens = answer["candidates"][0]["tokens"]
    assert [token["text"] for token in tokens] == [YES, STOP]
    assert tokens[1]["logprob"] == pytest.approx(math.log(0.75), abs=1e-6)
    assert answer["candidates"][0]["training"]["labels"] == 2
    size = tokenizer.head_rows
    spread = -0.25 * log(0.25) - 0.5 * log(0.5) - 0.25 * math.log(0.25 / (size - 2))
    assert tokens[1]["entropy"] == pytest.approx(spread, abs=1e-5)


async def test_the_default_pair_is_the_two_best(engine: FakeEngine) -> None:
    """Of three candidates the last is compared only where it is asked for."""
    body: dict[str, Any] = {"candidates": ["x", NO, YES]}
    (pair,) = (await audit(engine, **body))["pairs"]
    assert (pair["better"], pair["worse"], pair["lead_changes"]) == (2, 1, [])
    assert (await audit(engine, candidates=[YES]))["pairs"] == []
    (asked,) = (await audit(engine, **body, pairs=[[0, 1]]))["pairs"]
    assert (asked["better"], asked["worse"]) == (1, 0)
    assert (await audit(engine, **body, pairs=[]))["pairs"] == []


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"candidates": [YES] * 17}, "candidates", "at most 16"),
        ({"candidates": []}, "candidates", "at least 1"),
        ({"pairs": [[0, 2]]}, "pairs", "indices below 2"),
        ({"pairs": [[1, 1]]}, "pairs", "two candidates each"),
        ({"max_tokens": 65}, "max_tokens", "less than or equal to 64"),
        ({"max_expansions": 5000}, "max_expansions", "less than or equal to 4096"),
        ({"candidates": ["", ""]}, "candidates.0", "empty"),
        ({"candidates": ["x" * 300, "y" * 300]}, "candidates", "600 scored tokens are too many"),
        ({"boundary": "marginal"}, "boundary", "joint"),
    ],
)
async def test_what_is_too_large_is_refused_by_name(
    body: dict[str, Any], param: str, words: str
) -> None:
    """The field at fault and its limit are named."""
    error = await refusal(FakeEngine(TRAP, max_model_len=4000), **body)
    assert error["param"] == param
    assert error["message"].count(param) == 1
    assert words in error["message"]


async def test_usage_counts_every_question(engine: FakeEngine) -> None:
    """Usage adds up all that was asked; prompt and scored tokens are those of the scores."""
    usage = (await audit(engine))["usage"]
    assert (usage["prompt_tokens"], usage["scored_tokens"]) == (2, 2)
    scores = (await score_with(FakeEngine(TRAP), **BODY))["usage"]
    assert usage["computed_tokens"] > 3 * scores["computed_tokens"]


async def test_the_operators_timeout_holds_for_an_audit() -> None:
    """Where the request names none, the server's default ends the audit."""

    class Slow(FakeEngine):
        async def score(self, *args: Any) -> RequestOutput[Any]:
            await asyncio.sleep(0.2)
            return await super().score(*args)

    response = await post_audit(Slow(TRAP), {"default_timeout_ms": 100})
    assert response.status_code == 504


async def test_refusals_pass_through(engine: FakeEngine) -> None:
    """A full queue is a full queue for an audit as well."""
    engine.refusal = EngineOverloaded("full", retry_after_s=2.0)
    assert (await refusal(engine, 429))["code"] == "queue_full"


async def test_an_operator_may_forbid_alternatives(engine: FakeEngine) -> None:
    """Without listed rivals there is no alternative, and everything else is there."""
    response = await post_audit(engine, {"max_top_logprobs": 0})
    (token, *_) = response.json()["candidates"][0]["tokens"]
    assert token.get("alternative") is None
    assert token["logprob"] == log(0.5)
