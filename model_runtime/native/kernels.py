"""Every native kernel as an operation: its shapes, types and strides, checked before C sees them.

Tensors are float32 on the CPU unless it says otherwise. The last dimension is contiguous; rows
may lie apart, so a slice of the columns of a wider tensor is taken as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from model_runtime.native.checks import (
    check_angles,
    check_indices,
    check_rows,
    check_shape,
    check_spans,
    check_stored,
    flags_address,
    vector_address,
)
from model_runtime.native.library import (
    MOST_DIM,
    MOST_GROUP,
    PANEL,
    AttentionArguments,
    GatedArguments,
    Kind,
    NormArguments,
    Operation,
    ProductArguments,
    RotationArguments,
)

LANES = 16

Activation = Literal["silu", "gelu_tanh", "gelu_erf"]
_ACTIVATIONS: tuple[Activation, ...] = ("silu", "gelu_tanh", "gelu_erf")


K_BLOCK = 128
"""Products that are added up in one chain; the sums of chains are added up in their order."""


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """A weight by panels of 64 outputs.

    Attributes:
        panels: [ceil(out / 64), in, 64] in float32 or bfloat16, zeros behind the last output.
        out_features, in_features: of the weight.
        block: of k; see ``K_BLOCK``.
    """

    panels: Tensor
    out_features: int
    in_features: int
    block: int


def pack(weight: Tensor, dtype: torch.dtype = torch.float32, block: int = K_BLOCK) -> PackedWeight:
    """Lay out a [out, in] weight, whose products have chains of ``block``.

    Raises:
        ValueError: it has no such shape, or some value of it would be rounded.
    """
    if weight.dim() != 2 or 0 in weight.shape:
        raise ValueError(f"weight must be [out, in], is {list(weight.shape)}")
    if dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"weights are held in float32 or bfloat16, not {dtype}")
    out_features, in_features = weight.shape
    panels = torch.zeros(-(-out_features // PANEL), in_features, PANEL, dtype=dtype)
    for first, rows in enumerate(torch.split(weight.detach(), PANEL)):  # no second copy of it all
        held = rows.to(dtype)
        if held.dtype is not rows.dtype and not torch.equal(held.to(rows.dtype), rows):
            raise ValueError(f"weight is not representable in {dtype}")
        panels[first, :, : len(rows)] = held.t()
    return PackedWeight(panels, out_features, in_features, block)


def product(x: Tensor, weight: PackedWeight, bias: Tensor | None, y: Tensor) -> Operation:
    """y = x W^T + bias for [rows, in] rows; y is [rows, out] and not part of x."""
    rows = check_rows("x", x, weight.in_features)
    check_shape("y", y, rows, weight.out_features)
    arguments = ProductArguments(
        x=x.data_ptr(),
        x_stride=x.stride(0),
        weight=weight.panels.data_ptr(),
        weight_is_bf16=weight.panels.dtype is torch.bfloat16,
        bias=vector_address("bias", bias, weight.out_features),
        y=y.data_ptr(),
        y_stride=y.stride(0),
        rows=rows,
        in_features=weight.in_features,
        out_features=weight.out_features,
        block=weight.block,
    )
    return Operation.of(Kind.PRODUCT, arguments, x, weight.panels, bias, y)


def rms_norm(
    x: Tensor, weight: Tensor, epsilon: float, y: Tensor, *, add: Tensor | None = None
) -> Operation:
    """y = x / sqrt(mean(x^2) + epsilon) * weight, [rows, width]; before that x += add, in place.

    y may be x itself.
    """
    return _norm(x, weight, None, epsilon, y, add, centred=False)


def layer_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    epsilon: float,
    y: Tensor,
    *,
    add: Tensor | None = None,
) -> Operation:
    """y = (x - mean) / sqrt(variance + epsilon) * weight + bias; before that x += add, in place.

    y may be x itself.
    """
    return _norm(x, weight, bias, epsilon, y, add, centred=True)


def add_rows(x: Tensor, add: Tensor) -> Operation:
    """x += add, [rows, width] each."""
    return _norm(x, None, None, 0.0, None, add, centred=False)


def gated(gate: Tensor, up: Tensor | None, activation: Activation, y: Tensor) -> Operation:
    """y = activation(gate) * up, [rows, width] each; without ``up`` the activation alone."""
    if activation not in _ACTIVATIONS:
        raise ValueError(f"activation must be one of {_ACTIVATIONS}, is {activation!r}")
    rows = check_rows("gate", gate, gate.shape[-1])
    width = gate.shape[1]
    if up is not None:
        check_shape("up", up, rows, width)
    check_shape("y", y, rows, width)
    arguments = GatedArguments(
        gate=gate.data_ptr(),
        gate_stride=gate.stride(0),
        up=None if up is None else up.data_ptr(),
        up_stride=0 if up is None else up.stride(0),
        y=y.data_ptr(),
        y_stride=y.stride(0),
        rows=rows,
        width=width,
        activation=_ACTIVATIONS.index(activation),
    )
    return Operation.of(Kind.GATED, arguments, gate, up, y)


def rotate_and_store(
    qkv: Tensor,
    cosine: Tensor | None,
    sine: Tensor | None,
    slots: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    query_norm: Tensor | None = None,
    key_norm: Tensor | None = None,
    epsilon: float = 0.0,
    bad: Tensor | None = None,
) -> Operation:
    """Rotate the queries in place; write the keys, rotated, and the values to their slots.

    Args:
        qkv: [rows, (heads + 2 kv_heads) head_dim], queries first, then keys, then values.
        cosine, sine: [rows, rotated], where ``rotated`` is head_dim or less, and even; None
            where nothing is rotated.
        slots: [rows] int64, each row another one.
        keys, values: [slots, kv_heads, head_dim], contiguous.
        query_norm, key_norm: [head_dim], of an RMSNorm of every head before the rotation.
        bad: [rows] uint8, becomes 1 for rows whose keys or values are not finite, and stays as it
            is for others. Of such rows zeros are stored, asked or not.
    """
    rows, heads, kv_heads, dim = _check_projected(qkv, slots, keys, values)
    rotated = check_angles(cosine, sine, rows, dim)
    arguments = RotationArguments(
        qkv=qkv.data_ptr(),
        qkv_stride=qkv.stride(0),
        cosine=None if cosine is None else cosine.data_ptr(),
        sine=None if sine is None else sine.data_ptr(),
        angle_stride=0 if cosine is None else cosine.stride(0),
        query_norm=vector_address("query_norm", query_norm, dim),
        key_norm=vector_address("key_norm", key_norm, dim),
        slots=slots.data_ptr(),
        keys=keys.data_ptr(),
        values=values.data_ptr(),
        slot_stride=keys.stride(0),
        bad=flags_address("bad", bad, rows),
        rows=rows,
        heads=heads,
        kv_heads=kv_heads,
        dim=dim,
        rotated=rotated,
        epsilon=epsilon,
    )
    held = (qkv, cosine, sine, slots, keys, values, query_norm, key_norm, bad)
    return Operation.of(Kind.ROTATION, arguments, *held)


def _check_projected(
    qkv: Tensor, slots: Tensor, keys: Tensor, values: Tensor
) -> tuple[int, int, int, int]:
    """Rows, heads, kv_heads and head_dim, in which all of them agree."""
    _, kv_heads, dim = check_stored(keys, values)
    rows = check_rows("qkv", qkv, qkv.shape[-1])
    check_indices("slots", slots, rows, keys.shape[0])
    return rows, _query_heads(qkv.shape[1], kv_heads, dim), kv_heads, dim


def _query_heads(columns: int, kv_heads: int, dim: int) -> int:
    """Of queries, keys and values that lie side by side."""
    heads, rest = divmod(columns - 2 * kv_heads * dim, dim)
    if heads < 1 or rest:
        raise ValueError(f"qkv has {columns} columns for {kv_heads} kv heads of {dim}")
    return heads


def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    slots: Tensor,
    spans: Tensor,
    y: Tensor,
    *,
    scaling: float,
    window: int | None = None,
    softcap: float | None = None,
) -> Operation:
    """Attention of each row to the keys in its own slots, in the order of their positions.

    Args:
        query: [rows, heads head_dim]; y: the same, not part of it.
        keys, values: [slots, kv_heads, head_dim], contiguous; head_dim is a multiple of 16.
        slots: [n] int64, slots of near and far parts.
        spans: [rows, 4] int64: where a row's near part begins in ``slots``, how many keys it has,
            at least one, and the same of its far part. The far part holds the positions from 0
            on, the near part those behind it up to the row's own.
        window: a row sees its ``window`` latest positions; None for all.
        softcap: scores become ``softcap * tanh(score / softcap)``.
    """
    if (window is not None and window < 1) or (softcap is not None and softcap <= 0):
        raise ValueError("window and softcap must be positive")
    rows, kv_heads, group, dim = _check_attended(query, keys, values, slots, y)
    check_spans(spans, rows, slots.shape[0])
    arguments = AttentionArguments(
        query=query.data_ptr(),
        query_stride=query.stride(0),
        keys=keys.data_ptr(),
        values=values.data_ptr(),
        slot_stride=keys.stride(0),
        slots=slots.data_ptr(),
        spans=spans.data_ptr(),
        y=y.data_ptr(),
        y_stride=y.stride(0),
        rows=rows,
        kv_heads=kv_heads,
        group=group,
        dim=dim,
        window=window or 0,
        scaling=scaling,
        softcap=softcap or 0.0,
    )
    return Operation.of(Kind.ATTENTION, arguments, query, keys, values, slots, spans, y)


def _check_attended(
    query: Tensor, keys: Tensor, values: Tensor, slots: Tensor, y: Tensor
) -> tuple[int, int, int, int]:
    """Rows, kv_heads, query heads for each of them, and head_dim, in which all of them agree."""
    _, kv_heads, dim = check_stored(keys, values)
    group = _group(query.shape[-1], kv_heads, dim)
    rows = check_rows("query", query, group * kv_heads * dim)
    check_shape("y", y, rows, query.shape[1])
    check_indices("slots", slots, None, keys.shape[0])
    return rows, kv_heads, group, dim


def _group(columns: int, kv_heads: int, dim: int) -> int:
    """Query heads that share a head of keys."""
    group, rest = divmod(columns, kv_heads * dim)
    if rest or not 1 <= group <= MOST_GROUP:
        raise ValueError(f"query has {columns} columns for {kv_heads} kv heads of {dim}")
    if dim % LANES or dim > MOST_DIM:
        raise ValueError(f"head_dim must be a multiple of {LANES} up to {MOST_DIM}, is {dim}")
    return group


def set_key_spans(operation: Operation, slots: Tensor, spans: Tensor) -> None:
    """Let an ``attend`` operation take other slots and spans, which the caller has checked."""
    operation.arguments.slots = slots.data_ptr()
    operation.arguments.spans = spans.data_ptr()


def _norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    epsilon: float,
    y: Tensor | None,
    add: Tensor | None,
    *,
    centred: bool,
) -> Operation:
    rows = check_rows("x", x, x.shape[-1])
    width = x.shape[1]
    if y is not None:
        check_shape("y", y, rows, width)
    if add is not None:
        check_shape("add", add, rows, width)
    arguments = NormArguments(
        x=x.data_ptr(),
        x_stride=x.stride(0),
        add=None if add is None else add.data_ptr(),
        add_stride=0 if add is None else add.stride(0),
        weight=vector_address("weight", weight, width),
        bias=vector_address("bias", bias, width),
        y=None if y is None else y.data_ptr(),
        y_stride=0 if y is None else y.stride(0),
        rows=rows,
        width=width,
        epsilon=epsilon,
        centred=centred,
    )
    return Operation.of(Kind.NORM, arguments, x, weight, bias, y, add)
