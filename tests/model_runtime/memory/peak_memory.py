"""A program: what forwards take at their peak, predicted and measured, a line of JSON a case.

Each case runs in a fork of its own, so that none finds the memory that another one has freed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from model_runtime.attention.interface import ATTENTION_NAME
from model_runtime.batching.batch import Batch, QueryProgress
from model_runtime.batching.planner import plan
from model_runtime.kv_cache.prefix_cache import PrefixCache
from model_runtime.memory.estimate import ModelShape, batch_bytes
from model_runtime.runner.model_runner import ModelRunner
from model_runtime.runner.native_runner import NativeModelRunner
from model_runtime.types import LogprobQuery
from tests.offline import build_runner
from tests.tiny_models import tiny_model

VOCAB = 16_384
SIZES: dict[str, dict[str, object]] = {
    "llama": {
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "head_dim": 64,
        "max_position_embeddings": 4096,
    },
    "gpt2": {"n_embd": 512, "n_layer": 2, "n_head": 8, "n_positions": 4096},
}


def path(length: int, seed: int = 0) -> tuple[int, ...]:
    return tuple((31 * i + seed) % VOCAB for i in range(length))


def prompt() -> list[LogprobQuery]:
    """A long prompt of which one row is asked."""
    return [LogprobQuery(path(2048), 2048, ())]


def scored_text() -> list[LogprobQuery]:
    """A text of which every row is asked."""
    return [LogprobQuery(path(1024), 1, top_k=5)]


def candidates() -> list[LogprobQuery]:
    """Many short candidates behind one context."""
    context = path(256)
    return [LogprobQuery(context + path(3, seed), 256) for seed in range(768)]


CASES = (prompt, scored_text, candidates)

Runner = ModelRunner | NativeModelRunner


def main(kernels: str, *kinds: str) -> None:
    torch.set_num_threads(1)
    for kind in kinds:
        in_a_fork(partial(measure, kernels, kind))


def in_a_fork(work: Callable[[], None]) -> None:
    child = os.fork()
    if not child:
        work()
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)


def measure(kernels: str, kind: str) -> None:
    """Each case of a model."""
    model = tiny_model(kind, vocab_size=VOCAB, **SIZES[kind])
    model.set_attn_implementation(ATTENTION_NAME)
    runner = build_runner(model, 256 << 20, kernels=kernels)
    shape = runner.rows.shape_of(ModelShape.of(model.config.get_text_config(), VOCAB))
    run(runner, [LogprobQuery((7, 8, 9), 1)])
    for case in CASES:
        in_a_fork(partial(report, runner, shape, kind, case))


def report(
    runner: Runner, shape: ModelShape, kind: str, case: Callable[[], list[LogprobQuery]]
) -> None:
    batch = plan_all(runner, case())
    predicted = batch_bytes(shape, batch) + len(batch.slots) * shape.kv_bytes
    line = {
        "case": f"{kind}, {case.__name__}",
        "predicted": predicted,
        "measured": growth(runner, batch),
    }
    sys.stdout.write(json.dumps(line) + "\n")


def plan_all(runner: Runner, queries: list[LogprobQuery]) -> Batch:
    return plan(
        [QueryProgress(q, q.score_from) for q in queries], PrefixCache(runner.slots), 1 << 20
    )


def run(runner: Runner, queries: list[LogprobQuery]) -> None:
    runner.run(plan_all(runner, queries))


def growth(runner: Runner, batch: Batch) -> int:
    """Bytes by which the process grows at most while it runs a batch.

    Pages of libraries that it touches for the first time are the page cache's and are left out.
    """
    Path("/proc/self/clear_refs").write_text("5")
    before, files = status("VmRSS"), status("RssFile")
    runner.run(batch)
    return status("VmHWM") - before - (status("RssFile") - files)


def status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main(*sys.argv[1:])
