"""A runner without an engine: no queue, no threads; what is planned once can run many times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from transformers import PreTrainedModel

from benchmarks.in_process import DEFAULTS, results_of
from model_runtime import EngineConfig, LogprobQuery, LogprobResult, load_model
from model_runtime.attention.interface import ATTENTION_NAME
from model_runtime.batching.batch import Batch, QueryProgress, results_from_output
from model_runtime.batching.planner import plan
from model_runtime.kv_cache.prefix_cache import PrefixCache
from model_runtime.runner.choose_runner import choose_runner


class Bare:
    """The default model, its runner and its cache.

    Args:
        kernels: as in ``EngineConfig``. With native ones ``model`` has no weights any more.
    """

    def __init__(self, kv_bytes: int = 1 << 30, kernels: str = "auto") -> None:
        config = EngineConfig(**DEFAULTS | {"kv_cache_bytes": kv_bytes, "kernels": kernels})
        loaded = load_model(config, ATTENTION_NAME)
        self.model: PreTrainedModel = loaded.model
        self._runner, _ = choose_runner(loaded, config)
        self._cache = PrefixCache(self._runner.slots)

    def plan(self, queries: Sequence[LogprobQuery]) -> Batch:
        """One batch that answers all of them.

        Raises:
            ValueError: they do not fit into the cache.
        """
        work = [QueryProgress(query, query.score_from) for query in queries]
        batch = plan(work, self._cache, budget=sum(len(query.tokens) for query in queries))
        if len(batch.query_slices) < len(queries) or not all(
            e.complete for e in batch.query_slices
        ):
            raise ValueError("the queries do not fit into one batch")
        return batch

    def forward(self, batch: Batch) -> object:
        """The forward and nothing else."""
        return self._runner.run(batch)

    def answer(self, batch: Batch) -> list[LogprobResult]:
        """A forward, and what it says of each query."""
        return results_of(results_from_output(batch, self._runner.run(batch)))

    def keep(self, batch: Batch) -> None:
        """Leave in the cache what a batch that has run computed."""
        self._cache.commit(batch)

    @contextmanager
    def plain_attention(self) -> Iterator[PreTrainedModel]:
        """The same model and the same packed products, but transformers' own attention."""
        self.model.set_attn_implementation("sdpa")
        try:
            yield self.model
        finally:
            self.model.set_attn_implementation(ATTENTION_NAME)
