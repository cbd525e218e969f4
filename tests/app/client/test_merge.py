"""The client's ranking functions are the runtime's, to the bit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.client.split.merge import ranks_of, shares_of, tie_groups_of
from model_runtime import competition_ranks, probabilities, tie_groups

SCORES = st.lists(
    st.none() | st.sampled_from([-1.0, -1.5]) | st.floats(-50, 0), min_size=1, max_size=12
)


@given(SCORES, st.floats(0.01, 100), st.randoms(use_true_random=False))
def test_ranking_equals_the_servers(
    scores: list[float | None], temperature: float, dice: object
) -> None:
    """Ranks, probabilities and tie groups agree on any list, ties and failures among them."""
    errors = [dice.choice([0.0, 0.1, 1.0]) for _ in scores]  # type: ignore[attr-defined]
    assert ranks_of(scores) == competition_ranks(scores)
    assert shares_of(scores, temperature) == probabilities(scores, temperature)
    assert tie_groups_of(scores, errors) == tie_groups(scores, errors)


def test_ties_need_the_errors() -> None:
    """Where the error of one score is not known, nothing is said of ties."""
    assert tie_groups_of([-1.0, -1.0], [0.1, None]) == [None, None]
    assert tie_groups_of([-1.0, None], [0.1, None]) == [None, None]
