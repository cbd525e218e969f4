"""What a request costs at least is never more than admission counts for it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.decoding.plan import plan_decode
from app.requests.token_estimate import least_tokens
from app.schemas.decode import DecodeRequest
from app.schemas.next_token import NextTokenRequest
from app.schemas.request import ContextRequest, ServingOptions
from app.schemas.score import ScoreRequest
from app.scoring.marginal_plan import plan_marginal
from app.scoring.next_token import plan_next_token
from app.scoring.plan import plan_score
from app.scoring.top_n import top_search
from model_runtime import InvalidQuery, LogprobQuery
from model_runtime.batching.trie import fed_tokens
from tests.app.fake_engine import FakeEngine

ENGINE = FakeEngine(max_model_len=40)
TOKENIZER, INFO = ENGINE.tokenizer, ENGINE.info
ARGUMENTS: Any = (TOKENIZER, INFO)

TEXTS = st.lists(st.sampled_from(["it", " is", "n't", " maybe", "x", " "]), max_size=9).map("".join)
IDS = st.lists(st.integers(0, 200), max_size=44)
CONTEXTS = TEXTS | IDS
CANDIDATES = st.lists(TEXTS, min_size=1, max_size=3) | st.lists(IDS, min_size=1, max_size=3)


def cost_of(request: ContextRequest) -> int:
    """What admission counts."""
    if isinstance(request, DecodeRequest):
        return sum(search.cost for search in plan_decode(*ARGUMENTS, request).searches)
    if isinstance(request, NextTokenRequest):
        return fed_tokens([plan_next_token(*ARGUMENTS, 10, request).query])
    assert isinstance(request, ScoreRequest)
    if request.boundary == "marginal":
        return plan_marginal(*ARGUMENTS, request).search.cost
    plan = plan_score(*ARGUMENTS, ENGINE.check, request)
    search = top_search(INFO, plan)
    return fed_tokens(plan.queries) if search is None else search.cost


@st.composite
def requests(draw: st.DrawFn) -> ContextRequest:
    """Of any verb that has a context."""
    context, candidates = draw(CONTEXTS), draw(CANDIDATES)
    verb = draw(st.sampled_from(["next", "greedy", "beam", "exact", "score", "top", "marginal"]))
    body: dict[str, Any] = {"context": context}
    if verb == "next":
        return NextTokenRequest.model_validate(body)
    if verb in ("greedy", "beam", "exact"):
        chosen = {"candidates": candidates} if draw(st.booleans()) else {"max_tokens": 2}
        return DecodeRequest.model_validate(body | chosen | {"strategy": verb})
    body["candidates"] = candidates
    if verb == "marginal":
        return ScoreRequest.model_validate(body | {"boundary": "marginal", "max_expansions": 1})
    top = {"top_n": 1} if verb == "top" else {}
    return ScoreRequest.model_validate(body | top)


@settings(deadline=None, max_examples=400)
@given(requests())
def test_nothing_that_fits_is_refused(request: ContextRequest) -> None:
    """A queue that has room for a request has room for what it costs at least."""
    try:
        cost = cost_of(request)
    except InvalidQuery:
        return
    assert 1 <= least_tokens(*ARGUMENTS, request) <= cost


@pytest.mark.parametrize(
    ("request_", "least"),
    [
        (NextTokenRequest(context=[7] * 30), 30),
        (NextTokenRequest(context=[7] * 4_000), 40),
        (NextTokenRequest(context=" maybe" * 5), 5),
        (ScoreRequest(context=" maybe" * 5, candidates=["x"], boundary="marginal"), 1),
        (NextTokenRequest.model_validate({"context": [{"role": "user", "content": "x" * 99}]}), 1),
        (NextTokenRequest(context="", prefix_token_id=1), 1),
        (ServingOptions(), 1),
    ],
)
def test_the_length_of_the_context_tells(request_: ServingOptions, least: int) -> None:
    """Ids are tokens, texts are as few as their longest piece allows, and the model has an end."""
    assert least_tokens(*ARGUMENTS, request_) == least


def test_a_query_is_fed_all_but_its_last_token() -> None:
    """What the property above takes for the cost is what the engine takes for it."""
    assert fed_tokens([LogprobQuery((1, 2, 3), 2), LogprobQuery((1, 2, 4), 2)]) == 2
