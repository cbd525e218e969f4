"""What running out of memory teaches about the size of batches."""

from __future__ import annotations

import math
import weakref

from hypothesis import given
from hypothesis import strategies as st

from model_runtime.scheduling.oom_backoff import RETRY_CEILING_AFTER, SMALLEST_BUDGET, OomBackoff


def run(budget: OomBackoff, limit: int, forwards: int) -> int:
    """So many full batches over memory for ``limit`` tokens; how many of them failed."""
    failures = 0
    for _ in range(forwards):
        if budget.tokens > limit:
            failures += 1
            assert budget.shrink(budget.tokens, ())
        else:
            budget.worked(budget.tokens)
    return failures


@given(most=st.integers(SMALLEST_BUDGET, 10_000), limit=st.integers(SMALLEST_BUDGET, 10_000))
def test_a_ceiling_is_found_by_halving_and_kept(most: int, limit: int) -> None:
    """It is at least half of what fits, or all that is allowed, and is not left soon."""
    budget = OomBackoff(most)
    failures = run(budget, limit, RETRY_CEILING_AFTER)
    assert failures <= 1 + math.log2(max(1, most / limit))
    assert min(most, limit // 2, 2 * SMALLEST_BUDGET) <= budget.tokens <= min(most, limit)


def test_a_lasting_ceiling_is_tried_more_and_more_rarely() -> None:
    """The failures grow with the logarithm of the forwards."""
    budget = OomBackoff(4096)
    assert run(budget, 300, 100 * RETRY_CEILING_AFTER) <= 4 + math.log2(100)


def test_a_ceiling_that_has_gone_is_climbed_back() -> None:
    """Memory that somebody else held for a while is not given up for good."""
    budget = OomBackoff(1000)
    run(budget, SMALLEST_BUDGET, 10)
    assert budget.tokens == SMALLEST_BUDGET
    assert run(budget, 1000, 6 * RETRY_CEILING_AFTER) == 0
    assert budget.tokens == 1000


def test_small_batches_say_nothing_about_a_ceiling() -> None:
    """A try that no batch was large enough to decide leaves the next one as far away."""
    budget = OomBackoff(4096)
    budget.shrink(4096, ())
    for _ in range(RETRY_CEILING_AFTER):
        budget.worked(1)
    assert budget.tokens == 4096
    budget.shrink(4096, ())
    for _ in range(RETRY_CEILING_AFTER):
        budget.worked(1)
    assert budget.tokens == 2048


class Request:
    """Somebody who may be at fault."""


def test_what_a_culprit_was_in_is_no_evidence() -> None:
    """Who fits at no size takes back what failed with it; what failed without it stands."""
    budget, culprit, other = OomBackoff(4096), Request(), Request()
    assert budget.shrink(4096, [other])
    for _ in range(7):
        budget.shrink(budget.tokens, [culprit, other])
    assert budget.tokens == SMALLEST_BUDGET
    assert not budget.shrink(budget.tokens, [culprit])
    budget.clear_culprit(culprit)
    assert budget.tokens == 2048
    budget.clear_culprit(other)
    assert budget.tokens == 4096


def test_a_failure_holds_no_request_in_memory() -> None:
    """What is remembered of a failed batch does not keep its requests."""
    budget, request = OomBackoff(4096), Request()
    gone = weakref.ref(request)
    budget.shrink(4096, [request])
    del request
    assert gone() is None
