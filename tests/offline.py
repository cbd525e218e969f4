"""Queries against a model with no scheduler: plan, run, commit, until all is answered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from model_runtime.attention.interface import ATTENTION_NAME
from model_runtime.batching.batch import Batch, QueryProgress, results_from_output
from model_runtime.batching.planner import plan
from model_runtime.decoder.description import NotDescribed
from model_runtime.kv_cache.prefix_cache import PrefixCache
from model_runtime.native.library import available
from model_runtime.runner.model_runner import ModelRunner
from model_runtime.runner.native_runner import NativeModelRunner
from model_runtime.types import LogprobQuery, LogprobResult


def build_runner(
    model: PreTrainedModel,
    kv_bytes: int,
    dtype: torch.dtype = torch.float32,
    kernels: str = "auto",
) -> ModelRunner | NativeModelRunner:
    """The runner that an engine would choose: see ``choose_runner``."""
    if available() and kernels != "torch":
        try:
            return NativeModelRunner(model, kv_bytes, dtype)
        except NotDescribed:
            if kernels == "native":
                raise
    return ModelRunner(model, kv_bytes, dtype)


class Offline:
    """A runner and its cache, used from one thread."""

    def __init__(
        self,
        folder: Path,
        *,
        kv_bytes: int = 64 << 20,
        slots: int | None = None,
        dtype: torch.dtype = torch.float32,
        kernels: str = "auto",
    ) -> None:
        model = AutoModelForCausalLM.from_pretrained(
            folder, attn_implementation=ATTENTION_NAME, dtype=torch.float32
        )
        self.runner = build_runner(model.eval(), kv_bytes, dtype, kernels)
        self.cache = PrefixCache(slots or self.runner.slots)
        self.batches: list[Batch] = []

    def answer(self, queries: Sequence[LogprobQuery], budget: int = 4096) -> list[LogprobResult]:
        """Every query's result, in as many batches as the budget makes it take."""
        results: dict[int, LogprobResult] = {}
        next_rows = [query.score_from for query in queries]
        waiting = list(range(len(queries)))
        while waiting:
            batch = plan(
                [QueryProgress(queries[i], next_rows[i]) for i in waiting], self.cache, budget
            )
            output = self.runner.run(batch)
            answers = results_from_output(batch, output)
            self.cache.commit(batch, answers, output.bad_slots)
            self.cache.check()
            self.batches.append(batch)
            for extent, answer in zip(batch.query_slices, answers, strict=True):
                if not isinstance(answer, LogprobResult):
                    raise answer
                index = waiting[extent.work_index]
                results[index] = results.get(index, LogprobResult()).concat(answer)
                next_rows[index] = extent.rows.stop
            done = {waiting[e.work_index] for e in batch.query_slices if e.complete}
            waiting = [i for i in waiting if i not in done]
        return [results[i] for i in range(len(queries))]


def eager_model(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The model as transformers runs it by itself, for the reference."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=dtype)
    return model.eval()
