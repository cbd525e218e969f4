"""A decoder's weights as the kernels take them: one copy, in the precision that they came in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model_runtime.decoder.description import Attention, Decoder, Layer, Linear, Norm
from model_runtime.native.kernels import Activation, PackedWeight, pack


@dataclass(frozen=True, slots=True)
class PackedLinear:
    """A linear layer's weight by panels, and its bias."""

    weight: PackedWeight
    bias: Tensor | None

    @classmethod
    def of(cls, linear: Linear) -> PackedLinear:
        """Copy a linear layer's weights, as one product."""
        weight = held(torch.cat(linear.weights))
        bias = None
        if any(part is not None for part in linear.biases):
            pairs = zip(linear.weights, linear.biases, strict=True)
            bias = torch.cat([w.new_zeros(len(w)) if b is None else b for w, b in pairs])
        return cls(pack(weight, weight.dtype), bias)

    @property
    def inputs(self) -> int:
        return self.weight.in_features

    @property
    def outputs(self) -> int:
        return self.weight.out_features


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """One layer; what is not said here is as in ``description.Layer``.

    Attributes:
        rotation: which of the decoder's angle tables it uses; None for none.
    """

    attention: Attention
    qkv: PackedLinear
    output: PackedLinear
    up: PackedLinear
    down: PackedLinear
    gated: bool
    activation: Activation
    norms: tuple[Norm | None, Norm | None, Norm | None, Norm | None]
    parallel: bool
    rotation: int | None

    @classmethod
    def of(cls, layer: Layer, rotation: int | None) -> PackedLayer:
        """Copy a layer's weights."""
        return cls(
            attention=layer.attention,
            qkv=PackedLinear.of(layer.qkv),
            output=PackedLinear.of(layer.output),
            up=PackedLinear.of(layer.up),
            down=PackedLinear.of(layer.down),
            gated=layer.gated,
            activation=layer.activation,
            norms=layer.norms,
            parallel=layer.parallel,
            rotation=rotation,
        )

    @property
    def multiply_adds(self) -> int:
        """Of its products, per row."""
        return sum(x.inputs * x.outputs for x in (self.qkv, self.output, self.up, self.down))


class Embedding:
    """Token embeddings, and those of positions where they are learned."""

    def __init__(self, decoder: Decoder) -> None:
        self._table = held(decoder.embedding)
        self._scale = decoder.embedding_scale
        self._positions = None if decoder.positions is None else decoder.positions.clone()

    def write(self, x: Tensor, token_ids: Tensor, positions: Tensor) -> None:
        """Write [N, hidden] embeddings of [N] tokens at [N] positions into ``x``."""
        x.copy_(self._table.index_select(0, token_ids))
        if self._scale != 1.0:
            x.mul_(self._scale)
        if self._positions is not None:
            x.add_(self._positions.index_select(0, positions))


def held(weight: Tensor) -> Tensor:
    """A copy in bfloat16 where that rounds no value, else in float32."""
    narrow = weight.bfloat16()
    return narrow if torch.equal(narrow.float(), weight) else weight.clone()
