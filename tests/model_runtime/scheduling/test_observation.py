"""Observers hear of the forwards of their own requests, in plain numbers."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from model_runtime.batching.trie import fed_tokens
from model_runtime.decoding.base import SingleRound
from model_runtime.errors import ForwardFailed
from model_runtime.scheduling.request import EngineRequest
from model_runtime.types import ForwardRun, LogprobQuery, RequestOptions, RequestOutput
from tests.model_runtime.fake_model import FakeModel, ask, paths
from tests.model_runtime.scheduling.test_batcher import Bench


@dataclass
class Observer:
    """Remembers what it was told."""

    told: list[tuple[ForwardRun, int, float | None]] = field(default_factory=list)

    def forward_ended(self, forward: ForwardRun, tokens: int, queue_s: float | None) -> None:
        """Remember it."""
        self.told.append((forward, tokens, queue_s))


def submit(bench: Bench, query: LogprobQuery, observer: Observer | None) -> EngineRequest:
    search = SingleRound((query,), cost=fed_tokens([query]))
    job = EngineRequest(search, RequestOptions(observer=observer), bench.now)
    bench.batcher.admit(job)
    return job


def test_whoever_shares_a_forward_is_told_of_the_same_one() -> None:
    """With its own tokens, and the time that it has waited."""
    bench, first, second = Bench(), Observer(), Observer()
    bench.model.on_run = lambda _batch: setattr(bench, "now", bench.now + 2.0)
    submit(bench, ask(1, 2, 3), first)
    bench.now = 5.0
    submit(bench, ask(4, 5, 6, 7), second)
    submit(bench, ask(8, 9), None)
    before = time.time_ns()
    bench.finish()
    after = time.time_ns()
    ((forward, own, waited),) = first.told
    ((other, others_own, others_waited),) = second.told
    assert other is forward
    assert (own, others_own) == (2, 3)
    assert (waited, others_waited) == (5.0, 0.0)
    assert (forward.tokens, forward.requests, forward.observed) == (6, 3, 2)
    assert forward.error is None
    assert before <= forward.ended_ns <= after
    assert forward.ended_ns - forward.began_ns == 2_000_000_000


def test_a_request_in_several_forwards_has_waited_for_the_first() -> None:
    """It is told of each of them."""
    bench, observer = Bench(budget=4), Observer()
    submit(bench, ask(*range(1, 12)), observer)
    bench.finish()
    assert [own for _, own, _ in observer.told] == [4, 4, 2]
    assert [waited for _, _, waited in observer.told] == [0.0, None, None]
    assert len({id(forward) for forward, _, _ in observer.told}) == 3


def test_a_forward_that_fails_is_told_by_the_name_of_its_error() -> None:
    """What it held is run again apart; the culprit hears of two failures, others of one."""

    def poisoned(batch: object) -> None:
        if any(path[0] == 1 for path in paths(batch)):  # type: ignore[arg-type]
            raise ValueError("a prompt may stand here")

    bench, culprit, other = Bench(model=FakeModel(poisoned)), Observer(), Observer()
    ill, well = submit(bench, ask(1, 2), culprit), submit(bench, ask(3, 4), other)
    bench.finish()
    assert isinstance(bench.ends[ill], ForwardFailed)
    assert isinstance(bench.ends[well], RequestOutput)
    assert [run.error for run, _, _ in culprit.told] == ["ValueError", "ValueError"]
    assert [run.error for run, _, _ in other.told] == ["ValueError", None]
    assert [waited for _, _, waited in other.told] == [0.0, None]


def test_nobody_is_told_where_nobody_observes() -> None:
    """Neither is the time looked at."""
    bench = Bench()
    job = submit(bench, ask(1, 2), None)
    bench.finish()
    assert isinstance(bench.ends[job], RequestOutput)
    assert not job.was_held
