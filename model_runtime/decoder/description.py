"""What a decoder consists of, read off a transformers model and independent of its class.

    x = embedding(token) (+ learned position)
    layer       x += after(attention(before(x)))     then   x += after(mlp(before(x)))
    parallel    x += attention(before(x)) + mlp(other before(x))
    hidden      final norm of x

Everything else that a family does is in these parts: a norm before a sublayer, behind it or both,
norms of queries and keys, biases, windows, soft caps, how much of a head positions rotate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from model_runtime.native.kernels import Activation


class NotDescribed(Exception):
    """The native kernels do not know this model; the message says what of it."""


@dataclass(frozen=True, slots=True)
class Norm:
    """RMSNorm, or LayerNorm where it is centred.

    Attributes:
        weight, bias: [width] in float32.
    """

    weight: Tensor
    bias: Tensor | None
    epsilon: float
    centred: bool


@dataclass(frozen=True, slots=True)
class Linear:
    """y = x W^T + b.

    Attributes:
        weights: [out, in] each; their outputs lie one after the other.
        biases: [out] of each weight, or None.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor | None, ...]


@dataclass(frozen=True, slots=True)
class HeadNorms:
    """Norms of queries and keys before they are rotated.

    Attributes:
        scope: ``head`` of every head by itself, ``all`` of a row's whole queries, or whole keys.
    """

    query: Norm
    key: Norm
    scope: Literal["head", "all"]


@dataclass(frozen=True, slots=True)
class Rotation:
    """Rotary positions: column pair i of a head turns by position * inverse_frequencies[i].

    Attributes:
        inverse_frequencies: [rotated columns / 2] in float32.
        scaling: of the cosines and sines.
    """

    inverse_frequencies: Tensor
    scaling: float


@dataclass(frozen=True, slots=True)
class Attention:
    """What one layer's attention does between its projections.

    Attributes:
        norms: of queries and keys; None where there are none.
        scaling: of the scores.
        window: latest positions that a row sees; None for all.
        softcap: scores become ``softcap * tanh(score / softcap)``; None for no cap.
    """

    heads: int
    kv_heads: int
    head_dim: int
    norms: HeadNorms | None
    scaling: float
    window: int | None
    softcap: float | None


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer.

    Attributes:
        qkv: queries of all heads, then keys, then values.
        output: of attention, back to the hidden size.
        rotation: None where positions do not rotate.
        up: of the MLP; where it is ``gated`` the gate's outputs, then those of up.
        down: of the MLP, which is down(activation(gate) * up), or down(activation(up)).
        norms: before attention, behind it, before the MLP, behind it; None where there is none.
        parallel: attention and MLP read the same x.
        module: whose weights these are; see ``release``.
    """

    attention: Attention
    qkv: Linear
    output: Linear
    rotation: Rotation | None
    up: Linear
    down: Linear
    gated: bool
    activation: Activation
    norms: tuple[Norm | None, Norm | None, Norm | None, Norm | None]
    parallel: bool
    module: nn.Module

    def release(self) -> None:
        """Let go of the module's own weights, which have been copied."""
        for parameter in self.module.parameters():
            parameter.data = parameter.data.new_empty(0)


@dataclass(frozen=True, slots=True)
class Decoder:
    """A whole decoder.

    Attributes:
        embedding: [vocab, hidden]; what it gives is multiplied by ``embedding_scale``.
        positions: [longest path, hidden], of learned positions; else None.
        layers: reads a layer; its number of them is ``layer_count``.
        head: [vocab, hidden], and its bias.
        logit_softcap: of the logits; None for none.
    """

    embedding: Tensor
    embedding_scale: float
    positions: Tensor | None
    layer_count: int
    layer: Callable[[int], Layer]
    norm: Norm
    head: Linear
    logit_softcap: float | None
