"""A score depends on its own token path and on nothing else: bitwise, on CPU.

Planner, cache and runner without a scheduler; ``test_invariance_mixes`` has all of it together.
``pytest --hypothesis-seed=N`` tries other paths.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoConfig

from model_runtime.kv_cache import PrefixCache
from model_runtime.types import LogprobQuery, LogprobResult
from tests.conftest import TinyFolder
from tests.crowd import seed_of
from tests.ledger import Ledger
from tests.offline import Offline
from tests.random_requests import EDGES
from tests.tiny_models import TINY_KINDS, TINY_VOCAB, save_tiny_model

LONGEST = 262
"""Past the last edge, where the model takes as many."""

SLOTS = 8000
"""Enough for all that a test here keeps; every slot is checked after every batch."""


@pytest.fixture
def seed(pytestconfig: pytest.Config) -> int:
    """Fixed, unless the command line names another."""
    return seed_of(pytestconfig)


@pytest.fixture(params=[1, 2, 7])
def threads(request: pytest.FixtureRequest) -> int:
    """torch's intra-op threads."""
    torch.set_num_threads(request.param)
    return int(request.param)


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    """Tests set torch's threads; put them back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def random_path(rng: random.Random, folder: Path) -> tuple[int, ...]:
    """As long as the model and ``LONGEST`` allow."""
    longest = min(LONGEST, AutoConfig.from_pretrained(folder).max_position_embeddings)
    return tuple(rng.randrange(TINY_VOCAB) for _ in range(longest))


def ask_all(tokens: tuple[int, ...], score_from: int, salt: str = "") -> LogprobQuery:
    """Every fact of every row, the one behind the path included."""
    return LogprobQuery(tokens, score_from, (0, 5), 3, -4.0, True, salt)


def enter(
    ledger: Ledger,
    offline: Offline,
    queries: Sequence[LogprobQuery],
    source: str,
    budget: int = 4096,
) -> None:
    """Answer queries together and take all facts down."""
    for query, result in zip(queries, offline.answer(queries, budget), strict=True):
        ledger.enter_score(query, result, source)


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_a_path_may_end_or_be_split_anywhere(kind: str, tiny_folder: TinyFolder, seed: int) -> None:
    """Whole path = its prefixes = split elsewhere = token by token, on and off all edges."""
    offline, ledger = Offline(tiny_folder(kind), slots=SLOTS), Ledger()
    path = random_path(random.Random(seed), tiny_folder(kind))
    edges = [edge for edge in EDGES if edge < len(path)]
    torch.set_num_threads(1)
    enter(ledger, offline, [ask_all(path, 1)], "whole path")
    for number, edge in enumerate(edges):
        torch.set_num_threads(1 + number % 2)
        prefix = ask_all(path[: edge + 1], max(1, edge - 3), f"prefix {edge}")
        enter(ledger, offline, [prefix], f"prefix of {edge + 1}")
    for length in sorted({length for edge in edges for length in (edge, edge + 1)}):
        step = ask_all(path[:length], length, "steps")
        enter(ledger, offline, [step], f"step to {length}")
    enter(ledger, offline, [ask_all(path, edge, "split") for edge in edges], "split")
    assert not ledger.conflicts, f"--hypothesis-seed={seed}: {ledger.conflicts[:3]}"
    assert ledger.confirmed > 20 * len(edges)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2"])
def test_token_by_token_equals_the_whole_path(kind: str, tiny_folder: TinyFolder) -> None:
    """A path fed one token a step from its start gives the bits of the path fed at once."""
    path = random_path(random.Random(11), tiny_folder(kind))[:140]
    (whole,) = Offline(tiny_folder(kind), slots=SLOTS).answer([ask_all(path, 1)])
    (stepped,) = Offline(tiny_folder(kind), slots=SLOTS).answer([ask_all(path, 1)], budget=1)
    assert whole == stepped


Visit = tuple[int, int, int, int]
"""Length of the path, asked rows, neighbours that leave it, tokens in a batch."""

VISITS = st.tuples(
    st.sampled_from(EDGES) | st.integers(1, LONGEST),
    st.integers(0, 40),
    st.integers(0, 9),
    st.sampled_from((17, 64, 300, 4096)),
)


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_a_row_is_the_same_however_it_is_reached(
    kind: str, tiny_folder: TinyFolder, seed: int
) -> None:
    """Any walk over the cuts and forks of a path, in a cache that forgets, finds the same facts."""
    offline, known = Offline(tiny_folder(kind), slots=SLOTS), Ledger()
    path = random_path(random.Random(seed), tiny_folder(kind))
    enter(known, offline, [ask_all(path, 1, "known")], "whole path")

    def queries(length: int, back: int, neighbours: int) -> list[LogprobQuery]:
        stem = path[:length]
        forks = [(*stem[: max(1, length - 3 * i)], *path[i + 1 : i + 6]) for i in range(neighbours)]
        return [ask_all(tokens, max(1, len(tokens) - back)) for tokens in (stem, *forks)]

    @hypothesis.seed(seed)
    @settings(
        max_examples=6,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example],
    )
    @given(st.lists(VISITS, min_size=2, max_size=5), st.sampled_from((1, 2)))
    def walk(visits: list[Visit], threads: int) -> None:
        torch.set_num_threads(threads)
        offline.cache = PrefixCache(LONGEST + 80)
        ledger = known.copy()
        for length, back, neighbours, budget in visits:
            asked = [
                query
                for query in queries(min(length, len(path)), back, neighbours)
                if len(query.tokens) <= len(path)
            ]
            enter(ledger, offline, asked, f"{length, back, neighbours, budget}", budget)
        assert not ledger.conflicts, ledger.conflicts[:3]

    walk()


def crowded(rng: random.Random, longest: int) -> list[LogprobQuery]:
    """Candidates behind a few contexts that share prefixes, at lengths on and off blocks."""
    trunk = tuple(rng.randrange(TINY_VOCAB) for _ in range(longest))
    queries = []
    for _ in range(14):
        cut = min(rng.choice([1, 5, 127, 128, 129, 200, 256, 300]), longest - 40)
        tail = tuple(rng.randrange(TINY_VOCAB) for _ in range(rng.randint(1, 30)))
        queries.append(ask_all(trunk[:cut] + tail, rng.choice([cut, max(1, cut - 3)])))
    return queries


def alone(folder: Path, queries: list[LogprobQuery]) -> list[LogprobResult]:
    """Each query by itself in a part of the cache of its own, in one whole batch."""
    offline = Offline(folder, slots=SLOTS)
    return [
        offline.answer([replace(query, cache_salt=f"alone {number}")])[0]
        for number, query in enumerate(queries)
    ]


def test_bits_do_not_depend_on_company(tiny_folder: TinyFolder, threads: int) -> None:
    """Alone, merged, reordered, chunked, cached and after evictions, all bits are the same."""
    folder, rng = tiny_folder("llama"), random.Random(threads)
    queries = crowded(rng, 340)
    want = alone(folder, queries)
    merged = 0
    for budget, slots in ((4096, SLOTS), (53, SLOTS), (9, 400), (4096, 400)):
        offline = Offline(folder, slots=slots)
        for _ in range(2):
            order = rng.sample(range(len(queries)), len(queries))
            got = offline.answer([queries[i] for i in order], budget)
            assert [want[i] for i in order] == got
        merged += sum(len(batch.extents) > 1 for batch in offline.batches)
    assert merged >= 20, "too few batches held several queries for this to mean anything"


def test_a_ragged_width_changes_no_bit(tmp_path: Path, threads: int) -> None:
    """Layers whose width is no multiple of a vector give the same bits in any company."""
    folder = save_tiny_model("llama", tmp_path, intermediate_size=100)
    queries = crowded(random.Random(7), 200)
    assert Offline(folder).answer(queries) == alone(folder, queries)
