"""Reads a decoder's description off a transformers model.

Layers of the classes in ``_READERS`` are known by their parts' names. What attention is asked for,
window, scale and soft cap, is not read but heard: the model runs one token, and each layer's own
call of attention tells. So a setting that a family interprets in its own way is taken as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import GELUActivation, GELUTanh, NewGELUActivation, SiLUActivation
from transformers.pytorch_utils import Conv1D

from model_runtime.decoder.description import (
    Attention,
    Decoder,
    HeadNorms,
    Layer,
    Linear,
    Norm,
    NotDescribed,
)
from model_runtime.decoder.rotary_module import read_rotation
from model_runtime.native.kernels import LANES, Activation
from model_runtime.native.library import MOST_DIM, MOST_GROUP


@dataclass(frozen=True, slots=True)
class _Call:
    """One layer's call of attention."""

    heads: int
    kv_heads: int
    head_dim: int
    scaling: float
    window: int | None
    softcap: float | None


class _Listener:
    """Takes the place of ``PathAttention`` for one token, and notes what it is asked."""

    def __init__(self) -> None:
        self.layers: dict[int, _Call] = {}

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float,
        window: int | None,
        softcap: float | None,
    ) -> Tensor:
        if key.shape != value.shape:
            raise NotDescribed("keys and values differ in width")
        heads, _, head_dim = query.shape
        self.layers[layer] = _Call(heads, key.shape[0], head_dim, scaling, window, softcap)
        return query.transpose(0, 1)


@dataclass(frozen=True, slots=True)
class _Parts:
    """A layer's modules. Attributes are those of ``Layer``."""

    qkv: Linear
    output: nn.Module
    up: Linear
    down: nn.Module
    activation: nn.Module
    norms: tuple[nn.Module | None, nn.Module | None, nn.Module | None, nn.Module | None]
    gated: bool = True
    head_norms: tuple[nn.Module, nn.Module] | None = None
    parallel: bool = False
    rotates: bool = True


def describe(model: PreTrainedModel) -> Decoder:
    """The description of a model in float32 on the CPU; it shares the model's memory.

    Raises:
        NotDescribed: the native kernels do not know it.
    """
    decoder = model.base_model
    layers = _layers(decoder)
    calls = _listen(model, len(layers))
    norm = next((m for n in _FINAL_NORMS if (m := getattr(decoder, n, None)) is not None), None)
    if norm is None:
        raise NotDescribed(f"{type(decoder).__name__} has no final norm of a known name")
    config = model.config.get_text_config()
    embedding = model.get_input_embeddings()
    described = Decoder(
        embedding=embedding.weight.detach(),
        embedding_scale=float(getattr(embedding, "embed_scale", 1.0)),
        positions=_learned_positions(decoder),
        layer_count=len(layers),
        layer=lambda index: _layer(decoder, layers, index, calls[index]),
        norm=_norm(norm),
        head=_linear(model.get_output_embeddings()),
        logit_softcap=getattr(config, "final_logit_softcapping", None),
    )
    for index in range(len(layers)):
        described.layer(index)  # raises for what is not known, before anything is changed
    return described


_FINAL_NORMS = ("norm", "ln_f", "final_layer_norm")


def _layers(decoder: nn.Module) -> nn.ModuleList:
    found = [getattr(decoder, name, None) for name in ("layers", "h")]
    layers = next((x for x in found if isinstance(x, nn.ModuleList)), None)
    if layers is None:
        raise NotDescribed(f"{type(decoder).__name__} has no list of layers of a known name")
    for layer in layers:
        if type(layer).__name__ not in _READERS:
            raise NotDescribed(f"layers of class {type(layer).__name__} are not known")
    return layers


def _listen(model: PreTrainedModel, layers: int) -> dict[int, _Call]:
    """What every layer asks of attention."""
    listener = _Listener()
    with torch.inference_mode():
        model.base_model(
            input_ids=torch.zeros(1, 1, dtype=torch.long),
            position_ids=torch.zeros(1, 1, dtype=torch.long),
            use_cache=False,
            path_attention=listener,
        )
    if sorted(listener.layers) != list(range(layers)):
        raise NotDescribed(f"{len(listener.layers)} of {layers} layers attend along the paths")
    for call in listener.layers.values():
        if call.head_dim % LANES or call.head_dim > MOST_DIM:
            raise NotDescribed(
                f"heads of {call.head_dim} columns: multiples of {LANES} up to {MOST_DIM} are known"
            )
        if call.heads // call.kv_heads > MOST_GROUP:
            raise NotDescribed(f"{call.heads // call.kv_heads} query heads share a key head")
    return listener.layers


def _learned_positions(decoder: nn.Module) -> Tensor | None:
    table = getattr(decoder, "wpe", None)
    return table.weight.detach() if isinstance(table, nn.Embedding) else None


def _layer(decoder: nn.Module, layers: nn.ModuleList, index: int, call: _Call) -> Layer:
    module = layers[index]
    parts = _READERS[type(module).__name__](module, call)
    attention = Attention(
        heads=call.heads,
        kv_heads=call.kv_heads,
        head_dim=call.head_dim,
        norms=_head_norms(parts.head_norms, call),
        scaling=call.scaling,
        window=call.window,
        softcap=call.softcap,
    )
    before, behind, before_mlp, behind_mlp = (
        None if norm is None else _norm(norm) for norm in parts.norms
    )
    return Layer(
        attention=attention,
        qkv=parts.qkv,
        output=_linear(parts.output),
        rotation=read_rotation(decoder, module) if parts.rotates else None,
        up=parts.up,
        down=_linear(parts.down),
        gated=parts.gated,
        activation=_activation(parts.activation),
        norms=(before, behind, before_mlp, behind_mlp),
        parallel=parts.parallel,
        module=module,
    )


def _projections(attention: Any) -> Linear:
    return _linear(attention.q_proj, attention.k_proj, attention.v_proj)


def _gated(mlp: Any) -> Linear:
    return _linear(mlp.gate_proj, mlp.up_proj)


def _read_llama(layer: Any, _call: _Call) -> _Parts:
    attention, mlp = layer.self_attn, layer.mlp
    query_norm = getattr(attention, "q_norm", None)
    return _Parts(
        qkv=_projections(attention),
        output=attention.o_proj,
        up=_gated(mlp),
        down=mlp.down_proj,
        activation=mlp.act_fn,
        norms=(layer.input_layernorm, None, layer.post_attention_layernorm, None),
        head_norms=None if query_norm is None else (query_norm, attention.k_norm),
    )


def _read_gemma2(layer: Any, call: _Call) -> _Parts:
    """Also Gemma 3, whose attention has norms of queries and keys."""
    llama = _read_llama(layer, call)
    norms = (
        *(layer.input_layernorm, layer.post_attention_layernorm),
        *(layer.pre_feedforward_layernorm, layer.post_feedforward_layernorm),
    )
    return _Parts(
        *(llama.qkv, llama.output, llama.up, llama.down, llama.activation, norms),
        head_norms=llama.head_norms,
    )


def _read_olmo2(layer: Any, _call: _Call) -> _Parts:
    attention, mlp = layer.self_attn, layer.mlp
    return _Parts(
        qkv=_projections(attention),
        output=attention.o_proj,
        up=_gated(mlp),
        down=mlp.down_proj,
        activation=mlp.act_fn,
        norms=(None, layer.post_attention_layernorm, None, layer.post_feedforward_layernorm),
        head_norms=(attention.q_norm, attention.k_norm),
    )


def _read_phi3(layer: Any, _call: _Call) -> _Parts:
    return _Parts(
        qkv=_linear(layer.self_attn.qkv_proj),
        output=layer.self_attn.o_proj,
        up=_linear(layer.mlp.gate_up_proj),
        down=layer.mlp.down_proj,
        activation=layer.mlp.activation_fn,
        norms=(layer.input_layernorm, None, layer.post_attention_layernorm, None),
    )


def _read_gpt2(layer: Any, _call: _Call) -> _Parts:
    if hasattr(layer, "crossattention"):
        raise NotDescribed("layers with cross-attention are not known")
    return _Parts(
        qkv=_linear(layer.attn.c_attn),
        output=layer.attn.c_proj,
        up=_linear(layer.mlp.c_fc),
        down=layer.mlp.c_proj,
        activation=layer.mlp.act,
        norms=(layer.ln_1, None, layer.ln_2, None),
        gated=False,
        rotates=False,
    )


def _read_gpt_neox(layer: Any, call: _Call) -> _Parts:
    """Its product gives query, key and value of a head, then those of the next."""
    fused = _linear(layer.attention.query_key_value)
    (weight,), (bias,) = fused.weights, fused.biases
    by_head = weight.view(call.heads, 3, call.head_dim, -1)
    biases = None if bias is None else bias.view(call.heads, 3, call.head_dim)
    return _Parts(
        qkv=Linear(
            tuple(by_head[:, part].flatten(0, 1) for part in range(3)),
            tuple(None if biases is None else biases[:, part].flatten() for part in range(3)),
        ),
        output=layer.attention.dense,
        up=_linear(layer.mlp.dense_h_to_4h),
        down=layer.mlp.dense_4h_to_h,
        activation=layer.mlp.act,
        norms=(layer.input_layernorm, None, layer.post_attention_layernorm, None),
        gated=False,
        parallel=layer.use_parallel_residual,
    )


_READERS: dict[str, Callable[[Any, _Call], _Parts]] = {
    "LlamaDecoderLayer": _read_llama,
    "MistralDecoderLayer": _read_llama,
    "Qwen2DecoderLayer": _read_llama,
    "Qwen3DecoderLayer": _read_llama,
    "GemmaDecoderLayer": _read_llama,
    "Gemma2DecoderLayer": _read_gemma2,
    "Gemma3DecoderLayer": _read_gemma2,
    "Olmo2DecoderLayer": _read_olmo2,
    "Phi3DecoderLayer": _read_phi3,
    "GPT2Block": _read_gpt2,
    "GPTNeoXLayer": _read_gpt_neox,
}


def _linear(*modules: Any) -> Linear:
    return Linear(
        tuple(map(_weight, modules)),
        tuple(None if module.bias is None else module.bias.detach() for module in modules),
    )


def _weight(module: Any) -> Tensor:
    if isinstance(module, nn.Linear):
        return module.weight.detach()
    if isinstance(module, Conv1D):
        weight: Tensor = module.weight.detach()
        return weight.t()
    raise NotDescribed(f"projections of class {type(module).__name__} are not known")


def _norm(module: Any) -> Norm:
    """What a norm does to a row of numbers tells whether its weight is meant as 1 + weight."""
    weight = module.weight.detach()
    if isinstance(module, nn.LayerNorm):
        bias = None if module.bias is None else module.bias.detach()
        return Norm(weight, bias, module.eps, centred=True)
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(epsilon, float) or not isinstance(weight, Tensor):
        raise NotDescribed(f"norms of class {type(module).__name__} are not known")
    row = torch.arange(1.0, weight.shape[-1] + 1)
    plain = row * torch.rsqrt(row.square().mean() + epsilon)
    with torch.inference_mode():
        found = module(row)
    for meant in (weight, 1.0 + weight):
        if torch.allclose(found, plain * meant, rtol=1e-4, atol=1e-5):
            return Norm(meant.clone(), None, epsilon, centred=False)
    raise NotDescribed(f"norms of class {type(module).__name__} are no RMSNorm")


def _head_norms(modules: tuple[nn.Module, nn.Module] | None, call: _Call) -> HeadNorms | None:
    if modules is None:
        return None
    query, key = map(_norm, modules)
    widths = len(query.weight), len(key.weight)
    if query.centred or key.centred or query.epsilon != key.epsilon:
        raise NotDescribed("norms of queries and keys are LayerNorms, or differ in epsilon")
    if widths == (call.head_dim, call.head_dim):
        return HeadNorms(query, key, "head")
    if widths == (call.heads * call.head_dim, call.kv_heads * call.head_dim):
        return HeadNorms(query, key, "all")
    raise NotDescribed(f"norms of queries and keys over {widths[0]} and {widths[1]} columns")


def _activation(module: nn.Module) -> Activation:
    names: Iterator[Activation] = (
        name for kinds, name in _ACTIVATIONS if isinstance(module, kinds)
    )
    name = next(names, None)
    if name is None:
        raise NotDescribed(f"the activation {type(module).__name__} is not known")
    return name


_ACTIVATIONS: tuple[tuple[tuple[type[nn.Module], ...], Activation], ...] = (
    ((nn.SiLU, SiLUActivation), "silu"),
    ((GELUTanh, NewGELUActivation), "gelu_tanh"),
    ((GELUActivation,), "gelu_erf"),
)
