"""The most probable tokens of rows of logits, exactly: of equal ones always the smaller ids.

``topk`` reads a row as slowly as it is wide and takes any of equal values. So it is given only
what can win, and rows with a tie that matters are done again, one by one::

    vocabulary as w x blocks     maximum of each block      the best blocks, all w of each
    . . . . . . . . . . .
    . . 7 . . . . . . . .   ──>   . . 7 . 5 . . . 6 . .  ──>  7 5 6 . . . . . .  ──>  top
    . . . . 5 . . . 6 . .

A token among the ``count`` best lies in one of the ``count`` blocks with the best maxima.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

NARROWEST = 2048
"""Columns below which a plain ``topk`` is as quick."""


def top_tokens(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Values and column numbers of the ``count`` largest of each row.

    Args:
        logits: [M, N] without NaN; rows with one give meaningless columns of that row alone.
        count: at most N.

    Returns:
        [M, count] values, falling, and [M, count] columns; equal values by smaller column.
    """
    # One more tells whether the last one is tied with the first that is left out.
    values, ids = _any_top(logits, min(count + 1, logits.shape[1]))
    tied = (values[:, 1:] == values[:, :-1]).any(1)
    values, ids = values[:, :count], ids[:, :count]
    for row in tied.nonzero().squeeze(1).tolist():
        ids[row] = _exact_top(logits[row], values[row, -1], count)
        values[row] = logits[row, ids[row]]
    return values, ids


def _exact_top(logits: Tensor, least: Tensor, count: int) -> Tensor:
    ids = (logits >= least).nonzero().squeeze(1)
    order = logits[ids].sort(descending=True, stable=True).indices
    return ids[order[:count]]


def _any_top(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The same, of equal values any."""
    width = math.isqrt(logits.shape[1] // count)
    if logits.device.type != "cpu" or width < 2 or logits.shape[1] < NARROWEST:
        return logits.topk(count)
    blocks = logits.shape[1] // width
    whole = width * blocks
    best = logits[:, :whole].reshape(-1, width, blocks).amax(1).topk(count, sorted=False)
    columns = torch.arange(0, whole, blocks).view(1, width, 1) + best.indices.unsqueeze(1)
    rest = torch.arange(whole, logits.shape[1]).expand(logits.shape[0], -1)
    among = torch.cat((columns.flatten(1), rest), 1)
    values, places = logits.gather(1, among).topk(count)
    return values, among.gather(1, places)
