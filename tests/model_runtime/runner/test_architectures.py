"""Which architectures are served, that these are right, and that the others say why not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from model_runtime.config import EngineConfig
from model_runtime.engine import Engine
from model_runtime.errors import UnsupportedModel
from model_runtime.loading.reference import reference_logprobs
from model_runtime.types import LogprobQuery, LogprobResult, ModelInfo
from tests.conftest import TinyFolder
from tests.model_runtime.runner.test_unbatched_runner import randomized
from tests.offline import Offline, eager_model
from tests.tiny_models import TINY_KINDS, TINY_VOCAB, save_tiny_model, tiny_tokenizer

Served = tuple[ModelInfo, tuple[object, ...]]

A_TOKEN = 5e-4
"""Largest difference from float64 that a token may have in float32, in nats."""

LONGEST = 300
"""Tokens of a path: beyond four key blocks, and beyond every window of these tests."""

_SCALED_GPT2 = {"scale_attn_by_inverse_layer_idx": True, "n_positions": 512}

VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    f"{kind}, window of {window}": (kind, {"sliding_window": window})
    for kind, windows in (
        ("mistral", (1, 16, 64, 65, 128, 200)),
        ("qwen2", (16, 200)),
        ("gemma2", (16, 128)),
        ("gemma3", (128, 200)),
        ("phi3", (16, 128, 200)),
    )
    for window in windows
} | {
    "llama, biases everywhere": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, one key head": ("llama", {"num_key_value_heads": 1, "tie_word_embeddings": False}),
    "llama, a key head for each query head": ("llama", {"num_key_value_heads": 4}),
    "llama, odd head width": ("llama", {"head_dim": 10}),
    "llama, positions of Llama 3": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0,
                "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    "qwen3, positions by YaRN": (
        "qwen3",
        {
            "rope_parameters": {
                "rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0,
                "original_max_position_embeddings": 128,
            }
        },
    ),
    "llama, positions squeezed": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0}},
    ),
    "mistral, no window": ("mistral", {"sliding_window": None}),
    "gemma2, no caps": ("gemma2", {f"{c}_logit_softcapping": None for c in ("attn", "final")}),
    "gpt2, scaled by layer": ("gpt2", _SCALED_GPT2),
    "gpt_neox, one after the other": (
        "gpt_neox",
        {"use_parallel_residual": False, "attention_bias": False, "tie_word_embeddings": True},
    ),
}  # fmt: skip


def random_path(seed: int, length: int) -> tuple[int, ...]:
    rng = random.Random(seed)
    return tuple(rng.randrange(TINY_VOCAB - 16) for _ in range(length))


def check(folder: Path, longest: int = LONGEST) -> None:
    """Every row of a path is what float64 says: each length up to the longest is one of them.

    Forked, on a cached prefix, token by token and in chunks the bits are those of the whole.
    """
    path, tail = random_path(7, longest), longest - 12
    (whole,) = Offline(folder).answer([LogprobQuery(path, 1)])
    rows = reference_logprobs(eager_model(folder, torch.float64), path)
    want = [float(rows[p - 1, path[p]]) for p in range(1, longest)]
    assert whole.logprobs == pytest.approx(want, abs=A_TOKEN)
    offline = Offline(folder)
    fork = LogprobQuery(path[: longest // 2] + random_path(8, 20), longest // 2)
    _, behind_fork = offline.answer([fork, LogprobQuery(path, tail)])
    (stepped,) = offline.answer([LogprobQuery(path, tail)], budget=1)
    assert len(offline.batches) == 1 + 12
    (chunked,) = Offline(folder).answer([LogprobQuery(path, 1)], budget=70)
    assert chunked == whole
    assert behind_fork.logprobs == stepped.logprobs == whole.logprobs[tail - 1 :]


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_every_promised_architecture_is_right_at_every_length(
    kind: str, tiny_folder: TinyFolder
) -> None:
    """On and off block multiples and beyond the window, in a crowd, cached and chunked."""
    check(tiny_folder(kind), 128 if kind == "gpt2" else LONGEST)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_switches_of_a_config_are_followed(variant: str, tmp_path: Path) -> None:
    """Windows within, at and across key blocks, biases, head counts, scaled positions, caps."""
    kind, overrides = VARIANTS[variant]
    check(save_tiny_model(kind, tmp_path, **overrides))


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_every_promised_architecture_starts(kind: str, tiny_folder: TinyFolder) -> None:
    """Loaded as an operator would: the error is measured, the fingerprint set, scores right."""
    path = random_path(3, 120)
    info, (result,) = serve(tiny_folder(kind), [LogprobQuery(path, 1)])
    rows = reference_logprobs(eager_model(tiny_folder(kind), torch.float64), path)
    want = [float(rows[p - 1, path[p]]) for p in range(1, len(path))]
    assert isinstance(result, LogprobResult)
    assert result.logprobs == pytest.approx(want, abs=A_TOKEN)
    assert info.numeric_error is not None
    assert 0 < info.numeric_error[1] <= info.numeric_error[0] < A_TOKEN
    assert len(info.fingerprint) == 24
    assert info.vocab_size == TINY_VOCAB


def serve(folder: Path, queries: Sequence[LogprobQuery] = (), **settings: object) -> Served:
    """Load, start, score and stop an engine."""
    config = EngineConfig(model=str(folder), device="cpu", dtype="float32", kv_cache_bytes=16 << 20)

    async def run() -> Served:
        engine = Engine.load(replace(config, **settings))
        await engine.start()
        try:
            return engine.info, (await engine.score(queries)).value
        finally:
            await engine.stop(drain_s=5)

    return asyncio.run(run())


_WIDTHS = {
    "vocab_size": TINY_VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": None,
    "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
_ROTARY = _WIDTHS | {
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
_LAYERS = {"num_hidden_layers": 4}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_NARROW = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}  # fmt: skip
_FEW = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_BERT = _WIDTHS | {
    "intermediate_size": 48, "num_attention_heads": 4, "max_position_embeddings": 514,
    "is_decoder": True,
}  # fmt: skip
_BART = {
    "vocab_size": TINY_VOCAB, "d_model": 32, "is_decoder": True, "is_encoder_decoder": False,
    "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "init_std": 0.5,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
    "max_position_embeddings": 512, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None,
}  # fmt: skip
_GPT = {"vocab_size": TINY_VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
_LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10_000.0, "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4, "original_max_position_embeddings": 40,
}  # fmt: skip
_DBRX_FFN = {"hidden_size": 32, "ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2}

REFUSED: dict[str, tuple[dict[str, object], str]] = {
    # experts
    "Mixtral": (_ROTARY | _EXPERTS, "routes tokens to experts"),
    "Qwen2Moe": (_ROTARY | _FEW, "experts"),
    "GptOss": (_ROTARY | _EXPERTS | {"head_dim": 8}, "experts"),
    "Dbrx": (
        {
            "vocab_size": TINY_VOCAB, "d_model": 32, "n_layers": 2, "n_heads": 4,
            "max_seq_len": 512, "ffn_config": _DBRX_FFN,
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10_000.0},
        },
        "experts",
    ),
    # layers that are no attention, or another one
    "Qwen3Next": (_ROTARY | _LAYERS | _FEW | _NARROW, "linear_attention"),
    "Bamba": (
        _ROTARY | {"attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 8},
        "linear_attention",
    ),
    "Mamba": (_WIDTHS | {"state_size": 8}, "layers of type linear_attention"),
    "RecurrentGemma": (_ROTARY | {"lru_width": 32}, "linear_attention"),
    "Rwkv": (_WIDTHS | {"attention_hidden_size": 32, "context_length": 512}, "attention heads"),
    "Lfm2": (_ROTARY | {"layer_types": ["conv", "full_attention"]}, "layers of type conv"),
    "Llama4Text": (
        _ROTARY | _LAYERS | _EXPERTS | {"head_dim": 8, "attention_chunk_size": 64},
        "chunked_attention",
    ),
    # scores or logits of another scale
    "Cohere": (_ROTARY | {"logit_scale": 0.25}, "logit_scale"),
    "Granite": (_ROTARY | {"logits_scaling": 4.0}, "logits_scaling"),
    "GPT2": (_GPT | {"reorder_and_upcast_attn": True}, "upcasting"),
    "Phi3": (
        _ROTARY | {"original_max_position_embeddings": 40, "rope_parameters": _LONGROPE},
        "longrope",
    ),
    # attention that is its own, or more than one per layer
    "Bloom": (_WIDTHS | {"n_head": 4}, "AttentionInterface"),
    "Falcon": (_WIDTHS | {"num_attention_heads": 4}, "AttentionInterface"),
    "GPTJ": (_GPT | {"rotary_dim": 8}, "AttentionInterface"),
    "GPTNeo": (
        _WIDTHS | {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
        "AttentionInterface",
    ),
    "OpenAIGPT": (_GPT, "AttentionInterface"),
    "GraniteSWA": (_ROTARY, "mask or attention sinks"),
    "DiffLlama": (_ROTARY, "attends twice in a layer"),
    # positions or heads of its own
    "Bart": (_BART, "beside another path"),
    "Bert": (_BERT, "its own reference"),
    "Roberta": (_BERT | {"pad_token_id": 1}, "its own reference"),
    "ModernBertDecoder": (
        _ROTARY | {"pad_token_id": 0, "num_key_value_heads": 4},
        "its own reference",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_an_architecture_that_is_not_served_says_why(name: str, tmp_path: Path) -> None:
    """By name and reason, in one line, before a request can get a wrong number."""
    values, reason = REFUSED[name]
    with pytest.raises(UnsupportedModel, match=reason) as refusal:
        serve(save_model(name, values, tmp_path))
    assert "\n" not in str(refusal.value)
    assert name.removesuffix("Text").lower() in str(refusal.value).lower().replace("_", "")


@pytest.mark.parametrize(
    "name",
    ["Mixtral", "GptOss", "Qwen3Next", "Mamba", "Rwkv", "Llama4Text", "Cohere", "Bloom", "Falcon",
     "DiffLlama", "ModernBertDecoder"],
)  # fmt: skip
def test_the_padded_runner_serves_what_is_refused(name: str, tmp_path: Path) -> None:
    """Where the operator asks for it, with a length where the config states none."""
    folder = save_model(name, REFUSED[name][0], tmp_path)
    path = random_path(5, 100)
    info, (result,) = serve(
        folder, [LogprobQuery(path, 60)], runner="padded", max_model_len=LONGEST
    )
    oracle = eager_model(folder, torch.float64)
    oracle.set_experts_implementation("eager")
    rows = reference_logprobs(oracle, path)
    want = [float(rows[p - 1, path[p]]) for p in range(60, len(path))]
    assert isinstance(result, LogprobResult)
    assert result.logprobs == pytest.approx(want, abs=A_TOKEN)
    assert info.numeric_error is not None and info.max_model_len == LONGEST


def test_the_padded_runner_has_no_bfloat16(tiny_folder: TinyFolder) -> None:
    """A precision that it does not have is refused, not replaced."""
    with pytest.raises(UnsupportedModel, match="float32 only"):
        serve(tiny_folder("llama"), runner="padded", dtype="bfloat16")


def save_model(name: str, values: dict[str, object], folder: Path) -> Path:
    """A random-weight model of a config, with a tokenizer, where an engine can load it."""
    config = getattr(transformers, f"{name}Config")(**values)
    randomized(AutoModelForCausalLM.from_config(config)).save_pretrained(folder)
    tiny_tokenizer("qwen3").save_pretrained(folder)
    return folder


OTHERS: dict[str, dict[str, object]] = {
    "Gemma": _ROTARY | {"head_dim": 8},
    "Glm4": _ROTARY | {"head_dim": 8},
    "GPTBigCode": _GPT,
    "Ministral": _ROTARY | {"head_dim": 8, "sliding_window": 200},
    "NanoChat": _ROTARY,
    "Olmo3": _ROTARY | _LAYERS | {"sliding_window": 200},
    "OPT": _WIDTHS | {"ffn_dim": 48, "num_attention_heads": 4, "word_embed_proj_dim": 32},
    "Phi": _ROTARY,
    "SmolLM3": _ROTARY | _LAYERS | {"use_sliding_window": True, "sliding_window": 200},
    "Starcoder2": _ROTARY | {"sliding_window": 200},
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_starts_without_a_promise_is_right_as_well(name: str, tmp_path: Path) -> None:
    """The checks at start-up, not the list of names, keep wrong numbers out."""
    folder = save_model(name, OTHERS[name], tmp_path)
    serve(folder)
    check(folder)
