"""What is read off transformers' models, and what is not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from model_runtime.attention.interface import ATTENTION_NAME
from model_runtime.decoder.description import Decoder, NotDescribed
from model_runtime.decoder.from_transformers import describe
from tests.tiny_models import tiny_model


def model_of(kind: str, **overrides: object) -> PreTrainedModel:
    model = tiny_model(kind, **overrides)
    model.set_attn_implementation(ATTENTION_NAME)
    return model


def described(kind: str, **overrides: object) -> Decoder:
    return describe(model_of(kind, **overrides))


def test_settings_are_those_that_layers_ask_attention_for() -> None:
    """Windows of some layers, caps, scales that are no root of the head's width."""
    gemma = described("gemma2")
    attentions = [gemma.layer(index).attention for index in range(gemma.layer_count)]
    assert [a.window for a in attentions] == [200, None, 200]
    assert {a.softcap for a in attentions} == {3.0}
    assert {a.scaling for a in attentions} == {24**-0.5}
    assert gemma.logit_softcap == 8.0 and gemma.embedding_scale == 8.0
    qwen = described("qwen2")
    assert [qwen.layer(i).attention.window for i in range(3)] == [None, 100, 100]
    scaled = described("gpt2", scale_attn_by_inverse_layer_idx=True)
    assert [scaled.layer(i).attention.scaling for i in range(3)] == [0.25, 0.125, 0.25 / 3]


def test_rotations_follow_the_layers_type() -> None:
    """Two bases in one model, a part of a head, and none."""
    gemma = described("gemma3")
    rotations = [gemma.layer(index).rotation for index in range(3)]
    assert all(rotation is not None for rotation in rotations)
    first, second, third = (r.inverse_frequencies for r in rotations if r is not None)
    assert torch.equal(first, third) and not torch.equal(first, second)
    phi = described("phi3").layer(0).rotation
    assert phi is not None and len(phi.inverse_frequencies) == 4
    assert described("gpt2").layer(0).rotation is None


def test_norms_are_taken_for_what_they_do() -> None:
    """Gemma's weight is meant as 1 + weight, though the class has the same name and fields."""
    model = model_of("gemma2")
    norm = describe(model).norm
    assert torch.equal(norm.weight, 1 + model.base_model.norm.weight)
    plain = model_of("llama")
    assert torch.equal(describe(plain).norm.weight, plain.base_model.norm.weight)


class _OtherNorm(nn.Module):
    """Divides by the mean of the sizes instead of the root of the mean square."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), 1e-6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x / (x.abs().mean(-1, keepdim=True) + self.eps)


def test_what_is_not_known_is_named_and_nothing_is_changed() -> None:
    """Layers, norms, activations, heads, positions of another kind."""
    other_norm = model_of("llama")
    other_norm.base_model.layers[2].input_layernorm = _OtherNorm(64)
    other_activation = model_of("llama")
    other_activation.base_model.layers[1].mlp.act_fn = nn.ReLU()
    dynamic = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
    wide_group = {"num_attention_heads": 32, "num_key_value_heads": 1, "head_dim": 16}
    refused = {
        "_OtherNorm": other_norm,
        "ReLU": other_activation,
        "8 columns": model_of("smollm"),
        "dynamic": model_of("llama", rope_parameters=dynamic),
        "32 query heads": model_of("llama", **wide_group),
    }
    for reason, model in refused.items():
        before = {name: weight.clone() for name, weight in model.named_parameters()}
        with pytest.raises(NotDescribed, match=reason):
            describe(model)
        for name, weight in model.named_parameters():
            assert torch.equal(weight, before[name])


def test_a_layer_of_an_unknown_class_is_not_described() -> None:
    """By its name, as its parts may have other meanings."""

    class OtherLayer(nn.Module):
        pass

    model = model_of("llama")
    model.base_model.layers[1] = OtherLayer()
    with pytest.raises(NotDescribed, match="OtherLayer"):
        describe(model)


@pytest.mark.parametrize(("theta", "width"), [(1e4, 96), (1e6, 128), (5e5, 96), (1e4, 256)])
def test_frequencies_do_not_depend_on_torchs_own_powers(theta: float, width: int) -> None:
    """Rounded once from float64; torch's, which differ between instruction sets, are close by."""
    rope = {"rope_type": "default", "rope_theta": theta}
    model = model_of("llama", head_dim=width, rope_parameters=rope)
    rotation = describe(model).layer(0).rotation
    assert rotation is not None
    for place, found in enumerate(rotation.inverse_frequencies.tolist()):
        exponent = torch.tensor(2 * place) / width
        power = torch.tensor(math.pow(theta, float(exponent)), dtype=torch.float64).float()
        assert found == float(1.0 / power)
    theirs = model.base_model.rotary_emb.inv_freq
    assert torch.allclose(rotation.inverse_frequencies, theirs, rtol=1e-6)
