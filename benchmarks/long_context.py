"""`make bench`: 4,096 tokens of context x 100 candidates x 16, and what it takes of memory.

Once with the default model and once with a small one of 262,144 tokens, where a [rows, vocab]
tensor would be far over the budget. Each runs in a process of its own, so that its peak is its
own. More than the configured bytes for keys and values and ``WORKING_BYTES`` ends the benchmark.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks import by_hand, memory, workloads
from benchmarks.agreement import LARGEST_DIFFERENCE, check_equal
from benchmarks.in_process import InProcess, results_of
from benchmarks.memory import MIB
from benchmarks.table import Table
from benchmarks.timing import median, product_peak
from benchmarks.workloads import ALIAS, VOCAB_SIZE, Group
from model_runtime import fetch_model, total
from tests.tiny_models import save_tiny_model

WORKING_BYTES = 512 * MIB
"""What one forward of 4,096 tokens may take besides keys and values."""

POLL_S = 0.01
"""Seconds between two looks at how many tokens the cache holds."""

CHECKED = 2
"""Candidates whose sums are compared with transformers'."""


@dataclass(frozen=True, slots=True)
class Case:
    """A model, the bytes that it is given for keys and values, and what its sums may differ by."""

    name: str
    model: str
    vocab_size: int
    kv_bytes: int
    largest_difference: float = LARGEST_DIFFERENCE


@dataclass(frozen=True, slots=True)
class Measured:
    """One cold run: seconds, tokens, and bytes at their most.

    What loading the model left free in the process counts as there before, not as growth.
    """

    seconds: float
    computed: int
    kv_bytes: int
    growth: int
    peak: int
    differ: float


def measure(case: Case) -> Measured:
    """Run a case in this process, which must be fresh."""
    group = workloads.long_context(case.vocab_size)
    with InProcess(model=case.model, kv_cache_bytes=case.kv_bytes) as ours:
        before = memory.resident()
        memory.forget_peak()
        began = time.perf_counter()
        sums, computed, slots = ours.wait(_score(ours, group))
        seconds = time.perf_counter() - began
        peak = memory.peak_resident()
        bytes_per_token = case.kv_bytes // (ours.engine.stats().cache_slots + 1)
    some = Group(group.context, group.candidates[:CHECKED])
    model = by_hand.load(Path(case.model) if Path(case.model).is_dir() else fetch_model(case.model))
    differ = check_equal(sums[:CHECKED], by_hand.score_shared(model, some), case.largest_difference)
    return Measured(seconds, computed, slots * bytes_per_token, peak - before, peak, differ)


async def _score(ours: InProcess, group: Group) -> tuple[list[float], int, int]:
    """Sums, computed tokens, and the most tokens that the cache held on the way."""
    asked = asyncio.ensure_future(ours.engine.score(group.queries("")))
    slots = 0
    while not asked.done():
        await asyncio.wait([asked], timeout=POLL_S)
        slots = max(slots, ours.engine.stats().cache_slots_used)
    outcome = asked.result()
    return [total(a.logprobs) for a in results_of(outcome.value)], outcome.computed_tokens, slots


def apart(case: Case) -> Measured:
    """``measure`` in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(measure, case).result()


def check_budget(case: Case, measured: Measured) -> None:
    """End the benchmark where memory was not kept to."""
    allowed = case.kv_bytes + WORKING_BYTES
    if measured.kv_bytes > case.kv_bytes or measured.growth > allowed:
        raise SystemExit(
            f"{case.name}: {measured.kv_bytes} bytes of keys and values (given {case.kv_bytes}), "
            f"{measured.growth} bytes of growth (allowed {allowed})"
        )


def run(runs: int) -> None:
    """Print the table."""
    rounds = max(1, runs // 3)
    table = Table(
        f"4,096 tokens x 100 candidates x 16, cold, float32: medians of {rounds} runs; MiB at the "
        "peak",
        *("model", "s", "computed tokens", "of the product peak", "keys and values, MiB"),
        *(
            "configured",
            "growth",
            "allowed",
            "resident",
            "a [rows, vocab] tensor",
            "sums differ by",
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(Path(folder)):
            measured = [apart(case) for _ in range(rounds)]
            for one in measured:
                check_budget(case, one)
            table.row(*cells(case, measured))


def cases(folder: Path) -> list[Case]:
    """The default model, and a small random one with the largest vocabulary in use."""
    vocab_size = 262_144
    save_tiny_model(
        "llama", folder, vocab_size=vocab_size, hidden_size=128, max_position_embeddings=8192
    )
    # The weights of the small one are large on purpose, and so are its rounding errors.
    return [
        Case("default", ALIAS, VOCAB_SIZE, 320 * MIB),
        Case("3 layers of 128, 262,144 tokens", str(folder), vocab_size, 8 * MIB, 1e-2),
    ]


def cells(case: Case, measured: list[Measured]) -> list[str]:
    """A row of the table."""
    group = workloads.long_context(case.vocab_size)
    seconds = median([one.seconds for one in measured])
    peak = product_peak()
    gflop = group.gflop + group.attention_gflop
    share = f"{gflop / seconds / peak:.0%} of {peak:.0f} GFLOP/s" if case.model == ALIAS else "-"
    rows = 4 * case.vocab_size * sum(len(candidate) for candidate in group.candidates)
    worst = max(measured, key=lambda one: one.growth)
    sizes = (worst.kv_bytes, case.kv_bytes, worst.growth, case.kv_bytes + WORKING_BYTES)
    return [
        *(case.name, f"{seconds:.2f}", str(worst.computed), share),
        *(f"{size / MIB:.0f}" for size in (*sizes, worst.peak, rows)),
        f"{worst.differ:.0e}",
    ]
