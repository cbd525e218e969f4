"""A score depends on its own token path and on nothing else: bitwise, on CPU."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from model_runtime.types import LogprobQuery, LogprobResult
from tests.conftest import TinyFolder
from tests.offline import Offline
from tests.tiny_models import TINY_KINDS, TINY_VOCAB, save_tiny_model


@pytest.fixture(params=[1, 2, 7])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """torch's intra-op threads, put back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def random_queries(rng: random.Random, longest: int, vocab: int) -> list[LogprobQuery]:
    """Candidates behind a few contexts that share prefixes, at lengths on and off blocks."""
    trunk = [rng.randrange(vocab) for _ in range(longest)]
    queries = []
    for _ in range(14):
        cut = min(rng.choice([1, 5, 127, 128, 129, 200, 256, 300]), longest - 40)
        tail = [rng.randrange(vocab) for _ in range(rng.randint(1, 30))]
        start = rng.choice([cut, max(1, cut - 3)])
        queries.append(LogprobQuery((*trunk[:cut], *tail), start, (0, 5), 3, None, True))
    return queries


def alone(folder: Path, queries: list[LogprobQuery]) -> list[LogprobResult]:
    """Each query by itself in a fresh cache, in one whole batch."""
    offline = Offline(folder)
    results = []
    for number, query in enumerate(queries):
        salted = LogprobQuery(
            query.tokens, query.score_from, query.targets, query.top_k, None, True, f"s{number}"
        )
        results += offline.answer([salted])
    return results


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_bits_do_not_depend_on_company(kind: str, tiny_folder: TinyFolder, threads: int) -> None:
    """Alone, merged, reordered, chunked, cached and after evictions, all bits are the same."""
    rng = random.Random(f"{kind}{threads}")
    longest = 120 if kind == "gpt2" else 340
    queries = random_queries(rng, longest, TINY_VOCAB)
    want = alone(tiny_folder(kind), queries)
    merged = 0
    for budget, slots in ((4096, 4000), (53, 4000), (9, 400), (4096, 400)):
        offline = Offline(tiny_folder(kind), slots=slots)
        for _ in range(2):
            order = rng.sample(range(len(queries)), len(queries))
            got = offline.answer([queries[i] for i in order], budget)
            assert [want[i] for i in order] == got
        merged += sum(len(batch.extents) > 1 for batch in offline.batches)
    assert merged >= 20, "too few batches held several queries for this to mean anything"


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_token_by_token_equals_the_whole_path(kind: str, tiny_folder: TinyFolder) -> None:
    """A path fed one token a step gives the bits of the path fed at once."""
    rng = random.Random(11)
    length = 125 if kind == "gpt2" else 140
    path = tuple(rng.randrange(TINY_VOCAB) for _ in range(length))
    (whole,) = Offline(tiny_folder(kind)).answer([LogprobQuery(path, 1)])
    (stepped,) = Offline(tiny_folder(kind)).answer([LogprobQuery(path, 1)], budget=1)
    assert whole == stepped


def test_a_ragged_width_changes_no_bit(tmp_path: Path, threads: int) -> None:
    """Layers whose width is no multiple of a vector give the same bits in any company."""
    folder = save_tiny_model("llama", tmp_path, intermediate_size=100)
    queries = random_queries(random.Random(7), 200, TINY_VOCAB)
    assert Offline(folder).answer(queries) == alone(folder, queries)


@pytest.mark.real_model
def test_the_real_model_is_invariant(real_folder: Path, threads: int) -> None:
    """The default model's bits are the same alone, in a crowd, chunked and cached."""
    rng = random.Random(threads)
    queries = random_queries(rng, 340, 49_152)[:6]
    offline = Offline(real_folder, kv_bytes=128 << 20)
    crowd = offline.answer(queries)
    assert offline.answer(queries[::-1], 61) == crowd[::-1]
    salted = [
        LogprobQuery(q.tokens, q.score_from, q.targets, q.top_k, None, True, f"s{i}")
        for i, q in enumerate(queries)
    ]
    assert [offline.answer([query])[0] for query in salted] == crowd
