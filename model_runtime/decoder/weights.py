"""A decoder's weights as the kernels take them: one copy, in the precision that they came in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from model_runtime.decoder.description import Attention, Decoder, Layer, Linear, Norm
from model_runtime.kernels import linear as kernels_linear
from model_runtime.kernels.threads import ThreadLimiter
from model_runtime.native.kernels import Activation, PackedWeight, pack


@dataclass(frozen=True, slots=True)
class NativeLinear:
    """A linear layer's weight by panels, and its bias."""

    weight: PackedWeight
    bias: Tensor | None

    @classmethod
    def of(cls, linear: Linear) -> NativeLinear:
        """Copy a linear layer's weights, as one product."""
        narrow = all(map(is_bfloat16, linear.weights))
        dtype = torch.bfloat16 if narrow else torch.float32
        return cls(pack(_joined(linear.weights), dtype), _joined_bias(linear))

    @property
    def inputs(self) -> int:
        return self.weight.in_features

    @property
    def outputs(self) -> int:
        return self.weight.out_features


class BFloat16Linear:
    """A linear layer whose product alone is in bfloat16, by oneDNN.

    Attributes:
        linear: the layer as torch's kernels take it; how many rows its products have is set there.
    """

    def __init__(self, linear: Linear, threads: ThreadLimiter) -> None:
        """Copy a linear layer's weights, as one product."""
        bias = _joined_bias(linear)
        weight = _joined(linear.weights)
        self.linear = kernels_linear.PackedLinear(weight, bias, torch.bfloat16, threads)

    @property
    def inputs(self) -> int:
        return int(self.linear.in_features)

    @property
    def outputs(self) -> int:
        return int(self.linear.out_features)


MakeLinear = Callable[[Linear], NativeLinear | BFloat16Linear]
"""How the weights of a layer are copied."""


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """One layer; what is not said here is as in ``description.Layer``.

    Attributes:
        rotation: which of the decoder's angle tables it uses; None for none.
    """

    attention: Attention
    qkv: NativeLinear | BFloat16Linear
    output: NativeLinear | BFloat16Linear
    up: NativeLinear | BFloat16Linear
    down: NativeLinear | BFloat16Linear
    gated: bool
    activation: Activation
    norms: tuple[Norm | None, Norm | None, Norm | None, Norm | None]
    parallel: bool
    rotation: int | None

    @classmethod
    def of(cls, layer: Layer, rotation: int | None, make_linear: MakeLinear) -> PackedLayer:
        """Copy a layer's weights."""
        return cls(
            attention=layer.attention,
            qkv=make_linear(layer.qkv),
            output=make_linear(layer.output),
            up=make_linear(layer.up),
            down=make_linear(layer.down),
            gated=layer.gated,
            activation=layer.activation,
            norms=layer.norms,
            parallel=layer.parallel,
            rotation=rotation,
        )

    @property
    def linears(self) -> tuple[NativeLinear | BFloat16Linear, ...]:
        """All four."""
        return self.qkv, self.output, self.up, self.down

    @property
    def multiply_adds(self) -> int:
        """Of its products, per row."""
        return sum(linear.inputs * linear.outputs for linear in self.linears)


class Embedding:
    """Token embeddings, and those of positions where they are learned."""

    def __init__(self, decoder: Decoder) -> None:
        narrow = is_bfloat16(decoder.embedding)
        self._table = decoder.embedding.to(torch.bfloat16 if narrow else torch.float32, copy=True)
        self._scale = decoder.embedding_scale
        self._positions = None if decoder.positions is None else decoder.positions.clone()

    def write(self, x: Tensor, token_ids: Tensor, positions: Tensor) -> None:
        """Write [N, hidden] embeddings of [N] tokens at [N] positions into ``x``."""
        x.copy_(self._table.index_select(0, token_ids))
        if self._scale != 1.0:
            x.mul_(self._scale)
        if self._positions is not None:
            x.add_(self._positions.index_select(0, positions))


def _joined_bias(linear: Linear) -> Tensor | None:
    """Of all outputs, zeros where a part of them has none."""
    if all(part is None for part in linear.biases):
        return None
    pairs = zip(linear.weights, linear.biases, strict=True)
    return torch.cat([w.new_zeros(len(w)) if b is None else b for w, b in pairs])


def _joined(weights: tuple[Tensor, ...]) -> Tensor:
    return weights[0] if len(weights) == 1 else torch.cat(weights)


def is_bfloat16(weight: Tensor) -> bool:
    """Whether no value is rounded by bfloat16."""
    return all(torch.equal(rows.bfloat16().float(), rows) for rows in torch.split(weight, 1024))
