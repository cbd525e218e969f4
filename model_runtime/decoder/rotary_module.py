"""Reads the rotation of a layer's positions off transformers' rotary module."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from model_runtime.decoder.description import NotDescribed, Rotation


def read_rotation(decoder: Any, layer: Any) -> Rotation:
    """Of the layer's type, where layers of different types rotate differently."""
    original = getattr(decoder, "rotary_emb", None)
    module = None if original is None else _recomputed(original)
    kind = getattr(getattr(layer, "self_attn", None), "layer_type", None)
    apart = hasattr(module, f"{kind}_inv_freq")
    prefix = f"{kind}_" if apart else ""
    frequencies = getattr(module, f"{prefix}inv_freq", None)
    rope_type = getattr(module, "rope_type", None)
    if frequencies is None or "dynamic" in str(rope_type):
        raise NotDescribed(f"positions of type {rope_type} are not known")
    scaling = float(getattr(module, f"{prefix}attention_scaling"))
    rotation = Rotation(frequencies.detach().float(), scaling)
    _check_rotation(original, (str(kind),) if apart else (), rotation)
    return rotation


class _RoundedPowers(TorchFunctionMode):
    """Powers in float32 rounded from float64; torch has a formula for each instruction set."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__rpow__:
            exponents, base = args
            powers = [math.pow(base, exponent) for exponent in exponents.double().tolist()]
            return torch.tensor(powers, dtype=torch.float64).to(exponents.dtype)
        return func(*args, **(kwargs or {}))


def _recomputed(module: Any) -> nn.Module:
    """The rotary module made once more out of its config, the same on every machine."""
    try:
        with _RoundedPowers():
            new: nn.Module = type(module)(module.config)
    except (AttributeError, TypeError) as error:
        raise NotDescribed(f"{type(module).__name__} is not made from a config alone") from error
    return new


def _check_rotation(module: Any, kind: tuple[str, ...], rotation: Rotation) -> None:
    positions = torch.tensor([[0, 1, 7]])
    with torch.inference_mode():
        cosine, _ = module(torch.zeros(1), positions, *kind)
    angles = positions[0].unsqueeze(1) * rotation.inverse_frequencies.repeat(2)
    if cosine[0].shape != angles.shape or not torch.allclose(
        cosine[0], angles.cos() * rotation.scaling, atol=1e-4
    ):
        raise NotDescribed(f"{type(module).__name__} computes angles of its own")
