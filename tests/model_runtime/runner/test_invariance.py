"""A score depends on its own token path and on nothing else: bitwise, on CPU.

Planner, cache and runner without a scheduler; ``test_invariance_mixes`` has all of it together.
``pytest --hypothesis-seed=N`` tries other paths.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import hypothesis
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoConfig

from model_runtime.kv_cache.prefix_cache import PrefixCache
from model_runtime.types import LogprobQuery
from tests.batch_invariance import SLOTS, alone, ask_all, changed_by_crowd, crowded
from tests.conftest import TinyFolder
from tests.crowd import seed_of
from tests.ledger import Ledger
from tests.offline import Offline
from tests.random_requests import EDGES
from tests.tiny_models import TINY_KINDS, TINY_VOCAB, save_tiny_model

LONGEST = 262
"""Past the last edge, where the model takes as many."""

GEMMA_3: dict[str, object] = {
    "hidden_size": 640,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 96,
    "layer_types": ["sliding_attention", "full_attention"],
    "max_position_embeddings": 2048,
}
"""Of the size of Gemma 3's layers."""


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


def test_bits_do_not_depend_on_company(tiny_folder: TinyFolder, threads: int) -> None:
    """Alone, merged, reordered, chunked, cached and after evictions, all bits are the same."""
    rng = random.Random(threads)
    assert changed_by_crowd(tiny_folder("llama"), crowded(rng, 340), rng) == []


def test_a_ragged_width_changes_no_bit(tmp_path: Path, threads: int) -> None:
    """Layers whose width is no multiple of a vector give the same bits in any crowd."""
    folder = save_tiny_model("llama", tmp_path, intermediate_size=100)
    queries = crowded(random.Random(7), 200)
    assert Offline(folder).answer(queries) == alone(folder, queries)


# Heads as wide as those of real models; the tiny models' are not.

WIDTHS = (64, 80, 96, 112, 128, 160, 192, 256, 512)


@pytest.mark.parametrize(
    ("kind", "kv_heads", "width"),
    [
        *(("llama", 2, width) for width in WIDTHS),
        *(("gemma2", 1, width) for width in WIDTHS),
        *(("llama", 1, 256), ("gemma2", 2, 256)),
    ],
)
def test_heads_of_any_real_width_change_no_bit(
    kind: str, kv_heads: int, width: int, tmp_path: Path
) -> None:
    """With capped scores and without, with one key head and two, behind 1,100 tokens as well."""
    shape: dict[str, object] = {
        "head_dim": width,
        "num_key_value_heads": kv_heads,
        "num_hidden_layers": 1,
        "max_position_embeddings": 2048,
    }
    if kind == "gemma2":
        shape |= {"layer_types": ["full_attention"], "query_pre_attn_scalar": width}
    folder = save_tiny_model(kind, tmp_path, **shape)
    rng = random.Random(width)
    torch.set_num_threads(2)
    trunk = tuple(rng.randrange(TINY_VOCAB) for _ in range(1200))
    far = [ask_all((*trunk[:1150], *trunk[i : i + 5]), 1150) for i in range(12)]
    queries = [*crowded(rng, 340, 8), *far, ask_all(trunk, 1190)]
    want = alone(folder, queries)
    for budget, threads in ((4096, 2), (301, 1)):
        torch.set_num_threads(threads)
        offline = Offline(folder, slots=SLOTS)
        for visit in ("new", "cached"):
            assert offline.answer(queries, budget) == want, (visit, budget)


def test_a_model_of_gemmas_shape_changes_no_bit(tmp_path: Path, threads: int) -> None:
    """Heads of 256 behind one key head, windows across blocks: as a real Gemma 3 has them."""
    folder = save_tiny_model("gemma3", tmp_path, **GEMMA_3)
    rng = random.Random(threads)
    assert changed_by_crowd(folder, crowded(rng, 340), rng) == []


def test_gemmas_shape_scores_alike_by_every_way(tmp_path: Path) -> None:
    """An echo of a path is, row by row, what the next token of each of its prefixes is."""
    folder = save_tiny_model("gemma3", tmp_path, **GEMMA_3)
    path = tuple(random.Random(3).randrange(TINY_VOCAB) for _ in range(140))
    (whole,) = Offline(folder, slots=SLOTS).answer([ask_all(path, 1)])
    stepped = Offline(folder, slots=SLOTS)
    for length in range(1, len(path)):
        target = path[length]
        (row,) = stepped.answer([LogprobQuery(path[:length], length, (target,))])
        assert row.target_logprobs == (whole.logprobs[length - 1],), length
