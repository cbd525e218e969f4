"""Scores computed on the card against float64, alone and beside others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model_runtime.loading.reference import reference_logprobs
from model_runtime.types import LogprobQuery, LogprobResult
from tests.conftest import TinyFolder
from tests.gpu.on_card import OnCard, forked
from tests.offline import eager_model
from tests.tiny_models import TINY_KINDS

pytestmark = pytest.mark.gpu

A_TOKEN = {torch.float32: 5e-4, torch.bfloat16: 0.8}
"""Largest difference from float64, in nats a token. The tiny models' weights are large, so the
rounding of products to eight bits shows more than in a trained model."""

IN_COMPANY = {torch.float32: 3e-4, torch.bfloat16: 0.5}
"""Largest difference that neighbours and chunks may make, in nats a token: products of
other shapes may add up in another order, and in bfloat16 round another way."""


def exact(folder: Path, query: LogprobQuery) -> list[float]:
    """The query's log-probabilities in float64, on the CPU."""
    rows = reference_logprobs(eager_model(folder, torch.float64), query.tokens)
    positions = range(query.score_from, len(query.tokens))
    return [float(rows[p - 1, query.tokens[p]]) for p in positions]


def check_close(got: Sequence[LogprobResult], want: Sequence[LogprobResult], error: float) -> None:
    for one, other in zip(got, want, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=error)


@pytest.mark.parametrize("dtype", A_TOKEN, ids=str)
@pytest.mark.parametrize("kind", TINY_KINDS)
def test_scores_equal_the_float64_reference(
    kind: str, dtype: torch.dtype, tiny_folder: TinyFolder
) -> None:
    """Every architecture, merged and cut into chunks, is what plain float64 says."""
    queries, folder = forked(kind), tiny_folder(kind)
    offline = OnCard(folder, dtype)
    for budget in (4096, 37):
        for query, result in zip(queries, offline.answer(queries, budget), strict=True):
            assert result.logprobs == pytest.approx(exact(folder, query), abs=A_TOKEN[dtype])


@pytest.mark.parametrize("dtype", IN_COMPANY, ids=str)
@pytest.mark.parametrize("kind", TINY_KINDS)
def test_a_crowd_hardly_matters(kind: str, dtype: torch.dtype, tiny_folder: TinyFolder) -> None:
    """Alone, merged, reordered, chunked and cached, a score stays within the stated bound."""
    queries = forked(kind)
    offline = OnCard(tiny_folder(kind), dtype)
    salted = [replace(query, cache_salt=f"alone {i}") for i, query in enumerate(queries)]
    alone = [offline.answer([query])[0] for query in salted]
    check_close(offline.answer(queries), alone, IN_COMPANY[dtype])
    assert len(offline.batches[-1].query_slices) == len(queries)
    check_close(offline.answer(queries[::-1], 53), alone[::-1], IN_COMPANY[dtype])


def test_float32_is_not_tf32(tiny_folder: TinyFolder) -> None:
    """Where the process had TF32 on, scores keep the precision of float32."""
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    queries, folder = forked("llama"), tiny_folder("llama")
    for query, result in zip(queries, OnCard(folder).answer(queries), strict=True):
        assert result.logprobs == pytest.approx(
            exact(folder, query), abs=A_TOKEN[torch.float32] / 5
        )
