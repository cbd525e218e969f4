"""What divides the softmax of rows of logits at temperatures other than 1, as one number.

    log_partition(T) = log(sum over the vocabulary of exp((logprob - best) / T))

with ``best`` the row's largest logprob, in float64 over the float32 log-probs that tokens are
given. No temperature is too small for it: the best token's own term is 1. The sum is the tree of
``set_mass``, so other rows, threads and tiles change no bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from model_runtime.kernels.rows import read_rows, row_index
from model_runtime.logprobs.exponential import exponential
from model_runtime.logprobs.set_mass import row_sums

ELEMENTS = 1 << 19
"""Terms that are added up at a time: 8 MiB or so with their scratch."""

AskedRow = tuple[int, float]


def log_partitions_of_rows(
    logits: Tensor, log_sum: Tensor, asked: Sequence[AskedRow]
) -> Iterator[tuple[AskedRow, float]]:
    """The log-partitions of rows; a row may be asked for several.

    Args:
        logits: [M, vocab]; the rows that are asked for are finite.
        log_sum: [M].
        asked: (row, temperature), each pair once; temperatures are positive and finite.

    Yields:
        Each pair with its log-partition, in any order.
    """
    height = max(1, ELEMENTS // logits.shape[1])
    for first in range(0, len(asked), height):
        part = asked[first : first + height]
        sums = _partitions(logits, log_sum, part).tolist()
        yield from zip(part, map(math.log, sums), strict=True)


def _partitions(logits: Tensor, log_sum: Tensor, asked: Sequence[AskedRow]) -> Tensor:
    rows = row_index([row for row, _ in asked], logits.device)
    temperatures = torch.tensor([t for _, t in asked], dtype=torch.float64, device=logits.device)
    logprobs = (read_rows(logits, rows) - read_rows(log_sum, rows).unsqueeze(1)).double()
    logprobs -= logprobs.amax(1, keepdim=True)
    return row_sums(exponential(logprobs.div_(temperatures.unsqueeze(1))))
