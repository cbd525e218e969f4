"""What the benchmarks measure with: workloads, arrivals, percentiles, floors. Nothing is timed."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import pairwise

import pytest

from benchmarks import coalescing, groups, open_loop, workloads
from benchmarks.agreement import check_equal, check_same
from benchmarks.arrivals import Arrival, Reply, poisson
from benchmarks.greedy import floor_tokens_per_s
from benchmarks.mix import Mix
from benchmarks.table import Table
from benchmarks.timing import alternate, percentile
from benchmarks.workloads import BODY_GFLOP, HEAD_GFLOP, KEY_GFLOP, Group
from model_runtime.batching.trie import fed_tokens


def test_ranking_is_what_it_is_called() -> None:
    """R has 32 candidates of 12 to 20 tokens, 16 in the mean, and other ids for another seed."""
    (group,) = workloads.ranking(255)
    lengths = [len(candidate) for candidate in group.candidates]
    assert len(group.context) == 255
    assert (len(lengths), min(lengths), max(lengths)) == (32, 12, 20)
    assert sum(lengths) / len(lengths) == pytest.approx(16, abs=0.5)
    assert workloads.ranking(255) == [group] != workloads.ranking(255, seed=2)


def test_long_context_stays_within_its_vocabulary() -> None:
    """4,096 tokens and 100 candidates of 16, whose ids reach over the given vocabulary."""
    group = workloads.long_context(262_144)
    ids = {*group.context, *(i for candidate in group.candidates for i in candidate)}
    assert len(group.context) == 4096
    assert [len(candidate) for candidate in group.candidates] == [16] * 100
    assert workloads.VOCAB_SIZE < max(ids) < 262_144


def test_no_two_clients_send_the_same() -> None:
    """Every request of the coalescing benchmark is another one, within a run and across runs."""
    runs = [workloads.single_candidates(4, 8, seed) for seed in (1, 2)]
    bodies = [body for run in runs for body in coalescing.bodies(run)]
    assert len(set(bodies)) == len(bodies) == 64


def test_work_counts_every_distinct_token_once() -> None:
    """A group's products are those of the tokens that must be fed, and of the asked rows."""
    group = Group((1, 2, 3), ((4, 5), (6, 7, 8)))
    fed = fed_tokens(group.queries(""))
    assert group.gflop == pytest.approx(fed * BODY_GFLOP + 4 * HEAD_GFLOP)
    assert group.candidate_gflop == pytest.approx((fed - 2) * BODY_GFLOP + 4 * HEAD_GFLOP)


def test_attention_work_counts_the_keys_of_every_fed_token() -> None:
    """Each fed token attends to itself and to all before it on its own path."""
    group = Group((1, 2, 3), ((4, 5), (6, 7, 8)))
    keys = (1 + 2 + 3) + 4 + (4 + 5)
    assert group.attention_gflop == pytest.approx(keys * KEY_GFLOP)


def test_distinct_tokens_are_those_the_trie_holds() -> None:
    """The count that the groups benchmark insists on is the runtime's own."""
    made = workloads.shared_prefixes(3, 4, shared=5, own=2, seed=1)
    prompts = [prompt for group in made for prompt in group.prompts]
    queries = [workloads.LogprobQuery(prompt, len(prompt), ()) for prompt in prompts]
    assert groups.distinct_tokens(prompts) == fed_tokens(queries) == 3 * (5 + 4 * 2)
    assert groups.distinct_tokens([(1, 2), (1, 2), (1, 3)]) == 3


@pytest.mark.parametrize(("share", "sample"), [(0.0, 1), (0.5, 5), (0.9, 9), (0.95, 10), (1, 10)])
def test_a_percentile_is_a_sample(share: float, sample: int) -> None:
    """Nearest rank: the smallest sample that so many do not exceed."""
    assert percentile(list(range(10, 0, -1)), share) == sample


def test_sides_take_turns() -> None:
    """One warm-up run each unless it is declined, then run by run."""
    calls: list[str] = []
    sides = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = alternate(sides, 2)
    assert calls == ["a", "b"] * 3
    assert [len(seconds[name]) for name in sides] == [2, 2]
    alternate(sides, 1, warm_up=False)
    assert calls == ["a", "b"] * 4


def test_arrivals_have_the_rate_and_the_randomness() -> None:
    """Times ascend within the window, as many as the rate says, their gaps exponential."""
    times = poisson(random.Random(1), rate=50.0, seconds=100.0)
    gaps = [b - a for a, b in pairwise(times)]
    assert times == sorted(times)
    assert 0 < times[0] < times[-1] < 100
    assert len(times) == pytest.approx(5000, rel=0.05)
    assert sum(gap > 0.02 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.03)


def test_the_mix_has_its_shares() -> None:
    """Kinds arrive as often as they should, and their shares are the whole."""
    mix = Mix(1)
    kinds = mix.kinds()
    seen = Counter(arrival.kind for arrival in mix.arrivals([0.0] * 1000))
    assert sum(share for share, _, _ in kinds.values()) == pytest.approx(1)
    for name, (share, _, _) in kinds.items():
        assert seen[name] / 1000 == pytest.approx(share, abs=0.05)


def test_the_mix_repeats_contexts_and_nothing_else() -> None:
    """Short scores share a few contexts, and no candidate is sent twice."""
    (kind, *_) = Mix(1).kinds()
    mix = Mix(1)
    bodies = [json.loads(mix.arrival(kind, 0.0).body) for _ in range(40)]
    contexts = {tuple(body["context"]) for body in bodies}
    candidates = [tuple(c) for body in bodies for c in body["candidates"]]
    visited = {tuple(json.loads(visit.body)["context"]) for visit in mix.first_visits()}
    assert contexts <= visited
    assert len(set(candidates)) == len(candidates) == 160


def test_goodput_counts_what_came_in_time() -> None:
    """In time is answered, and from when it was due, not from when a late client sent it."""
    replies = [
        Reply("a", due_s=0.0, sent_s=0.0, done_s=1.0, status=200, content=b""),
        Reply("a", due_s=0.0, sent_s=5.0, done_s=6.0, status=200, content=b""),
        Reply("a", due_s=0.0, sent_s=0.0, done_s=0.1, status=429, content=b""),
    ]
    assert open_loop.in_time(replies, {"a": 1.0}) == 1
    assert [reply.service_s for reply in replies] == pytest.approx([1.0, 1.0, 0.1])


def test_the_floor_is_the_slower_of_reading_and_computing() -> None:
    """One sequence waits for the weights; very many wait for the products."""
    one = floor_tokens_per_s(1, weights=500, kv=0.0, bytes_per_s=1000.0, gflop_per_s=1e9)
    many = floor_tokens_per_s(10, weights=1, kv=0.0, bytes_per_s=1e9, gflop_per_s=1.0)
    cached = floor_tokens_per_s(2, weights=500, kv=250.0, bytes_per_s=1000.0, gflop_per_s=1e9)
    assert one == pytest.approx(2.0)
    assert many == pytest.approx(1 / (BODY_GFLOP + HEAD_GFLOP))
    assert cached == pytest.approx(2.0)


def test_sides_that_differ_are_not_compared() -> None:
    """A benchmark ends where the two sides have not computed the same, or a number is none."""
    assert check_equal([1.0, 2.0], [1.0, 2.0005]) == pytest.approx(5e-4)
    with pytest.raises(SystemExit, match="differ by"):
        check_equal([1.0], [1.1])
    with pytest.raises(SystemExit, match="differ by"):
        check_equal([1.0, 1.0], [1.0, float("nan")])
    with pytest.raises(SystemExit, match="in the tokens"):
        check_same("the tokens", [1], [2])


def test_a_table_is_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    """A title that names the threads, headings, a rule, rows; a short row is refused."""
    table = Table("Title", "a", "b")
    table.row("1", "2")
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0].startswith("Title; ")
    assert lines[0].endswith(" threads")
    assert lines[2:] == ["| a | b |", "| --- | --- |", "| 1 | 2 |"]
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        table.row("1")


def test_an_arrival_carries_its_request() -> None:
    """What a client sends is made before the clock runs."""
    arrival = Mix(2).arrival("greedy, 16 tokens", 1.5)
    assert isinstance(arrival, Arrival)
    body = json.loads(arrival.body)
    assert (arrival.due_s, arrival.path) == (1.5, "/v1/decode")
    assert (len(body["context"]), body["max_tokens"], body["ignore_eos"]) == (256, 16, True)
