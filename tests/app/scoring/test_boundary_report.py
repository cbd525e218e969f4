"""``boundary_detail``: how each candidate met the context, and its score under every policy."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.schemas.score import ScoreRequest
from app.schemas.score_response import BoundaryReport, CandidateJoin, CandidateScore, ScoreResponse
from app.scoring.boundary_report import (
    Score,
    attach_report,
    policy_requests,
    score_under_each_policy,
)
from app.service import ScoringService
from model_runtime import InvalidQuery, PathTooLong, Tokenizer
from tests.app.fake_engine import FakeEngine, ToyTokenizer
from tests.tiny_models import tiny_tokenizer

pytestmark = pytest.mark.anyio

YES, NOT = " yes", "n't"
LLAMA = Tokenizer(tiny_tokenizer("llama"))
PIECES = ["The capital of France", " is", "is", NOT, YES, " ", "  ", "\n", "42", "é", "😀"]
TEXT = st.lists(st.sampled_from(PIECES) | st.text(max_size=2), max_size=4).map("".join)


def asked(**body: Any) -> ScoreRequest:
    """A request for details."""
    smallest = {"context": "it is", "candidates": [YES, NOT], "boundary_detail": True}
    return ScoreRequest.model_validate({**smallest, **body})


def scoring(engine: FakeEngine) -> Score:
    """What answers a request without details."""
    service: Any = ScoringService(engine)  # type: ignore[arg-type]
    return cast(Score, service.score)


async def detailed(engine: FakeEngine | None = None, **body: Any) -> ScoreResponse:
    """What the service answers."""
    engine = engine or FakeEngine()
    request = asked(**body)
    return await scoring(engine)(request)


async def plainly(**body: Any) -> ScoreResponse:
    """The answer to the same request without details."""
    request = asked(boundary_detail=False, **body)
    return await scoring(FakeEngine())(request)


def joins(reply: ScoreResponse) -> list[CandidateJoin]:
    """The details, which every candidate must have."""
    found = [result.join for result in reply.results]
    assert None not in found
    return [join for join in found if join is not None]


def texts(join: CandidateJoin) -> list[str]:
    """The split as it reads."""
    return [token.text for token in join.tokens]


async def test_the_split_shows_what_merged() -> None:
    """ "n't" takes the end of "is" with it, " yes" does not; both are shown from the start on."""
    plain, merged = joins(await detailed())
    assert (plain.own_start, plain.merged, texts(plain)) == (2, False, [" is", YES])
    assert (merged.own_start, merged.merged, texts(merged)) == (1, True, [" isn", "'t"])


@settings(max_examples=150, deadline=None)
@given(context=TEXT.filter(bool), candidate=TEXT.filter(bool))
def test_starts_and_merges_are_those_of_whole_texts(context: str, candidate: str) -> None:
    """They are what tokenizing the two texts in full says, by bytes."""
    alone, whole = LLAMA.encode(context), LLAMA.encode(context + candidate)
    request = asked(context=context, candidates=[candidate])
    boundary = BoundaryReport(
        policy="joint", start_token=1, shift_bytes=0, context_tokens=len(alone), bos_added=False
    )
    result = CandidateScore.model_construct(index=0, error=None, logprob=-1.0)
    [detailed] = attach_report(LLAMA, FakeEngine().info, request, boundary, [result], {})
    assert detailed.join is not None
    ends = [sum(len(LLAMA.token_bytes(one)) for one in whole[: n + 1]) for n in range(len(whole))]
    assert detailed.join.merged is (len(context.encode()) not in ends)
    own_start = max(n for n in range(len(alone) + 1) if alone[:n] == whole[:n])
    assert detailed.join.own_start == own_start


async def test_the_own_start_counts_what_stands_before_the_context() -> None:
    """With BOS there is one token more in common, merged or not."""
    [join] = joins(await detailed(context="it i", candidates=["s not"], add_bos=True))
    assert (join.own_start, join.merged, texts(join)[:2]) == (2, True, [" is", " no"])
    [join] = joins(await detailed(context="it ", candidates=["it"], add_bos=True))
    assert (join.own_start, join.merged, texts(join)) == (3, False, ["it"])


@pytest.mark.parametrize("policy", ["joint", "separate", "marginal"])
async def test_every_policy_is_reported_whichever_is_asked(policy: str) -> None:
    """The scores are those of requests under each policy, and the answer's own are untouched."""
    reply = await detailed(boundary=policy)
    alone = {name: await plainly(boundary=name) for name in ("joint", "separate", "marginal")}
    for index, join in enumerate(joins(reply)):
        scores = {name: other.results[index] for name, other in alone.items()}
        assert join.policies.joint == scores["joint"].logprob
        assert join.policies.separate == scores["separate"].logprob
        assert join.policies.marginal == scores["marginal"].marginal
        assert join.policies.marginal is not None
        assert join.policies.joint != join.policies.separate
        assert reply.results[index].model_copy(update={"join": None}) == scores[policy]
    assert reply.boundary == alone[policy].boundary


async def test_the_split_is_that_of_the_requests_own_policy() -> None:
    """Under ``separate`` it is shown as it is scored, and the merge that was avoided is told."""
    plain, apart = joins(await detailed(boundary="separate"))
    assert texts(plain) == [YES]
    assert texts(apart) == ["n", "'t"]
    assert (apart.own_start, apart.merged) == (1, True)
    assert texts(joins(await detailed(boundary="marginal"))[1]) == [" isn", "'t"]


async def test_long_splits_are_shown_near_the_join() -> None:
    """At most eight tokens before the context's end, and four from there on."""
    [join] = joins(await detailed(context="it" + " is" * 20, candidates=["abcdefg"], start_token=1))
    assert texts(join) == [" is"] * 8 + ["a", "b", "c", "d"]


async def test_ids_meet_the_context_as_they_are() -> None:
    """There is no text that could be tokenized together, so there is no joint score."""
    tokenizer = ToyTokenizer()
    ids = tokenizer.encode(NOT)
    reply = await detailed(context=tokenizer.encode("it is"), candidates=[ids])
    [join] = joins(reply)
    assert (join.own_start, join.merged, texts(join)) == (2, False, ["n", "'t"])
    assert join.policies.joint is None
    assert join.policies.separate == reply.results[0].logprob
    assert join.policies.marginal is not None
    assert "joint" not in policy_requests(asked(candidates=[ids]))


async def test_what_one_policy_cannot_score_is_null_there() -> None:
    """ "n't" merges with all of " is": joint has nothing to begin with, the others have."""
    reply = await detailed(context=" is", candidates=[NOT], boundary="separate")
    [join] = joins(reply)
    assert (join.own_start, join.merged) == (0, True)
    assert join.policies.joint is None
    assert join.policies.separate is not None
    assert join.policies.marginal is not None


async def test_a_failed_candidate_has_no_detail() -> None:
    """It has an error; its neighbours are as if it were not there."""
    good, bad = (await detailed(candidates=[YES, ""])).results
    assert (bad.join, bad.error is None) == (None, False)
    alone = joins(await detailed(candidates=[YES]))
    assert [good.join] == alone


@pytest.mark.parametrize("field", [{"top_n": 1}, {"compact": True}])
async def test_details_of_what_is_not_listed_are_refused(field: dict[str, Any]) -> None:
    """There is nothing asked of the model before that is said."""
    engine = FakeEngine()
    with pytest.raises(InvalidQuery, match=next(iter(field))) as caught:
        await detailed(engine, **field)
    assert caught.value.param == "boundary_detail"
    assert engine.queries == []


async def test_what_a_policy_costs_that_nobody_named_is_the_fault_of_the_detail() -> None:
    """The caller is told which field to leave out."""
    with pytest.raises(InvalidQuery, match="under marginal") as caught:
        await detailed(candidates=[YES] * 257)
    assert caught.value.param == "boundary_detail"


async def test_a_setting_that_a_policy_refuses_fails_the_request() -> None:
    """It is not passed over as if the candidates had no score."""
    with pytest.raises(InvalidQuery) as caught:
        await detailed(max_expansions=16_384, candidates=[YES] * 5)
    assert caught.value.param == "max_expansions"


async def test_a_context_that_is_too_long_fails_the_request() -> None:
    """That the context is at fault is said once, under the request's own policy."""
    with pytest.raises(PathTooLong):
        await detailed(context="x" * 64)


async def test_the_reply_says_what_all_policies_took() -> None:
    """Usage and timings are those of the three together; the context is counted once."""
    engine = FakeEngine()
    replies: list[ScoreResponse] = []

    async def watched(request: ScoreRequest) -> ScoreResponse:
        replies.append(await scoring(engine)(request))
        return replies[-1]

    reply, _ = await score_under_each_policy(watched, asked(timeout_ms=60_000))
    assert len(replies) == 3
    for name in ("scored_tokens", "cached_tokens", "computed_tokens", "reused_scores"):
        assert getattr(reply.usage, name) == sum(getattr(one.usage, name) for one in replies)
    assert reply.usage.prompt_tokens == replies[0].usage.prompt_tokens
    assert reply.timings_ms.total == pytest.approx(sum(one.timings_ms.total for one in replies))
