"""The memory that a forward takes on a CPU, predicted before it runs.

There a process that takes too much is killed, so what a batch needs at its peak is estimated from
above, from its shape and the model's, and a batch that does not fit what is free is made smaller.
A forward holds, one after the other and never together:

    a layer's attention     projections and their rotated copies, the rows and keys of the kernels
    a layer's MLP           both halves of the product, and what the activation makes of them
    a tile of the head      logits, and as many again for each reduction over them

and with each of them the rows of the residual, the indices and masks of the attention, and the
pages of the KV storage that nothing was written to yet. Counts are of float32 values a token.
They were read off the code, and measured: see ``tests/model_runtime/memory/test_estimate.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from model_runtime.batching.batch import Batch
from model_runtime.batching.block_sizes import (
    BLOCK_SIZE,
    GATHERED_KEYS,
    KEY_STEP,
    ROW_STEP,
    padded_keys,
    padded_rows,
    suffix_steps,
)

FLOAT = 4
"""Bytes of a float32 value."""

RESIDUAL_COPIES = 5
"""Of the hidden state: the residual, its norm, what is added to it, and copies in between."""

MLP_COPIES = 5
"""Of the intermediate size: the two halves of the product and three steps of the activation."""

QUERY_COPIES = 8
KEY_COPIES = 6
"""Of a token's queries and keys: projected, rotated in three steps, folded, attended, merged."""

KERNEL_COPIES = 6
"""Of a padded row in a call of the kernel: what goes in, what comes out, what it merges with."""

SCORE_COPIES = 2
"""Of the scores where they are written out, which is where they are capped."""

LONGEST_SUFFIX = 2 * BLOCK_SIZE
"""Keys of a suffix span at most."""

INDEX_BYTES = 160
"""Of a padded row or gathered key, in index tensors and in the lists that they are made from."""

LOGITS_COPIES = 5
TILE_BYTES = 12 << 20
TILE_ROWS = 8
"""A tile of the head: so many bytes of logits, or so many rows where these are more."""

ANSWER_BYTES = 150
"""Of a token that is listed in an answer."""

HEAP_PER_TENSOR_BYTE = 1.6
"""The heap grows beyond what is alive in it, since what is freed is seldom of the size wanted."""

FIXED_BYTES = 16 << 20
"""Scratch of the libraries."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes of a decoder that decide what a token takes.

    Attributes:
        capped: attention scores have a soft cap, so they are written out.
        window: positions that some layers see at most, which takes masks of their own; else 0.
        row_step: a call of the attention kernel takes a multiple of so many rows.
        apart: each ``row_step`` rows of them are a product of their own, with a mask for each head.
        decoder_step, head_step: products with weights take a multiple of so many rows.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    capped: bool = False
    window: int = 0
    row_step: int = ROW_STEP
    apart: bool = False
    decoder_step: int = 1
    head_step: int = 2

    @classmethod
    def of(cls, config: Any, vocab: int) -> ModelShape:
        """The shape that a transformers config describes; ``vocab`` are the rows of the head."""
        hidden, heads = config.hidden_size, config.num_attention_heads
        inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None)
        return cls(
            layers=config.num_hidden_layers,
            hidden=hidden,
            intermediate=inner or 4 * hidden,
            heads=heads,
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or hidden // heads,
            vocab=vocab,
            capped=getattr(config, "attn_logit_softcapping", None) is not None,
            window=getattr(config, "sliding_window", None) or 0,
        )

    @property
    def kv_bytes(self) -> int:
        """Keys and values of one token in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * FLOAT


def batch_bytes(shape: ModelShape, batch: Batch) -> int:
    """Bytes that a forward takes at its peak, at most, beside what is there before it."""
    suffixes = Counter(_suffix_pieces(shape, batch))
    prefixes = Counter(
        _piece(shape, len(span.slots), sum(map(len, span.rows))) for span in batch.prefix_spans
    )
    chosen = sum(min(asked.choice.count, shape.vocab) for asked in batch.choices)
    listed = len(batch.gather_ids) + sum(batch.top_k) + chosen
    return _bytes(shape, len(batch.token_ids), len(batch.head_rows), listed, suffixes, prefixes)


def largest_batch_bytes(shape: ModelShape, tokens: int, path: int) -> int:
    """The same for any batch of ``tokens`` tokens, all of them asked, on paths of ``path`` tokens.

    Candidates of one token take most where rows are padded, a long prompt where they are masked.
    """
    prompt = Counter({_piece(shape, LONGEST_SUFFIX, KEY_STEP): -(-tokens // KEY_STEP)})
    blocks = Counter({_piece(shape, path, BLOCK_SIZE): -(-tokens // BLOCK_SIZE)})
    candidates = Counter({_piece(shape, LONGEST_SUFFIX, 1): tokens})
    shared = Counter({_piece(shape, path, tokens): 1})
    return max(
        _bytes(shape, tokens, tokens, tokens, prompt, blocks),
        _bytes(shape, tokens, tokens, tokens, candidates, shared),
    )


def _bytes(
    shape: ModelShape,
    tokens: int,
    head_rows: int,
    listed: int,
    suffixes: Counter[_Piece],
    prefixes: Counter[_Piece],
) -> int:
    rows = padded_rows(tokens, shape.decoder_step)
    attention = rows * _attention_floats(shape) * FLOAT + _largest_call(shape, suffixes + prefixes)
    mlp = rows * MLP_COPIES * shape.intermediate * FLOAT
    hidden = (tokens * RESIDUAL_COPIES + head_rows) * shape.hidden * FLOAT
    most = max(attention, mlp, head_bytes(shape, head_rows))
    tensors = hidden + _kept(shape, suffixes, prefixes) + most
    return FIXED_BYTES + int(HEAP_PER_TENSOR_BYTE * tensors) + ANSWER_BYTES * listed


def head_bytes(shape: ModelShape, rows: int) -> int:
    """A tile of the head over so many rows."""
    row = shape.vocab * FLOAT
    tile = max(TILE_BYTES, TILE_ROWS * row, shape.head_step * row)
    return LOGITS_COPIES * min(max(shape.head_step, rows) * row, tile)


def _attention_floats(shape: ModelShape) -> int:
    queries = QUERY_COPIES * shape.heads
    return (queries + KEY_COPIES * shape.kv_heads) * shape.head_dim


class _Piece(NamedTuple):
    """One span as a kernel takes it: padded keys, and padded rows times query heads a kv head."""

    keys: int
    rows: int


def _piece(shape: ModelShape, keys: int, rows: int) -> _Piece:
    folded = rows * (shape.heads // shape.kv_heads)
    return _Piece(padded_keys(keys), padded_rows(folded, shape.row_step))


def _suffix_pieces(shape: ModelShape, batch: Batch) -> Iterator[_Piece]:
    for span in batch.suffix_spans:
        for keys, rows in suffix_steps(span, batch.positions):
            yield _piece(shape, keys, len(rows))


def _largest_call(shape: ModelShape, pieces: Counter[_Piece]) -> int:
    """Of the kernel; calls come one after the other."""
    return max((_call(shape, piece, count) for piece, count in pieces.items()), default=0)


def _call(shape: ModelShape, piece: _Piece, count: int) -> int:
    together = min(count, max(1, GATHERED_KEYS // piece.keys))
    floats = (2 * piece.keys + KERNEL_COPIES * piece.rows) * shape.head_dim
    if shape.capped:
        floats += SCORE_COPIES * piece.rows * piece.keys
    elif shape.apart:
        floats += piece.rows * piece.keys
    return together * shape.kv_heads * floats * FLOAT


def _kept(shape: ModelShape, suffixes: Counter[_Piece], prefixes: Counter[_Piece]) -> int:
    """Indices and masks, which are there throughout a batch; twice where windows have their own."""
    pieces = (suffixes + prefixes).items()
    indices = sum((piece.rows + piece.keys) * n for piece, n in pieces) * INDEX_BYTES
    masks = sum(piece.rows * piece.keys * n for piece, n in suffixes.items())
    if not shape.window:
        return indices + masks * FLOAT
    reach = shape.window + BLOCK_SIZE + KEY_STEP
    prefix_masks = sum(piece.rows * min(piece.keys, reach) * n for piece, n in prefixes.items())
    return 2 * indices + (2 * masks + prefix_masks) * FLOAT
