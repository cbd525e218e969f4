"""A tiny Llama written the way llama.cpp publishes models: quantized, in one GGUF file."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from tests.tiny_models import tiny_model, tiny_tokenizer

_CONTROL, _NORMAL = 3, 1
_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
}


def write_tiny_gguf(path: Path) -> dict[str, torch.Tensor]:
    """Write the tiny Llama in Q4_1; returns the weights that its bytes stand for, by name."""
    model = tiny_model("llama")
    writer = gguf.GGUFWriter(path, "llama")
    _write_config(writer, model.config)
    _write_vocabulary(writer)
    expected = {}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight":
            continue  # tied to the embedding
        stored = _interleaved(name, weight, model.config).numpy()
        kind = GGMLQuantizationType.F32 if stored.ndim == 1 else GGMLQuantizationType.Q4_1
        blocks = quantize(stored, kind)
        writer.add_tensor(_gguf_name(name), blocks, raw_dtype=kind)
        values = torch.from_numpy(np.array(dequantize(blocks, kind), dtype=np.float32))
        expected[name] = _halves(name, values, model.config)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


def _write_config(writer: gguf.GGUFWriter, config: object) -> None:
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(config.head_dim)


def _write_vocabulary(writer: gguf.GGUFWriter) -> None:
    tokenizer = tiny_tokenizer("llama")
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = sorted(spec["model"]["vocab"], key=spec["model"]["vocab"].__getitem__)
    # transformers adds GPT-2's own special token where it is missing: it replaces the last merge
    tokens[-1] = "<|endoftext|>"
    control = {tokens[-1], *(token["content"] for token in spec["added_tokens"])}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([_CONTROL if token in control else _NORMAL for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in spec["model"]["merges"][:-1]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_add_bos_token(False)
    writer.add_chat_template(tokenizer.chat_template)


def _gguf_name(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    _, _, layer, part = name.split(".", 3)
    return f"blk.{layer}.{_NAMES[part]}"


def _heads(name: str, config: object) -> int:
    """Heads of a projection whose rows the format reorders, else 0."""
    if "q_proj" in name:
        return config.num_attention_heads
    return config.num_key_value_heads if "k_proj" in name else 0


def _interleaved(name: str, weight: torch.Tensor, config: object) -> torch.Tensor:
    """llama.cpp rotates neighbouring rows of a head, transformers its two halves."""
    heads = _heads(name, config)
    if not heads:
        return weight
    split = weight.view(heads, 2, -1, weight.shape[1])
    return split.transpose(1, 2).reshape(weight.shape)


def _halves(name: str, weight: torch.Tensor, config: object) -> torch.Tensor:
    """The inverse of ``_interleaved``."""
    heads = _heads(name, config)
    if not heads:
        return weight
    split = weight.view(heads, -1, 2, weight.shape[1])
    return split.transpose(1, 2).reshape(weight.shape)
