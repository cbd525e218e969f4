"""Rows of logits reduced natively: sums, chosen columns with their ranks, the largest columns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model_runtime.native.checks import check_indices, check_rows
from model_runtime.native.library import Kind, Operation, ReductionArguments

MOST_TOP = 1024
"""Largest columns of a row that are listed: they are kept sorted by insertion."""


@dataclass(frozen=True, slots=True)
class Reduced:
    """What ``reduce_logits`` writes.

    Attributes:
        log_sum: [rows], NaN where a row has one, or plus infinity.
        entropies: [rows] - sum p log p in nats, or empty where not asked.
        logprobs: [n] of the chosen ids; ranks: [n] int64, 1 + how many columns are greater.
        top_logits: [rows, top], falling; top_ids: the same in int64, equal ones by column.
    """

    log_sum: Tensor
    entropies: Tensor
    logprobs: Tensor
    ranks: Tensor
    top_logits: Tensor
    top_ids: Tensor

    @classmethod
    def empty(cls, rows: int, chosen: int, top: int, *, entropies: bool) -> Reduced:
        """Not written to yet."""
        return cls(
            log_sum=torch.empty(rows),
            entropies=torch.empty(rows if entropies else 0),
            logprobs=torch.empty(chosen),
            ranks=torch.empty(chosen, dtype=torch.int64),
            top_logits=torch.empty(rows, top),
            top_ids=torch.empty(rows, top, dtype=torch.int64),
        )


def reduce_logits(
    logits: Tensor,
    chosen: Tensor,
    chosen_first: Tensor,
    top: int,
    *,
    softcap: float | None = None,
    entropies: bool = False,
) -> tuple[Operation, Reduced]:
    """Per row the log-sum-exp, log-probs and ranks of chosen columns, and the largest columns.

    Args:
        logits: [rows, vocab].
        chosen: [n] int64 columns, row by row. The rank of each takes a pass over its row, so that
            from some hundreds on it costs less to sort the row.
        chosen_first: [rows + 1] int64, where a row's ids begin in ``chosen``.
        top: how many largest, 0 for none; at most 1,024 and the vocabulary.
        softcap: ``logits`` become ``softcap * tanh(logit / softcap)`` before all else.
        entropies: whether to compute them.
    """
    rows = check_rows("logits", logits, logits.shape[-1])
    vocab = logits.shape[1]
    if not 0 <= top <= min(MOST_TOP, vocab):
        raise ValueError(f"top must be between 0 and {min(MOST_TOP, vocab)}, is {top}")
    if softcap is not None and softcap <= 0:
        raise ValueError("softcap must be positive")
    _check_chosen(chosen, chosen_first, rows, vocab)
    reduced = Reduced.empty(rows, len(chosen), top, entropies=entropies)
    arguments = ReductionArguments(
        logits=logits.data_ptr(),
        logits_stride=logits.stride(0),
        rows=rows,
        vocab=vocab,
        log_sum=reduced.log_sum.data_ptr(),
        entropies=reduced.entropies.data_ptr() if entropies else None,
        chosen_first=chosen_first.data_ptr(),
        chosen=chosen.data_ptr(),
        logprobs=reduced.logprobs.data_ptr(),
        ranks=reduced.ranks.data_ptr(),
        top=top,
        top_logits=reduced.top_logits.data_ptr(),
        top_ids=reduced.top_ids.data_ptr(),
        softcap=softcap or 0.0,
    )
    written = (reduced.log_sum, reduced.entropies, reduced.logprobs, reduced.ranks)
    held = (logits, chosen, chosen_first, *written, reduced.top_logits, reduced.top_ids)
    return Operation.of(Kind.REDUCTION, arguments, *held), reduced


def _check_chosen(chosen: Tensor, first: Tensor, rows: int, vocab: int) -> None:
    check_indices("chosen", chosen, None, vocab)
    check_indices("chosen_first", first, rows + 1, chosen.shape[0] + 1)
    if first[0] != 0 or first[-1] != len(chosen) or (first.diff() < 0).any():
        raise ValueError("chosen_first must ascend from 0 to the number of chosen ids")
