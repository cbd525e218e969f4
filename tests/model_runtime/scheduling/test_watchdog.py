"""Whether a thread moves is told from its marks, look by look."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from model_runtime.scheduling.watchdog import LOOKS, Watchdog


def looks_until_given_up(watchdog: Watchdog) -> int:
    """How often it is looked until the thread is given up."""
    return next(count for count in range(1, 100) if watchdog.look())


def test_who_stands_still_is_given_up() -> None:
    """One look finds the last step, and after the limit's worth of others it is enough."""
    watchdog = Watchdog(5.0)
    watchdog.mark()
    assert looks_until_given_up(watchdog) == 1 + LOOKS
    assert watchdog.look_s * LOOKS == 5.0


@given(st.lists(st.integers(0, LOOKS), max_size=20))
def test_each_step_begins_anew(looks: list[int]) -> None:
    """However long the steps before were, as long as each ended within the limit."""
    watchdog = Watchdog(1.0)
    for count in looks:
        watchdog.mark()
        assert not any(watchdog.look() for _ in range(count))
    watchdog.mark()
    assert looks_until_given_up(watchdog) == 1 + LOOKS


def test_rest_has_no_limit() -> None:
    """Who has nothing to do is not looked for, and has all of the time once it has."""
    watchdog = Watchdog(1.0)
    watchdog.mark()
    watchdog.look()
    watchdog.rest()
    assert not any(watchdog.look() for _ in range(5 * LOOKS))
    assert watchdog.stalled_s == 0.0
    watchdog.mark()
    assert looks_until_given_up(watchdog) == 1 + LOOKS


def test_a_stall_is_told_from_its_second_look_until_the_next_step() -> None:
    """So that no work is sent meanwhile; at the next step it is over at once."""
    watchdog = Watchdog(20.0)
    watchdog.mark()
    told = []
    for _ in range(4):
        watchdog.look()
        told.append(watchdog.stalled_s)
    assert told == [0.0, 2.0, 4.0, 6.0]
    watchdog.mark()
    assert watchdog.stalled_s == 0.0


def test_a_watched_step_is_marked_on_both_sides() -> None:
    """It begins and ends a step, also where it raises, and is passed through."""
    watchdog = Watchdog(1.0)
    seen: list[float] = []

    def divide(numerator: int, by: int) -> float:
        watchdog.look()
        watchdog.look()
        seen.append(watchdog.stalled_s)
        return numerator / by

    divide_watched = watchdog.watch(divide)
    watchdog.mark()
    assert divide_watched(6, by=3) == 2.0
    try:
        divide_watched(1, by=0)
    except ZeroDivisionError:
        seen.append(watchdog.stalled_s)
    assert seen == [0.1, 0.1, 0.0]
