"""How each candidate met the context, and its score under every policy."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.audit import collect
from app.audit.evidence import Evidence
from app.audit.joins import candidate_join
from app.requests.prompt import Prompt
from app.schemas.audit import AuditRequest
from app.schemas.score_response import BoundaryReport, ScoreResponse
from model_runtime import Tokenizer
from tests.app.audit.audits import audit
from tests.app.calls import score_with
from tests.app.fake_engine import FakeEngine, ToyTokenizer
from tests.tiny_models import tiny_tokenizer

pytestmark = pytest.mark.anyio

YES, NOT = " yes", "n't"
TWO: dict[str, Any] = {"context": "it is", "candidates": [YES, NOT]}
LLAMA = Tokenizer(tiny_tokenizer("llama"))
PIECES = ["The capital of France", " is", "is", NOT, YES, " ", "  ", "\n", "42", "é", "😀"]
TEXT = st.lists(st.sampled_from(PIECES) | st.text(max_size=2), max_size=4).map("".join)


async def joins(**body: Any) -> list[dict[str, Any]]:
    """Those of an audit's candidates, all of which can be scored."""
    answer = await audit(FakeEngine(), **{**TWO, **body})
    return [candidate["join"] for candidate in answer["candidates"]]


async def scores(policy: str, **body: Any) -> list[dict[str, Any]]:
    """The results of /v1/score under a policy."""
    answer = await score_with(FakeEngine(), **{**TWO, **body}, boundary=policy)
    return list(answer["results"])


def texts(join: dict[str, Any]) -> list[str]:
    """The split as it reads."""
    return [token["text"] for token in join["tokens"]]


async def test_the_split_shows_what_merged() -> None:
    """ "n't" takes the end of "is" with it, " yes" does not; both are shown from the start on."""
    plain, merged = await joins()
    assert (plain["own_start_token"], plain["merged"], texts(plain)) == (2, False, [" is", YES])
    assert (merged["own_start_token"], merged["merged"]) == (1, True)
    assert texts(merged) == [" isn", "'t"]


@settings(max_examples=40, deadline=None)
@given(context=TEXT.filter(bool), candidate=TEXT.filter(bool))
def test_starts_and_merges_are_those_of_the_bytes(context: str, candidate: str) -> None:
    """Whatever a tokenizer does at the join, and with BOS before it all."""
    alone, whole = LLAMA.encode(context), LLAMA.encode(context + candidate)
    head = (LLAMA.bos_token_id or 0,)
    boundary = BoundaryReport(
        policy="joint", start_token=1, shift_bytes=0, context_tokens=len(alone), bos_added=True
    )
    made: Any = ScoreResponse.model_construct
    evidence = Evidence(
        request=AuditRequest(context=context, candidates=[candidate]),
        tokenizer=LLAMA,
        prompt=Prompt(context, None, None),
        before=(*head, *alone),
        scores=made(boundary=boundary),
        by_policy={},
        entropies={},
        decoded=None,  # type: ignore[arg-type]
        usage=None,  # type: ignore[arg-type]
    )
    join = candidate_join(evidence, 0)
    ends = [sum(len(LLAMA.token_bytes(one)) for one in whole[: n + 1]) for n in range(len(whole))]
    assert join.merged is (len(context.encode()) not in ends)
    shared = max(n for n in range(len(alone) + 1) if alone[:n] == whole[:n])
    assert join.own_start_token == 1 + shared


async def test_the_own_start_counts_what_stands_before_the_context() -> None:
    """With BOS there is one token more in common, merged or not."""
    [join] = await joins(context="it i", candidates=["s not"], add_bos=True)
    assert (join["own_start_token"], join["merged"]) == (2, True)
    assert texts(join)[:2] == [" is", " no"]
    [join] = await joins(context="it ", candidates=["it"], add_bos=True)
    assert (join["own_start_token"], join["merged"], texts(join)) == (3, False, ["it"])


@pytest.mark.parametrize("policy", ["joint", "separate"])
async def test_every_policy_is_reported_whichever_is_asked(policy: str) -> None:
    """The scores are those of /v1/score under each policy."""
    alone = {name: await scores(name) for name in ("joint", "separate", "marginal")}
    for index, join in enumerate(await joins(boundary=policy)):
        assert join["policies"] == {
            "joint": alone["joint"][index]["logprob"],
            "separate": alone["separate"][index]["logprob"],
            "marginal": alone["marginal"][index]["marginal"],
        }
        assert join["policies"]["joint"] != join["policies"]["separate"]


async def test_the_sum_over_spellings_has_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """It suffices for the longest candidate at least, and is not the exact search's."""
    monkeypatch.setattr(collect, "MARGINAL_EXPANSIONS", 0)
    alone = await scores("marginal", max_expansions=2)
    for index, join in enumerate(await joins(max_expansions=7)):
        assert join["policies"]["marginal"] == alone[index]["marginal"]
        assert join["policies"]["marginal"]["exact"] is False


async def test_the_split_is_that_of_the_requests_own_policy() -> None:
    """Under ``separate`` it is shown as it is scored, and the merge that was avoided is told."""
    plain, apart = await joins(boundary="separate")
    assert texts(plain) == [YES]
    assert texts(apart) == ["n", "'t"]
    assert (apart["own_start_token"], apart["merged"]) == (1, True)


async def test_long_splits_are_shown_near_the_join() -> None:
    """At most eight tokens before the context's end, and four from there on."""
    [join] = await joins(context="it" + " is" * 20, candidates=["abcdefg"], start_token=1)
    assert texts(join) == [" is"] * 8 + ["a", "b", "c", "d"]


async def test_ids_meet_the_context_as_they_are() -> None:
    """There is no text that could be tokenized together, so there is no joint score."""
    tokenizer = ToyTokenizer()
    body = {"context": tokenizer.encode("it is"), "candidates": [tokenizer.encode(NOT)]}
    [join] = await joins(**body)
    assert (join["own_start_token"], join["merged"], texts(join)) == (2, False, ["n", "'t"])
    assert join["policies"].get("joint") is None
    assert join["policies"]["separate"] == (await scores("separate", **body))[0]["logprob"]
    assert join["policies"]["marginal"] == (await scores("marginal", **body))[0]["marginal"]


async def test_what_one_policy_cannot_score_has_no_value_there() -> None:
    """ "n't" merges with all of " is": joint has nothing to begin with, the others have."""
    [join] = await joins(context=" is", candidates=[NOT], boundary="separate")
    assert (join["own_start_token"], join["merged"]) == (0, True)
    assert join["policies"].get("joint") is None
    assert join["policies"]["separate"] is not None
    assert join["policies"]["marginal"] is not None
