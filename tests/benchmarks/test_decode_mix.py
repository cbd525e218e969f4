"""Decodes beside a scoring stream, on a tiny model. Nothing is timed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.decode_mix import Bench, Decoded, Load, Shared, measure, report, step_cells
from benchmarks.in_process import InProcess
from tests.conftest import TinyFolder

SMALL = Load(decodes=3, prompt=12, new=5, in_flight=2, scored=3, context=10, candidates=2)


@pytest.fixture(scope="module")
def ours(tiny_folder: TinyFolder) -> Iterator[InProcess]:
    """An engine of small memory."""
    settings = {"model": str(tiny_folder("llama")), "kv_cache_bytes": 8 << 20}
    with InProcess(**settings, max_batch_tokens=64) as engine:
        yield engine


def test_the_decodes_run_beside_the_stream(ours: InProcess) -> None:
    """Every decode makes its tokens in both runs, and the stream is fed in between."""
    (alone,), (scored,), (shared,) = measure(Bench(ours, SMALL), runs=1)
    for decoded in (alone, shared.decoded):
        assert [len(ids) for ids in decoded.completions] == [5] * 3
        assert len(decoded.steps) == 3 * 4
        assert min(decoded.steps) > 0
        assert decoded.computed_tokens == 3 * 5
    assert scored > 0
    assert shared.scored_per_s > 0
    assert ours.engine.stats().shared_batches > 0


def test_no_scoring_request_stays_behind(ours: InProcess) -> None:
    """When the decodes are done the stream ends, and with it all that is in the queue."""
    Bench(ours, SMALL).together()
    assert ours.engine.stats().queued_requests == 0


def test_a_step_is_starved_beyond_the_limit() -> None:
    """One step above it is a failure, one that lies on it is not."""
    steps = [0.001 * n for n in range(1, 101)]
    assert step_cells(steps, limit=0.1) == ["100", "50", "95", "100", "0.0%", "pass"]
    assert step_cells(steps, limit=0.099) == ["100", "50", "95", "100", "1.0%", "FAIL"]


def test_shares_are_rates_together_over_rates_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """Half the tokens a second of either kind add up to the whole; steps of twice solo pass."""
    alone = Decoded([(1, 2, 3, 4)], 4, seconds=2.0, steps=[0.5, 0.5, 0.5])
    slower = Decoded([(1, 2, 3, 4)], 4, seconds=4.0, steps=[1.0, 1.0, 1.0])
    report([alone], [100.0], [Shared(slower, 50.0)], "title")
    out = capsys.readouterr().out
    assert "| greedy | 2.0 | 1.0 | 50% |" in out
    assert "| scoring | 100.0 | 50.0 | 50% |" in out
    assert "| sum |  |  | 100% |" in out
    assert "starved beyond 1000" in out
    assert "| together | 3 | 1000 | 1000 | 1000 | 0.0% | pass |" in out
