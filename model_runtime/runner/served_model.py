"""What an engine serves with: the loaded model behind a planner, a runner and a cache."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from model_runtime.attention.interface import ATTENTION_NAME
from model_runtime.batching.batch import Batch, QueryProgress, results_from_output
from model_runtime.batching.planner import plan
from model_runtime.config import EngineConfig
from model_runtime.errors import ModelLoadError, UnsupportedModel
from model_runtime.kernels.allocator import give_back_freed_memory
from model_runtime.kv_cache.logprob_rows import row_budget
from model_runtime.kv_cache.prefix_cache import PrefixCache
from model_runtime.loading.fingerprint import digest, native_fingerprint
from model_runtime.loading.loader import LoadedModel, load_model
from model_runtime.loading.self_check import ReferenceSample, compute_reference
from model_runtime.loading.supported_models import TRY_PADDED, check_supported
from model_runtime.memory.available import AvailableMemory
from model_runtime.memory.estimate import ModelShape
from model_runtime.memory.guard import MemoryGuard
from model_runtime.native.library import NOT_BUILT, STALE
from model_runtime.runner.choose_runner import choose_runner
from model_runtime.runner.native_runner import NativeModelRunner
from model_runtime.runner.row_layout import RowLayout
from model_runtime.runner.unbatched_runner import UnbatchedModelRunner
from model_runtime.scheduling.forward import ForwardPipeline
from model_runtime.tokenization.tokenizer import Tokenizer
from model_runtime.types import LogprobQuery, LogprobResult, ModelInfo, QueryResult

logger = logging.getLogger(__name__)


class CacheGauge(Protocol):
    """Size and fill of the KV cache, in tokens; what a batch holds and what was evicted of them;
    bytes of what is kept of their rows."""

    @property
    def capacity(self) -> int: ...

    @property
    def used(self) -> int: ...

    @property
    def pinned(self) -> int: ...

    @property
    def evicted(self) -> int: ...

    @property
    def row_bytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class ModelBackend:
    """A model that is ready to be asked.

    Attributes:
        info: what is served.
        tokenizer: the model's own.
        forward: what a batch goes through; called on the model thread only.
        cache: for statistics and for what can never fit.
        sample: what the warm-up forward is compared with.
    """

    info: ModelInfo
    tokenizer: Tokenizer
    forward: ForwardPipeline
    cache: CacheGauge
    sample: ReferenceSample

    @classmethod
    def load(cls, config: EngineConfig) -> ModelBackend:
        """Load weights and tokenizer, and set up the runner that ``config`` asks for.

        Raises:
            ModelLoadError: one of its kinds, in one line.
        """
        served, difference = cls._load(config)
        if difference is None:
            return served
        del served  # its weights must not lie beside those of the next one
        gc.collect()
        give_back_freed_memory()
        reason = f"its native forward differs from transformers' own by {difference:.2g} nats"
        if config.kernels == "native":
            raise UnsupportedModel(f"kernels is native, but {reason}")
        logger.warning("torch's kernels compute: %s", reason)
        served, _ = cls._load(replace(config, kernels="torch"))
        return replace(served, info=replace(served.info, kernels_reason=reason))

    @classmethod
    def _load(cls, config: EngineConfig) -> tuple[ModelBackend, float | None]:
        """The backend, and how far off its native kernels are where that is no rounding."""
        loaded, prepare = _load(config)
        try:
            free = _bytes_for_sample(loaded.info.device)
            sample = compute_reference(loaded.model, loaded.info.max_model_len, free)
            prepared = prepare(loaded, config)
            difference = _difference(prepared, sample, loaded.info.dtype)
        except ModelLoadError:
            raise
        except Exception as error:  # whatever the code of an unknown architecture raises
            reason = " ".join(str(error).split())[:300]
            hint = f"; {TRY_PADDED}" if config.runner == "paths" else ""
            raise UnsupportedModel(
                f"{loaded.info.architecture} is of a kind that is not known here{hint} "
                f"({type(error).__name__}: {reason})"
            ) from error
        info = replace(
            loaded.info,
            max_model_len=_longest_path(loaded.info, prepared.cache),
            batch_invariant=prepared.rows.batch_invariant,
            fingerprint=prepared.fingerprint,
            kernels=prepared.kernels,
            kernels_reason=prepared.kernels_reason,
        )
        _warn_unless_invariant(info)
        _warn_unless_built(info)
        return cls(info, loaded.tokenizer, prepared.forward, prepared.cache, sample), difference


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A model behind its runner. Attributes as in ``ModelBackend`` and ``ModelInfo``.

    Attributes:
        rows: how rows are put to its products.
    """

    forward: ForwardPipeline
    cache: CacheGauge
    rows: RowLayout
    fingerprint: str
    kernels: Literal["native", "torch"] = "torch"
    kernels_reason: str | None = None


_Prepare = Callable[[LoadedModel, EngineConfig], _Prepared]


def _load(config: EngineConfig) -> tuple[LoadedModel, _Prepare]:
    """The model, and what turns it into a forward, as the configured runner wants them."""
    if config.runner == "paths":
        return load_model(config, ATTENTION_NAME, check_supported), _prepare_paths
    if config.dtype == "bfloat16":
        raise UnsupportedModel("runner is padded, which computes in float32 only")
    if config.kernels == "native":
        raise UnsupportedModel("kernels is native, but runner is padded, which has none")
    return load_model(replace(config, dtype="float32")), _prepare_padded


def _prepare_paths(loaded: LoadedModel, config: EngineConfig) -> _Prepared:
    """Planner, runner and cache in a row; the batch is what goes from one to the next."""
    room = _room(loaded, config)
    runner, reason = choose_runner(loaded, config)
    cache = PrefixCache(runner.slots, row_budget(config.kv_cache_bytes))
    if room is not None:
        room.kept_bytes = lambda: cache.row_bytes
        room.shape = runner.rows.shape_of(room.shape)

    def plan_batch(work: Sequence[QueryProgress], budget: int) -> Batch:
        if room is None:
            return plan(work, cache, budget)
        return room.fit(lambda tokens: plan(work, cache, tokens), budget)

    def run(batch: Batch) -> Sequence[QueryResult]:
        output = runner.run(batch)
        answers = results_from_output(batch, output)
        cache.commit(batch, answers, output.bad_slots)
        return answers

    pipeline = ForwardPipeline(plan_batch, run, lambda _batch: cache.rollback(), runner.report_to)
    if isinstance(runner, NativeModelRunner):
        fingerprint = native_fingerprint(loaded.content, runner.frequencies)
        if loaded.info.dtype != "float32":
            fingerprint = digest(fingerprint, loaded.info.fingerprint, str(runner.rows))
        return _Prepared(pipeline, cache, runner.rows, fingerprint, "native")
    fingerprint = digest(loaded.info.fingerprint, str(runner.rows))
    return _Prepared(pipeline, cache, runner.rows, fingerprint, "torch", reason)


def _difference(prepared: _Prepared, sample: ReferenceSample, dtype: str) -> float | None:
    """Of native kernels from transformers' own forward, where rounding does not explain it.

    What torch's kernels compute is compared when the engine starts, and refused.
    """
    if prepared.kernels == "torch":
        return None
    tokens = sample.tokens[: prepared.cache.capacity]
    query = LogprobQuery(tokens, 1, (), cache_salt="native kernels")
    batch = prepared.forward.plan([QueryProgress(query, 1)], len(tokens))
    (answer,) = prepared.forward.run(batch)
    if not isinstance(answer, LogprobResult):
        return math.inf
    return sample.unexplained(answer.logprobs, dtype)


def _bytes_for_sample(device: str) -> int | None:
    """What float64 weights may take at the start: on a CPU well below what is free."""
    free = AvailableMemory().free() if device == "cpu" else None
    return None if free is None else free * 3 // 4


def _room(loaded: LoadedModel, config: EngineConfig) -> MemoryGuard | None:
    """What keeps batches within memory on a CPU; elsewhere the device says when it is full."""
    if loaded.info.device != "cpu":
        return None
    shape = ModelShape.of(loaded.model.config.get_text_config(), loaded.info.vocab_size)
    room = MemoryGuard(shape, AvailableMemory())
    room.check_start(config.kv_cache_bytes, config.max_batch_tokens, loaded.info.max_model_len)
    return room


def _prepare_padded(loaded: LoadedModel, config: EngineConfig) -> _Prepared:
    runner = UnbatchedModelRunner(loaded.model, loaded.info.max_model_len)

    def run(batch: Batch) -> Sequence[QueryResult]:
        return results_from_output(batch, runner.run(batch))

    return _Prepared(
        ForwardPipeline(plan=runner.plan, run=run, release=lambda _batch: None),
        runner.cache,
        rows := RowLayout(),
        digest(loaded.info.fingerprint, str(rows)),
        kernels_reason=None if config.kernels == "torch" else "runner is padded",
    )


def _warn_unless_invariant(info: ModelInfo) -> None:
    if info.device == "cpu" and not info.batch_invariant:
        logger.warning(
            "the last bits of a score may depend on what is computed beside it; "
            "batch_invariant is false in /v1/models"
        )


def _warn_unless_built(info: ModelInfo) -> None:
    reason = info.kernels_reason
    if reason in (NOT_BUILT, STALE):
        logger.warning("torch's kernels compute, which are slower than native ones: %s", reason)


def _longest_path(info: ModelInfo, cache: CacheGauge) -> int:
    """Tokens of the longest path that model and cache both hold; the last one is never fed."""
    fitting = cache.capacity + 1
    if fitting < info.max_model_len:
        logger.warning(
            "kv_cache_bytes holds %d tokens, so paths end at %d instead of the model's %d",
            *(cache.capacity, fitting, info.max_model_len),
        )
    return min(fitting, info.max_model_len)
