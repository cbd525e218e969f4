"""How much probability a row of logits gives to sets of its tokens.

A mass is defined by the log-probs that single tokens are given, which are float32::

    mass(S) = m + log(sum over S of exp(logprob - m)),   m = the largest logprob in S

in float64. The sum is a tree whose shape is the size of S alone, added up element by element: no
reduction of the library decides the order, so other rows, threads and tiles change no bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from model_runtime.logprobs.exponential import exponential
from model_runtime.token_set import TokenSet

MANY = 256
"""Ids beyond which a set's bits are spread out together: fewer are faster to list one by one."""

ELEMENTS = 1 << 19
"""Probabilities that are added up at a time: 16 MiB or so with their scratch."""

AskedRow = tuple[int, TokenSet]


def set_logprobs_of_rows(
    logits: Tensor, log_sum: Tensor, asked: Sequence[AskedRow]
) -> Iterator[tuple[AskedRow, float]]:
    """Log of the summed probability of sets of tokens; a row may be asked for several.

    Args:
        logits: [M, vocab]; the rows that are asked for are finite.
        log_sum: [M].
        asked: (row, set), each pair once.

    Yields:
        Each pair with its mass, -inf where that is zero, in any order.
    """
    together: dict[int, list[AskedRow]] = {}
    for row, tokens in asked:
        together.setdefault(_width(len(tokens)), []).append((row, tokens))
    for width, pairs in together.items():
        height = max(1, ELEMENTS // width)
        for first in range(0, len(pairs), height):
            part = pairs[first : first + height]
            yield from zip(part, _set_logprobs(logits, log_sum, part, width), strict=True)


def _width(size: int) -> int:
    """Sets are filled up to a power of two, so that their sums halve evenly."""
    return 1 << max(0, size - 1).bit_length()


def _set_logprobs(
    logits: Tensor, log_sum: Tensor, pairs: Sequence[AskedRow], width: int
) -> Iterator[float]:
    device = logits.device
    rows = torch.tensor([row for row, _ in pairs], device=device).unsqueeze(1)
    sizes = torch.tensor([len(tokens) for _, tokens in pairs], device=device).unsqueeze(1)
    logprobs = (logits[rows, _columns(pairs, width, device)] - log_sum[rows]).double()
    logprobs.masked_fill_(torch.arange(width, device=device) >= sizes, -math.inf)
    largest = logprobs.amax(1, keepdim=True)
    weights = exponential(logprobs - largest.clamp(min=-1e30))
    for most, mass in zip(largest.squeeze(1).tolist(), row_sums(weights).tolist(), strict=True):
        yield most + math.log(mass) if mass else -math.inf


def row_sums(values: Tensor) -> Tensor:
    """[M] the sum of each row, as a tree whose shape is N alone.

    Args:
        values: [M, N], N at least 1; overwritten.
    """
    width = _width(values.shape[1])
    while width > 1:
        width //= 2
        behind = values[:, width : 2 * width]
        values[:, : behind.shape[1]] += behind
    return values[:, 0]


def _columns(pairs: Sequence[AskedRow], width: int, device: torch.device) -> Tensor:
    """[pairs, width] the ids of each set, filled up with zeros. Equal sets are spread out once."""
    distinct: dict[TokenSet, int] = {}
    places = [distinct.setdefault(tokens, len(distinct)) for _, tokens in pairs]
    columns = torch.zeros(len(distinct), width, dtype=torch.long)
    for tokens, place in distinct.items():
        columns[place, : len(tokens)] = ids_of(tokens)
    return columns.to(device)[torch.tensor(places, device=device)]


def ids_of(tokens: TokenSet) -> Tensor:
    """[len(tokens)] the ids of a set, ascending, in the memory of the CPU."""
    if len(tokens) <= MANY:
        return torch.tensor(tuple(tokens), dtype=torch.long)
    packed = torch.frombuffer(bytearray(tokens.bits), dtype=torch.uint8).unsqueeze(1)
    bits = packed.bitwise_right_shift(torch.arange(8, dtype=torch.uint8)).bitwise_and(1)
    return bits.flatten().nonzero().squeeze(1)
