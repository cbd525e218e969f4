"""How much may wait, and what a client is told when it is too much."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_runtime.errors import EngineOverloaded, RequestTooLarge
from model_runtime.scheduling.admission import (
    DEFAULT_TOKENS_PER_S,
    SHORTEST_RETRY_S,
    Admission,
    Throughput,
)
from model_runtime.types import Priority, RequestOptions
from tests.model_runtime.on_loop import on_loop

INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK


def admission_of(max_tokens: int, tokens_per_s: float = 1, **bounds: int) -> Admission:
    """Of a queue that is worked off so fast."""
    throughput = Throughput()
    throughput.tokens_per_s = tokens_per_s
    return Admission(max_tokens, throughput, **bounds)  # type: ignore[arg-type]


def test_a_full_queue_refuses_and_says_when_there_is_room() -> None:
    """Retry-After is the time that the missing tokens take at the measured speed."""
    admission = admission_of(100, tokens_per_s=5)
    admission.admit(90, INTERACTIVE)
    with pytest.raises(EngineOverloaded) as refusal:
        admission.admit(30, INTERACTIVE)
    assert refusal.value.retry_after_s == pytest.approx(20 / 5)
    assert admission.queued_tokens == 90


def test_nobody_is_told_to_come_back_at_once() -> None:
    """On a fast model the advice stays above a floor."""
    admission = admission_of(100, tokens_per_s=1e9)
    admission.admit(100, INTERACTIVE)
    with pytest.raises(EngineOverloaded) as refusal:
        admission.admit(1, INTERACTIVE)
    assert refusal.value.retry_after_s == SHORTEST_RETRY_S


def test_what_could_never_fit_is_too_large_rather_than_too_much() -> None:
    """A request above the whole queue is refused for good, even by an empty queue."""
    admission = admission_of(100)
    with pytest.raises(RequestTooLarge):
        admission.admit(101, INTERACTIVE)
    admission.admit(100, INTERACTIVE)


def test_a_nearly_full_queue_refuses_whatever_the_cost() -> None:
    """From 15/16 on, before a request's cost is known; Retry-After is the time back to there."""
    admission = admission_of(160, tokens_per_s=2)
    for _ in range(2):
        admission.admit(75, INTERACTIVE)
    admission.check_room(INTERACTIVE)
    admission.admit(4, BULK)
    with pytest.raises(EngineOverloaded) as refusal:
        admission.check_room(INTERACTIVE)
    assert refusal.value.retry_after_s == pytest.approx(4 / 2)
    admission.free(4, BULK)
    admission.check_room(INTERACTIVE)
    assert admission.queued_tokens == 150


def test_bulk_work_leaves_room_for_interactive_work() -> None:
    """Bulk requests fill three quarters of the queue and no more."""
    admission = admission_of(100)
    admission.admit(75, BULK)
    with pytest.raises(EngineOverloaded):
        admission.admit(1, BULK)
    admission.admit(25, INTERACTIVE)
    with pytest.raises(RequestTooLarge):
        admission_of(100).admit(76, BULK)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.sampled_from(Priority))))
def test_the_limit_holds_and_everything_is_given_back(
    requests: list[tuple[int, Priority]],
) -> None:
    """Whatever comes, the queue stays within its limit and ends empty."""
    admission = admission_of(100)
    held = []
    for cost, priority in requests:
        try:
            admission.admit(cost, priority)
        except EngineOverloaded as refusal:
            assert refusal.retry_after_s > 0
        else:
            held.append((cost, priority))
        assert admission.queued_tokens == sum(cost for cost, _ in held) <= 100
    for cost, priority in held:
        admission.free(cost, priority)
    assert admission.queued_tokens == 0


def test_small_requests_are_looked_at_beside_a_giant() -> None:
    """One request that holds most of the queue shuts nobody out who fits beside it."""
    admission = admission_of(160)
    admission.admit(155, INTERACTIVE)
    admission.check_room(INTERACTIVE)
    admission.admit(5, INTERACTIVE)
    with pytest.raises(EngineOverloaded):
        admission.check_room(INTERACTIVE)
    admission.free(155, INTERACTIVE)
    admission.admit(75, INTERACTIVE)
    admission.admit(75, INTERACTIVE)
    with pytest.raises(EngineOverloaded):
        admission.check_room(INTERACTIVE)


def test_bulk_work_finds_its_own_part_full() -> None:
    """Interactive work is looked at while the part of bulk work has no room."""
    admission = admission_of(160)
    for _ in range(2):
        admission.admit(57, BULK)
    admission.check_room(INTERACTIVE)
    with pytest.raises(EngineOverloaded):
        admission.check_room(BULK)


@on_loop
async def test_what_waits_to_be_tokenized_has_a_bound_of_its_own() -> None:
    """One alone may be of any size; whatever ends a block gives back what it held."""
    admission = admission_of(100, tokens_per_s=5, max_untokenized=50)
    admission.admit(90, INTERACTIVE)
    async with admission.reserve(60, RequestOptions()):
        assert admission.queued_tokens == 150
        with pytest.raises(EngineOverloaded) as refusal:
            await admission.reserve(1, RequestOptions()).__aenter__()
    assert refusal.value.retry_after_s == pytest.approx(11 / 5)
    with pytest.raises(ZeroDivisionError):
        async with admission.reserve(10, RequestOptions()):
            raise ZeroDivisionError
    assert admission.queued_tokens == 90


def test_throughput_starts_at_the_documented_rate() -> None:
    """Before the first measurement a default stands in, and a zero duration measures nothing."""
    throughput = Throughput()
    throughput.observe(100, 0.0)
    assert throughput.tokens_per_s == DEFAULT_TOKENS_PER_S


def test_throughput_follows_the_model() -> None:
    """One measurement replaces the default, and later ones outweigh earlier ones."""
    throughput = Throughput()
    throughput.observe(100, 2.0)
    assert throughput.tokens_per_s == pytest.approx(50)
    for _ in range(100):
        throughput.observe(100, 0.5)
    assert throughput.tokens_per_s == pytest.approx(200, rel=0.01)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4096), st.floats(0.001, 10)), min_size=1))
def test_throughput_lies_between_the_slowest_and_the_fastest(
    forwards: list[tuple[int, float]],
) -> None:
    """The estimate is a weighted mean of what was seen."""
    throughput = Throughput()
    for tokens, seconds in forwards:
        throughput.observe(tokens, seconds)
    rates = [tokens / seconds for tokens, seconds in forwards]
    assert min(rates) * 0.999 <= throughput.tokens_per_s <= max(rates) * 1.001
