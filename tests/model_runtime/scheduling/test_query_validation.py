"""What is refused before anything is computed, query by query."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from model_runtime.scheduling.query_validation import QueryValidator
from model_runtime.types import LogprobQuery

IDS = st.integers(-1, 4)


def limits() -> QueryValidator:
    return QueryValidator(vocab_size=4, max_model_len=9, capacity=7)


@given(
    contexts=st.lists(st.lists(IDS, min_size=1, max_size=6), min_size=1, max_size=3),
    asked=st.lists(st.tuples(st.integers(0, 2), st.lists(IDS, max_size=4)), max_size=12),
)
def test_what_was_looked_at_before_changes_no_verdict(
    contexts: list[list[int]], asked: list[tuple[int, list[int]]]
) -> None:
    """Contexts are remembered, and every query is refused or not as if it were the first."""
    remembering = limits()
    for index, tail in asked:
        context = contexts[index % len(contexts)]
        query = LogprobQuery((*context, *tail), len(context), targets=())
        found, fresh = remembering.check(query), limits().check(query)
        assert (type(found), str(found)) == (type(fresh), str(fresh))
