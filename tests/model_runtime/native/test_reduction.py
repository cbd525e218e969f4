"""Log-sum-exp, chosen columns with ranks, and the largest columns of rows of logits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from model_runtime.logprobs.top_k import top_tokens
from model_runtime.native.library import Operation, run
from model_runtime.native.reduction import Reduced, reduce_logits
from tests.model_runtime.native.everywhere import drawn, everywhere, same_bits


def reduced(
    logits: Tensor, chosen: list[list[int]], top: int, softcap: float | None = None
) -> tuple[Operation, Reduced]:
    first = [0]
    for ids in chosen:
        first.append(first[-1] + len(ids))
    flat = torch.tensor([token for ids in chosen for token in ids], dtype=torch.int64)
    return reduce_logits(logits, flat, torch.tensor(first), top, softcap=softcap, entropies=True)


@pytest.mark.parametrize("vocab", [1, 17, 1024, 1025, 49_152])
def test_reductions_are_those_of_the_formula(vocab: int) -> None:
    """The log-sum within float32's rounding, the rest exactly; many logits tie."""
    logits = (drawn(1, 3, vocab) * 40).round() / 10
    chosen = [[0], [], [vocab - 1, vocab // 2]]
    top = min(vocab, 20)

    def build() -> tuple[list[Operation], list[Tensor]]:
        operation, out = reduced(logits, chosen, top)
        return [operation], [out.log_sum, out.logprobs, out.ranks, out.top_logits, out.top_ids]

    log_sum, logprobs, ranks, top_logits, top_ids = everywhere(build)
    exact = logits.double().logsumexp(-1)
    assert ((log_sum - exact).abs() <= 2**-23 * exact.abs().clamp(min=1)).all()
    places = [(row, token) for row, ids in enumerate(chosen) for token in ids]
    for found, rank, (row, token) in zip(logprobs, ranks, places, strict=True):
        assert found == logits[row, token] - log_sum[row]
        assert rank == 1 + (logits[row] > logits[row, token]).sum()
    values, ids = top_tokens(logits, top)
    assert same_bits(top_logits, values) and torch.equal(top_ids, ids)


@pytest.mark.parametrize("vocab", [1, 17, 1025, 49_152])
def test_entropies_are_those_of_the_formula(vocab: int) -> None:
    """In nats; columns that are impossible, or as good as, add nothing."""
    logits = drawn(2, 4, vocab) * torch.tensor([[0.0], [1.0], [10.0], [100.0]])
    logits[2, 1 : vocab // 2] = -math.inf

    def build() -> tuple[list[Operation], list[Tensor]]:
        operation, out = reduced(logits, [[]] * 4, 0)
        return [operation], [out.entropies, out.log_sum]

    entropies, log_sum = everywhere(build)
    exact = torch.distributions.Categorical(logits=logits.double().clamp(min=-1e9)).entropy()
    # Every log-prob carries the rounding of the log-sum, and chunks are added up in float32.
    within = 2e-6 + 1e-6 * exact + 2**-23 * log_sum.abs()
    assert ((entropies - exact).abs() <= within).all()


def test_what_is_not_asked_is_not_computed() -> None:
    """No entropies, no ids, no list: the log-sum is the same."""
    logits, none = drawn(1, 2, 3000), torch.tensor([], dtype=torch.int64)
    bare, few = reduce_logits(logits, none, torch.zeros(3, dtype=torch.int64), 0)
    full, many = reduced(logits, [[1], [2]], 5)
    run([bare, full])
    assert not len(few.entropies) and not few.top_ids.numel()
    assert same_bits(few.log_sum, many.log_sum)


@pytest.mark.parametrize("vocab", [17, 1025, 5000])
def test_logits_are_capped_before_all_else(vocab: int) -> None:
    """In place, within two roundings; the rest is what the capped ones by themselves give."""
    plain, cap = drawn(3, 3, vocab) * 40, 30.0

    def build() -> tuple[list[Operation], list[Tensor]]:
        logits = plain.clone()
        operation, out = reduced(logits, [[3], [0, 1], []], 4, softcap=cap)
        return [operation], [logits, out.log_sum, out.entropies, out.logprobs, out.top_logits]

    capped, *found = everywhere(build)
    exact = cap * (plain.double() / cap).tanh()
    torch.testing.assert_close(capped.double(), exact, rtol=4e-7, atol=0)
    again, out = reduced(capped.clone(), [[3], [0, 1], []], 4)
    run([again])
    expected = (out.log_sum, out.entropies, out.logprobs, out.top_logits)
    for mine, other in zip(found, expected, strict=True):
        assert same_bits(mine, other)


def test_impossible_and_broken_rows() -> None:
    """Minus infinity has probability 0 and is listed last; a NaN makes its own row's sum a NaN."""
    logits = drawn(1, 5, 100)
    logits[0, 5:] = -math.inf
    logits[1, 50] = math.nan
    logits[2, 50] = math.inf
    logits[4] = -math.inf
    operation, out = reduced(logits, [[7], [0], [0], [0], [0]], 8)
    run([operation])
    exact = logits.double().logsumexp(-1)
    assert out.log_sum[[1, 2, 4]].isnan().all()
    torch.testing.assert_close(out.log_sum[[0, 3]].double(), exact[[0, 3]], rtol=1e-7, atol=1e-7)
    assert out.logprobs[0] == -math.inf and out.ranks[0] == 6
    assert out.top_ids[0, 5:].tolist() == [5, 6, 7]


def test_a_row_has_the_same_bits_in_any_company() -> None:
    """Alone and among others."""
    logits = drawn(1, 9, 3000)
    together, many = reduced(logits, [[1]] * 9, 5)
    run([together])
    for row in range(9):
        alone, one = reduced(logits[row : row + 1].clone(), [[1]], 5)
        run([alone])
        assert same_bits(one.log_sum[0], many.log_sum[row])
        assert same_bits(one.logprobs[0], many.logprobs[row])


def test_bad_arguments_are_named() -> None:
    """Ids outside the vocabulary, lists that do not add up, and too long a list."""
    logits = drawn(1, 2, 10)
    for message, chosen, first, top in (
        ("chosen must lie", [10], [0, 1, 1], 1),
        ("must ascend", [1], [0, 0, 0], 1),
        ("must ascend", [1, 2], [0, 2, 1], 1),
        ("chosen_first must be", [1], [0, 1], 1),
        ("top must be", [1], [0, 1, 1], 11),
    ):
        with pytest.raises(ValueError, match=message):
            reduce_logits(logits, torch.tensor(chosen), torch.tensor(first), top)
    with pytest.raises(ValueError, match="softcap must be"):
        reduced(logits, [[], []], 1, softcap=0.0)
