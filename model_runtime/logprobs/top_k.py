"""Which tokens of a row of logits are listed, with their log-probs and ranks.

Rows that want the same are done together: a step of many searches is few calls, not many rows.
A log-prob is ``logit - log_sum`` in float32, to the bit what it is where the id is asked by name.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from operator import neg

import torch
from torch import Tensor

from model_runtime.kernels.rows import read_rows, row_index
from model_runtime.logprobs.columns import TokenColumns
from model_runtime.logprobs.set_mass import ids_of
from model_runtime.logprobs.tile import ReducedTile
from model_runtime.token_set import TokenSet
from model_runtime.types import TokenLogprob, TopKSelection

FEW = 16
"""So many ids are looked for one by one: more cost less when looked for together."""


TopTokens = Callable[[Sequence[int], int], tuple[Tensor, Tensor]]
"""(rows, count) -> values and columns of the largest of these rows, as from ``top_tokens``."""


def top_of_rows(
    logits: Tensor, log_sum: Tensor, counts: Sequence[tuple[int, int]], top: TopTokens
) -> Iterator[tuple[int, tuple[TokenLogprob, ...]]]:
    """The most probable tokens of rows, of equal ones the smaller ids first.

    Args:
        logits: [M, vocab]; the rows that are asked for are finite.
        log_sum: [M].
        counts: (row, how many tokens it lists).
        top: finds them.

    Yields:
        Each row with its tokens, in any order.
    """
    together: dict[int, list[int]] = {}
    for row, count in counts:
        together.setdefault(min(count, logits.shape[1]), []).append(row)
    for count, rows in together.items():
        index = row_index(rows, logits.device)
        values, ids = top(rows, count)
        logprobs = values - read_rows(log_sum, index).unsqueeze(1)
        for row, *listed in zip(rows, ids.tolist(), logprobs.tolist(), strict=True):
            yield row, tuple(map(TokenLogprob, *listed))


def choices_of_rows(
    logits: Tensor,
    log_sum: Tensor,
    asked: Sequence[tuple[int, TopKSelection]],
    top: TopTokens,
) -> Iterator[tuple[tuple[int, TopKSelection], TokenColumns]]:
    """What choices list of rows; a row may be asked for several.

    Args:
        logits: [M, vocab]; the rows that are asked for are finite.
        log_sum: [M].
        asked: (row, choice), each pair once.
        top: finds the most probable tokens of rows.

    Yields:
        Each pair with its tokens, most probable first, in any order.
    """
    together: dict[object, list[tuple[int, TopKSelection]]] = {}
    for pair in asked:
        together.setdefault(_kind(pair[1]), []).append(pair)
    for pairs in together.values():
        rows = [row for row, _ in pairs]
        index = row_index(rows, logits.device)
        choices = [choice for _, choice in pairs]
        if choices[0].allowed is None:
            values, ids = top(rows, min(logits.shape[1], choices[0].count))
            ranks = _places(values)
        else:
            values, ids, ranks = _ranked(read_rows(logits, index), choices, choices[0].allowed)
        logprobs = values - read_rows(log_sum, index).unsqueeze(1)
        lists = zip(pairs, ids.tolist(), logprobs.tolist(), ranks.tolist(), strict=True)
        for pair, *listed in lists:
            yield pair, _listed(pair[1], *listed)


def _kind(choice: TopKSelection) -> object:
    """Choices of the same kind are looked up together, each in its own row."""
    allowed = choice.allowed
    return None if allowed is not None and len(allowed) <= FEW else (choice.count, allowed)


def _listed(
    choice: TopKSelection, ids: list[int], logprobs: list[float], ranks: list[int]
) -> TokenColumns:
    """Of falling candidates those that are allowed, possible, and not below the floor."""
    floor = -math.inf if choice.floor is None else choice.floor
    stop = bisect_right(logprobs, -floor, key=neg)
    while stop and logprobs[stop - 1] == -math.inf:
        stop -= 1
    allowed = choice.allowed
    if allowed is None:
        return TokenColumns(ids[:stop], logprobs[:stop], ranks[:stop])
    kept = [place for place in range(stop) if ids[place] in allowed][: choice.count]
    return TokenColumns(
        [ids[place] for place in kept],
        [logprobs[place] for place in kept],
        [ranks[place] for place in kept],
    )


def _ranked(
    logits: Tensor, choices: Sequence[TopKSelection], allowed: TokenSet
) -> tuple[Tensor, Tensor, Tensor]:
    """[M, *] logits, ids and ranks of enough tokens for choices of one kind, falling.

    ``allowed`` are those of the first choice, and of all where they are many.
    """
    count = choices[0].count
    vocab = logits.shape[1]
    missing = vocab - len(allowed)
    if missing <= FEW < len(allowed):
        values, ids = top_tokens(logits, min(vocab, count + missing))
        return values, ids, _places(values)
    if len(allowed) <= FEW:
        values, ids = _few(logits, [tuple(choice.allowed or ()) for choice in choices])
    else:
        columns = ids_of(allowed).to(logits.device)
        values, places = top_tokens(logits.index_select(1, columns), min(count, len(allowed)))
        ids = columns[places]
    return values, ids, 1 + _greater(logits, values)


def _places(values: Tensor) -> Tensor:
    """Ranks of the largest: everything above a place is listed there too."""
    return 1 + torch.searchsorted(-values, -values)


def _few(logits: Tensor, allowed: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
    """All of each row's own ids, which ascend; shorter rows are filled up with impossible ones."""
    width = max(map(len, allowed))
    filled = [ids + (0,) * (width - len(ids)) for ids in allowed]
    columns = torch.tensor(filled, device=logits.device)
    lengths = torch.tensor([len(ids) for ids in allowed], device=logits.device).unsqueeze(1)
    surplus = torch.arange(width, device=logits.device) >= lengths
    found = logits.gather(1, columns).masked_fill(surplus, -math.inf)
    values, order = found.sort(descending=True, stable=True)
    return values, columns.gather(1, order)


def _greater(logits: Tensor, values: Tensor) -> Tensor:
    """[M, K] how many logits of its row are greater than each of ``values``, which fall."""
    if values.shape[1] <= FEW:
        above = torch.empty_like(logits)
        columns = [torch.gt(logits, v.unsqueeze(1), out=above).sum(-1) for v in values.unbind(1)]
        return torch.stack(columns, 1).long()
    # Each logit is greater than all values behind a place: counted there, then summed up.
    behind = torch.searchsorted(-values, -logits, right=True)
    counts = torch.zeros(values.shape[0], values.shape[1] + 1, device=logits.device)
    counts.scatter_add_(1, behind, torch.ones_like(logits))
    return counts[:, :-1].cumsum(1).long()


NARROWEST = 2048
"""Columns below which a plain ``topk`` is as quick."""


def top_of_tile(
    logits: Tensor, reduced: ReducedTile, rows: Sequence[int], count: int
) -> tuple[Tensor, Tensor]:
    """A ``TopTokens`` of a tile: what its reduction has found already, else ``top_tokens``."""
    index = row_index(rows, logits.device)
    values, ids = reduced.top_logits, reduced.top_ids
    if values is None or ids is None or count > values.shape[1]:
        return top_tokens(read_rows(logits, index), count)
    return read_rows(values, index)[:, :count], read_rows(ids, index)[:, :count]


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
