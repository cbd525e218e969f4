"""The last check before a model is served: against float64, and against a crowd."""

from __future__ import annotations

import pytest
from transformers import BartConfig, BartForCausalLM

from model_runtime.attention.interface import ATTENTION_NAME
from model_runtime.batching.batch import QueryProgress, results_from_output
from model_runtime.batching.planner import plan
from model_runtime.errors import UnsupportedModel
from model_runtime.kv_cache.prefix_cache import PrefixCache
from model_runtime.loading import self_check as numeric_error
from model_runtime.loading.self_check import (
    ReferenceSample,
    check_batch_invariance,
    check_cached,
    compute_reference,
)
from model_runtime.runner.model_runner import ModelRunner
from model_runtime.types import LogprobQuery, LogprobResult, ModelInfo
from tests.tiny_models import tiny_model

INFO = ModelInfo("m", "f", "TinyForCausalLM", "float32", "cpu", 64, 64, None, (), 1)


def test_the_error_is_the_largest_and_the_root_of_the_mean_square() -> None:
    """Of as many tokens as were computed."""
    sample = ReferenceSample((1, 2, 3, 4), (-1.0, -2.0, -3.0))
    assert sample.error_of((-1.003, -2.004), INFO) == pytest.approx(
        (0.004, 0.0125**0.5 / 31.622777)
    )


def test_more_than_rounding_is_refused() -> None:
    """A forward that is wrong is not reported as an error bar."""
    with pytest.raises(UnsupportedModel, match="its own reference"):
        ReferenceSample((1, 2), (-1.0,)).error_of((-1.5,), INFO)
    with pytest.raises(UnsupportedModel, match="its own reference"):
        ReferenceSample((1, 2), (-1.0,)).error_of((float("nan"),), INFO)


def test_a_large_model_is_compared_with_its_own_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error stays unknown, a wrong forward is refused, and its attention is put back."""
    model = tiny_model("llama")
    model.set_attn_implementation(ATTENTION_NAME)
    exact = compute_reference(model, 40)
    monkeypatch.setattr(numeric_error, "LARGEST_MODEL_BYTES", 0)
    sample = compute_reference(model, 40)
    assert model.config._attn_implementation == ATTENTION_NAME
    assert sample.logprobs == pytest.approx(exact.logprobs, abs=1e-4)
    assert (exact.exact, sample.exact) == (True, False)
    assert sample.error_of(exact.logprobs, INFO) is None
    with pytest.raises(UnsupportedModel, match="its own reference"):
        sample.error_of([logprob - 0.1 for logprob in exact.logprobs], INFO)


def test_a_prefix_that_is_not_all_in_the_cache_is_caught() -> None:
    """The rows behind a cached prefix are compared with those of the whole path."""
    check_cached((-1.0, -2.0, -3.0), (-2.001, -3.0), INFO)
    with pytest.raises(UnsupportedModel, match="is cached"):
        check_cached((-1.0, -2.0, -3.0), (-2.0, -3.5), INFO)


def test_a_decoder_that_ignores_positions_is_caught() -> None:
    """BART counts positions by itself, so a path beside another one gets wrong ones."""
    config = BartConfig(
        encoder_layers=2, vocab_size=64, d_model=32, decoder_layers=2, decoder_attention_heads=2,
        encoder_attention_heads=2,
        decoder_ffn_dim=64, max_position_embeddings=64, init_std=0.5, is_decoder=True,
        attn_implementation=ATTENTION_NAME,
    )  # fmt: skip
    runner = ModelRunner(BartForCausalLM(config).eval(), 1 << 20)
    path, fork = ReferenceSample(tuple(7 * i % 64 for i in range(40)), ()).paths(40)
    (alone,) = logprobs(runner, fork)
    _, together = logprobs(runner, path, fork)
    with pytest.raises(UnsupportedModel, match="beside another path"):
        check_batch_invariance(alone, together, INFO)


def logprobs(runner: ModelRunner, *paths: tuple[int, ...]) -> list[tuple[float, ...]]:
    """Of whole paths in one batch."""
    work = [QueryProgress(LogprobQuery(path, 1), 1) for path in paths]
    batch = plan(work, PrefixCache(200), 4096)
    answers = results_from_output(batch, runner.run(batch))
    return [answer.logprobs for answer in answers if isinstance(answer, LogprobResult)]
