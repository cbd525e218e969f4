"""Small work runs on one thread, and the count is as before afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from model_runtime.batching.batch import Batch, KeySpan
from model_runtime.kernels.threads import FEW_ROWS, SMALL_BATCH, SMALL_KEYS, ThreadLimiter


def batch_of(rows: int, keys: int = 1) -> Batch:
    """As many paths as rows, each with so many keys."""
    spans = tuple(KeySpan(0, (0,) * keys, (range(row, row + 1),)) for row in range(rows))
    each, none = (0,) * rows, ()
    return Batch(each, each, each, spans, none, none, none, none, none, none, none, none)


@pytest.fixture(params=[1, 2, 5])
def count(request: pytest.FixtureRequest) -> Iterator[int]:
    """torch's intra-op threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_small_batches_run_on_one_thread(count: int) -> None:
    """All threads are there for a large batch, and again after a small one."""
    threads = ThreadLimiter()
    with threads.for_batch(batch_of(SMALL_BATCH)):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == count
    with threads.for_batch(batch_of(SMALL_BATCH + 1)):
        assert torch.get_num_threads() == count


def test_products_of_some_rows_wake_all_threads(count: int) -> None:
    """One of two threads does a product of few rows; of more threads all do."""
    threads = ThreadLimiter()
    with threads.for_batch(batch_of(SMALL_BATCH)):
        with threads.for_product(FEW_ROWS + 1):
            assert torch.get_num_threads() == count
        assert torch.get_num_threads() == 1
        with threads.for_product(FEW_ROWS):
            assert torch.get_num_threads() == (1 if count == 2 else count)
        assert torch.get_num_threads() == 1
    with threads.for_product(FEW_ROWS):
        assert torch.get_num_threads() == count


def test_a_batch_over_many_keys_is_not_small(count: int) -> None:
    """Attention to that many keys is worth all threads, however few the rows."""
    with ThreadLimiter().for_batch(batch_of(2, SMALL_KEYS // 2)):
        assert torch.get_num_threads() == 1
    with ThreadLimiter().for_batch(batch_of(2, SMALL_KEYS // 2 + 1)):
        assert torch.get_num_threads() == count


def test_a_failed_forward_leaves_the_threads_as_they_were(count: int) -> None:
    """Whatever is raised inside."""
    threads = ThreadLimiter()
    with pytest.raises(KeyError), threads.for_batch(batch_of(1)), threads.for_product(SMALL_BATCH):
        raise KeyError
    assert torch.get_num_threads() == count
    with threads.for_product(1):
        assert torch.get_num_threads() == count
