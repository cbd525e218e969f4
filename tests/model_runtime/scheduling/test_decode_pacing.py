"""How much rides along with decode steps. Times are made up."""

from __future__ import annotations

import random

import pytest

from model_runtime.scheduling.decode_pacing import LEAST, RECALIBRATE_AFTER, DecodePacer

MOST = 4096


def run(
    pace: DecodePacer, steps: int, batches: int, *, fixed: float, each: float, noise: float = 0.0
) -> list[tuple[int, float]]:
    """(tokens, seconds) of batches that are always full and take ``fixed + each * tokens``."""
    source = random.Random(1)
    seen = []
    for _ in range(batches):
        tokens = pace.budget(steps, MOST)
        seconds = (fixed + each * tokens) * (1 + source.uniform(-noise, noise))
        pace.observe(steps, tokens, seconds)
        seen.append((tokens, seconds))
    return seen


@pytest.mark.parametrize("steps", [1, 16, 512])
@pytest.mark.parametrize(("fixed", "each"), [(0.1, 0.002), (0.01, 0.00002), (0.05, 0.003)])
def test_steps_take_less_than_twice_their_time_alone(steps: int, fixed: float, each: float) -> None:
    """Whatever the machine, after a few batches; and the others get a fair part of the time."""
    seen = run(DecodePacer(), steps, 200, fixed=fixed, each=each, noise=0.1)[20:]
    alone = fixed + each * steps
    slow = [seconds for _, seconds in seen if seconds > 2 * alone]
    others = sum(tokens - steps for tokens, _ in seen) * each
    assert len(slow) <= 0.02 * len(seen)
    assert others > 0.2 * sum(seconds for _, seconds in seen)


@pytest.mark.parametrize("sizes", [(16, 32), (1, 4), (4, 32, 128, 40, 8), (31, 25, 1)])
def test_changing_numbers_of_steps_starve_nobody(sizes: tuple[int, ...]) -> None:
    """Each size is measured alone once; after that others ride along in nearly every batch."""
    pace, crowd = DecodePacer(), 0
    for i in range(400):
        steps = sizes[i % len(sizes)]
        tokens = pace.budget(steps, MOST)
        pace.observe(steps, tokens, 0.05 + 0.002 * tokens)
        crowd += tokens > steps
    assert crowd > 400 - 400 // RECALIBRATE_AFTER - 3 * len(sizes)


def test_without_steps_a_batch_is_as_large_as_it_may_be() -> None:
    """Scoring alone is not slowed down, neither before nor after a decode."""
    pace = DecodePacer()
    assert pace.budget(0, MOST) == MOST
    run(pace, 16, 10, fixed=0.1, each=0.01)
    pace.observe(0, MOST, 9.0)
    assert pace.budget(0, MOST) == MOST


def test_whoever_waits_goes_on() -> None:
    """Where any crowd is too much, a little rides along all the same."""
    seen = run(DecodePacer(), 4, 200, fixed=0.0, each=1.0)
    assert seen[-1][0] == 4 + LEAST


def test_steps_are_measured_alone_at_first_now_and_then_and_when_their_number_changes() -> None:
    """One batch without crowd each time, and no other."""
    pace = DecodePacer()
    seen = [tokens for tokens, _ in run(pace, 16, 2 * RECALIBRATE_AFTER, fixed=0.1, each=0.001)]
    assert [i for i, tokens in enumerate(seen) if tokens == 16] == [0, RECALIBRATE_AFTER + 1]
    assert pace.budget(20, MOST) > 20
    assert pace.budget(40, MOST) == 40


def test_a_clock_that_stands_still_starves_nobody() -> None:
    """Times of zero say nothing, and what waits still rides along."""
    assert run(DecodePacer(), 3, 5, fixed=0.0, each=0.0)[-1][0] > 3


def test_a_batch_never_exceeds_the_bound() -> None:
    """Neither steps nor their crowd go beyond what a batch may have."""
    pace = DecodePacer()
    assert pace.budget(100, 60) == 60
    pace.observe(50, 50, 1.0)
    assert pace.budget(50, 60) == 60
