"""Arrivals and bodies: random, reproducible, shared out over processes."""

from __future__ import annotations

import itertools
import json
import pickle
import statistics

from app.cli.bench.load import Load
from app.cli.bench.workload import Workload


def dues(load: Load, process: int = 0) -> list[float]:
    return [due for due, _ in load.arrivals(process)]


def bodies(load: Load, process: int = 0, count: int = 8) -> list[bytes]:
    return [body for _, body in itertools.islice(load.arrivals(process), count)]


FAST = Load(url="http://far/v1/next_token", shape="next", workload=Workload(context_tokens=1))


def with_rate(rate: float, **changes: object) -> Load:
    return Load(
        **{"url": FAST.url, "shape": "next", "workload": FAST.workload, "rate": rate, **changes}  # type: ignore[arg-type]
    )


def test_gaps_are_exponential() -> None:
    """Their mean is one over the rate and their deviation as large: arrivals know no rhythm."""
    times = dues(with_rate(500.0))
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert 0.9 < 500 * statistics.mean(gaps) < 1.1
    assert 0.85 < 500 * statistics.stdev(gaps) < 1.15


def test_arrivals_fill_warm_up_and_duration() -> None:
    """They ascend, and none is due behind the end."""
    load = with_rate(50.0, warmup_s=2.0, duration_s=3.0)
    times = dues(load)
    assert times == sorted(times)
    assert 4.5 < times[-1] < load.end_s == 5.0


def test_processes_share_the_rate() -> None:
    """Together they send as many as one would, at times of their own."""
    load = with_rate(400.0, processes=4)
    shares = [dues(load, process) for process in range(4)]
    assert all(800 < len(share) < 1200 for share in shares)
    assert len({share[0] for share in shares}) == 4


def test_processes_share_the_connections() -> None:
    """No more than asked for over all of them, where each gets at least one."""
    load = with_rate(1.0, processes=3, connections=8)
    assert [load.share(process) for process in range(3)] == [3, 3, 2]
    assert with_rate(1.0, processes=3, connections=1).share(2) == 1


def test_the_seed_decides_everything() -> None:
    """The same load twice is the same load; another seed is another."""
    assert list(with_rate(9.0).arrivals(0)) == list(with_rate(9.0).arrivals(0))
    assert list(with_rate(9.0).arrivals(0)) != list(with_rate(9.0, seed=1).arrivals(0))


def test_given_bodies_are_sent_in_turn() -> None:
    """Over and over, each process its own part of the round."""
    load = with_rate(50.0, bodies=(b"0", b"1", b"2"), processes=2)
    assert bodies(load, 0, 4) == [b"0", b"2", b"1", b"0"]
    assert bodies(load, 1, 4) == [b"1", b"0", b"2", b"1"]


def test_contexts_are_new_or_of_a_few() -> None:
    """0 makes every one new; a number makes all processes draw from the same so many."""
    for contexts, least, most in ((0, 60, 60), (3, 1, 3)):
        workload = Workload(context_tokens=20, contexts=contexts)
        load = with_rate(50.0, workload=workload, processes=2)
        found = {
            json.loads(body)["context"]
            for process in range(2)
            for body in bodies(load, process, 30)
        }
        assert least <= len(found) <= most


def test_a_load_reaches_another_process() -> None:
    """It is the same there."""
    assert pickle.loads(pickle.dumps(FAST)) == FAST
