"""Requests get in any crowd the bits that they get alone, through the whole engine.

``pytest --hypothesis-seed=N`` asks other requests in other orders; a failure names its seed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from model_runtime.batching.batch import Batch, BatchOutput
from model_runtime.config import EngineConfig
from model_runtime.loading.loader import LoadedModel, load_model
from model_runtime.native.library import NOT_BUILT
from tests.conftest import TinyFolder
from tests.crowd import Crowd, Dtype, Mix, SeenForward, seed_of, watch_forwards
from tests.tiny_models import TINY_KINDS

MIXES = (
    Mix(4096, None, threads=1, rounds=2),
    Mix(61, None, threads=2),
    Mix(300, 320, threads=2, rounds=2),
)
"""Whole and warm; chunked; a cache that holds little more than one path."""

DTYPES = (
    "float32",
    pytest.param(
        "bfloat16",
        marks=pytest.mark.skipif(
            not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
            reason="this CPU has no bfloat16 products",
        ),
    ),
)


@pytest.fixture
def seed(pytestconfig: pytest.Config) -> int:
    """Fixed, unless the command line names another."""
    return seed_of(pytestconfig)


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    """Engines set torch's threads; put them back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tally(pytestconfig: pytest.Config) -> Iterator[Counter[str]]:
    """Counts over the tests here, on the terminal at the end, captured or not."""
    counts: Counter[str] = Counter()
    yield counts
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    terminal = pytestconfig.pluginmanager.getplugin("terminalreporter")
    with capture.global_and_fixture_disabled():
        terminal.write_line("\n" + ", ".join(f"{count} {what}" for what, count in counts.items()))


def check(
    crowd: Crowd, seen: Sequence[SeenForward], tally: Counter[str], shared: int, mixed: int
) -> None:
    """No fact was told with two kinds of bits, and enough was told in a crowd to mean that.

    Where no layout of bfloat16 products keeps bits, the engine must have said that it does not.

    Args:
        shared: forwards of crowds that must have held several requests.
        mixed: forwards that must have held steps of searches beside scoring.
    """
    counts = {
        "forwards of crowds": crowd.batches,
        "shared by several requests": crowd.shared_batches,
        "requests in these forwards": crowd.batch_requests,
        "forwards with search steps beside scoring": sum(forward.mixed for forward in seen),
        "facts confirmed": crowd.ledger.confirmed,
    }
    tally.update(counts)
    assert crowd.batch_invariant or crowd.dtype == "bfloat16"
    assert not crowd.batch_invariant or not crowd.ledger.conflicts, crowd.report(seen)
    assert {forward.threads for forward in seen} == {1, 2}
    assert counts["shared by several requests"] >= shared, counts
    assert counts["forwards with search steps beside scoring"] >= mixed, counts


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", TINY_KINDS)
def test_a_crowd_changes_no_bit(
    kind: str,
    dtype: Dtype,
    tiny_folder: TinyFolder,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    tally: Counter[str],
) -> None:
    """Scores and searches are told the same bits alone and in crowds, chunked, warm, evicted."""
    seen = watch_forwards(monkeypatch)
    crowd = Crowd(tiny_folder(kind), seed, dtype=dtype)
    crowd.run(*MIXES)
    check(crowd, seen, tally, shared=20, mixed=8)  # usual are 30 to 60, and 12 to 35


@pytest.mark.real_model
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_crowd_changes_no_bit_of_the_default_model(
    dtype: Dtype,
    real_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    tally: Counter[str],
) -> None:
    """The default model, thirty layers deep, tells the same bits alone and in crowds."""
    seen = watch_forwards(monkeypatch)
    crowd = Crowd(real_folder, seed, count=6, dtype=dtype, longest=170)
    crowd.run(Mix(4096, None, threads=2), Mix(61, 240, threads=1))
    check(crowd, seen, tally, shared=10, mixed=4)  # usual are 20, and 10


# The test must be able to fail.

Condition = Callable[[Batch], bool]

CONDITIONS: Mapping[str, Condition] = {
    "crowd": lambda batch: len(batch.query_slices) > 1,
    "chunks": lambda batch: not all(query_slice.complete for query_slice in batch.query_slices),
    "threads": lambda batch: torch.get_num_threads() == 2,
    "cached context": lambda batch: len(batch.token_ids) < batch.query_slices[0].query.score_from,
    "many rows": lambda batch: len(batch.token_ids) > 200,
}


def lower(value: float) -> float:
    """The next smaller float."""
    return math.nextafter(value, -math.inf)


def falsified(output: BatchOutput, field: str) -> BatchOutput:
    """An output whose ``field`` is off by the least possible."""
    changes: dict[str, Callable[[Any], Any]] = {
        "logprobs": lambda values: [lower(value) for value in values],
        "ranks": lambda values: [rank + 1 for rank in values],
        "entropies": lambda rows: {row: lower(value) for row, value in rows.items()},
        "top": lambda rows: {row: (*top[1::-1], *top[2:]) for row, top in rows.items()},
        "log_partitions": lambda rows: {row: lower(value) for row, value in rows.items()},
        "log_sums": lambda rows: {row: lower(value) for row, value in rows.items()},
    }
    return replace(output, **{field: changes[field](getattr(output, field))})


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_last_bit_that_depends_on_more_than_the_path_is_noticed(
    condition: str, tiny_folder: TinyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log-probabilities that are one bit off in certain forwards are conflicts."""

    def fault(batch: Batch, output: BatchOutput) -> BatchOutput:
        return falsified(output, "logprobs") if CONDITIONS[condition](batch) else output

    watch_forwards(monkeypatch, fault)
    crowd = Crowd(tiny_folder("llama"), 0, count=6)
    crowd.run(*MIXES)
    assert crowd.ledger.conflicts


@pytest.mark.parametrize("field", ["ranks", "entropies", "top", "log_partitions", "log_sums"])
def test_every_kind_of_fact_is_compared(
    field: str, tiny_folder: TinyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank, an entropy, a top k, a log-partition, a logit that differ are conflicts."""

    def fault(batch: Batch, output: BatchOutput) -> BatchOutput:
        return falsified(output, field) if len(batch.query_slices) > 1 else output

    watch_forwards(monkeypatch, fault)
    crowd = Crowd(tiny_folder("llama"), 0, count=6)
    crowd.run(*MIXES[:1])
    assert crowd.ledger.conflicts


def test_a_model_that_sees_its_neighbours_is_noticed(
    tiny_folder: TinyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hidden states that grow by a millionth with each row of the batch are conflicts."""

    def leak(module: Any, args: Any, output: Any) -> None:
        hidden = output.last_hidden_state
        hidden.mul_(1 + 1e-6 * hidden.shape[1])

    def load_leaky(config: EngineConfig, *args: str) -> LoadedModel:
        loaded = load_model(config, *args)
        loaded.model.base_model.register_forward_hook(leak)
        return loaded

    monkeypatch.setattr("model_runtime.runner.served_model.load_model", load_leaky)
    monkeypatch.setattr("model_runtime.runner.choose_runner.why_unavailable", lambda: NOT_BUILT)
    crowd = Crowd(tiny_folder("llama"), 0, count=6)
    crowd.run(*MIXES[:1])
    assert crowd.ledger.conflicts
