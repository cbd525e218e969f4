"""The logits of targets: what the head itself gives, beside their log-probabilities."""

from __future__ import annotations

import math

import pytest
import torch

from model_runtime.errors import NonFiniteLogits
from model_runtime.loading.reference import reference_logprobs
from model_runtime.scheduling.query_validation import QueryValidator
from model_runtime.types import LogprobQuery
from tests.conftest import TinyFolder
from tests.model_runtime.logprobs.test_log_partition import reduce
from tests.offline import Offline, eager_model


def asks(path: tuple[int, ...], *targets: int) -> LogprobQuery:
    """The logits of targets after a path."""
    return LogprobQuery(path, len(path), targets, logits=True)


def test_they_are_those_of_the_head() -> None:
    """Within the rounding of two float32 numbers, whatever is added to a whole row."""
    logits = 9 * torch.randn(4, 5003, generator=torch.Generator().manual_seed(1))
    logits[1] += 300
    logits[2, 7] = -math.inf
    answers = reduce(logits, [asks((row,), 3, 7, 5002) for row in range(4)])
    for row, answer in enumerate(answers):
        assert answer.target_logits == pytest.approx(logits[row, [3, 7, 5002]].tolist(), abs=1e-4)


def test_only_who_asks_gets_them() -> None:
    """One row may be asked by several; a row that is not finite has none."""
    logits = torch.randn(2, 100, generator=torch.Generator().manual_seed(2))
    logits[1, 5] = math.nan
    plain = LogprobQuery((0,), 1, (4,))
    answers = reduce(logits, [plain, asks((0,), 4), asks((1,), 4)])
    assert answers[0].target_logits == ()
    assert answers[1].target_logits == pytest.approx((float(logits[0, 4]),), abs=1e-6)
    assert answers[1].target_logprobs == answers[0].target_logprobs
    assert isinstance(answers[2], NonFiniteLogits)


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_a_models_are_those_of_transformers(kind: str, tiny_folder: TinyFolder) -> None:
    """Capped ones, too; in chunks and behind scored tokens."""
    folder = tiny_folder(kind)
    path = tuple(range(5, 90))
    model = eager_model(folder)
    with torch.no_grad():
        expected = model(torch.tensor([path])).logits[0, -1]
    logprobs = reference_logprobs(model, path)[-1]
    query = LogprobQuery(path, 80, (1, 9), logits=True)
    for budget in (4096, 16):
        (answer,) = Offline(folder).answer([query], budget)
        assert answer.target_logits == pytest.approx(expected[[1, 9]].tolist(), abs=1e-4)
        assert answer.target_logprobs == pytest.approx(logprobs[[1, 9]].tolist(), abs=1e-4)


def test_a_query_for_the_logits_of_no_row_is_refused() -> None:
    """They are of the row after the path."""
    error = QueryValidator(10, 10, 10).check(LogprobQuery((1, 2), 1, logits=True))
    assert error is not None
    assert error.param == "logits"
