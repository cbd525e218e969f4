"""The model's own weights as a GGUF file for llama.cpp: its tensors under other names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from gguf import (
    MODEL_ARCH,
    GGMLQuantizationType,
    GGUFWriter,
    TensorNameMap,
    get_tensor_name_map,
    quants,
)
from safetensors.torch import load_file
from torch import Tensor

TYPES = {"float32": GGMLQuantizationType.F32, "bfloat16": GGMLQuantizationType.BF16}
"""Of matrices. Vectors stay in float32."""


def write_gguf(folder: Path, path: Path, variant: str) -> None:
    """Write a Llama-shaped model without its tokenizer: the workloads are token ids.

    Args:
        folder: config.json and model.safetensors.
        path: written at once when it is complete.
        variant: one of ``TYPES``.
    """
    config = json.loads((folder / "config.json").read_text())
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    unfinished = path.with_suffix(".unfinished")
    writer = GGUFWriter(unfinished, "llama")
    _describe(writer, config)
    for name, tensor in load_file(folder / "model.safetensors").items():
        _add(writer, _renamed(names, name), _reordered(name, tensor.float(), config), variant)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    unfinished.rename(path)


def _describe(writer: GGUFWriter, config: dict[str, Any]) -> None:
    heads = config["num_attention_heads"]
    rope = config.get("rope_parameters") or config
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")


def _renamed(names: TensorNameMap, name: str) -> str:
    renamed: str | None = names.get_name(name, try_suffixes=(".weight",))
    if renamed is None:
        raise ValueError(f"{name} has no place in a GGUF file of this kind")
    return renamed


def _reordered(name: str, tensor: Tensor, config: dict[str, Any]) -> Tensor:
    """Queries and keys with the two rotated halves of a head interleaved, as llama.cpp wants."""
    heads = {
        "q_proj": config["num_attention_heads"],
        "k_proj": config["num_key_value_heads"],
    }.get(name.split(".")[-2])
    if heads is None:
        return tensor
    return tensor.reshape(heads, 2, -1, tensor.shape[1]).transpose(1, 2).flatten(0, 2)


def _add(writer: GGUFWriter, name: str, tensor: Tensor, variant: str) -> None:
    kind = TYPES[variant] if tensor.dim() > 1 else GGMLQuantizationType.F32
    values = quants.quantize(tensor.contiguous().to(torch.float32).numpy(), kind)
    writer.add_tensor(name, values, raw_dtype=kind)
