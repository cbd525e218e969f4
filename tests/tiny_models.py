"""Tiny random-weight models of the supported shapes, saved as folders that ``load_model`` takes.

They are built from configs, so no test needs a download for them, and their weights are large
enough that the distributions are far from uniform: a wrong mask, position or norm shows up in
the first decimals instead of hiding in rounding.

=========  ==========================================================================
llama      grouped-query attention, tied head; BOS exists, its rule adds none
smollm     SmolLM's shape of the Llama class: three query heads to a key head, widths
           that are no powers of two, tied head
mistral    one sliding window for all layers, as wide as a key block; untied head
qwen2      biases on query, key and value; the first layer full, the others sliding;
           head rows without a token behind them, no BOS
qwen3      query and key norms, head width unlike hidden / heads, head rows without a
           token behind them, no BOS
gemma2     soft-capped attention and logits, windows across key blocks, tanh GELU
gemma3     sliding windows, two rotary bases, soft-capped logits; its rule adds BOS
phi3       query, key and value in one projection, gate and up in another; positions
           rotate half of a head
olmo2      norms over the whole query and key projections, norms behind the sublayers
gpt2       learned positions (128 of them), biases, one id is both BOS and EOS
gpt_neox   query, key and value interleaved by head in one projection with biases,
           positions rotate a quarter of a head, attention and MLP side by side
=========  ==========================================================================
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

CORE_KINDS = ("llama", "qwen3", "gemma3", "gpt2")
"""The kinds whose tokenizers differ; the others come with llama's."""

TINY_KINDS = (
    *CORE_KINDS,
    "smollm",
    "mistral",
    "qwen2",
    "gemma2",
    "phi3",
    "olmo2",
    "gpt_neox",
)
"""Every architecture that is promised to work."""

TINY_VOCAB = 384
_PADDED_HEADS = ("qwen2", "qwen3")
UNUSED_ROWS = 16
"""Rows of these heads that no token stands behind, as real models pad theirs."""

BYTE_LEVEL_MINIMUM = 256 + 4 + UNUSED_ROWS
"""Below this vocabulary size the tokenizer knows a few single letters and nothing else."""

BOS, START, END = "<|bos|>", "<|im_start|>", "<|im_end|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

CORPUS = (
    "The capital of France is Paris. The capital of Japan is Tokyo.",
    "It is raining and it isn't cold; this isn't that, it isn't here.",
    "Is the sky blue? yes. Is the grass red? no. It isn't, is it?",
    "The answer is yes, and the other answer is no: 2 + 2 = 4, not 42.",
    "Once upon a time there was a small model that learned to read the text.",
    "def add(a, b):\n    return a + b\n\nprint(add(1, 2))\n",
)


def save_tiny_model(
    kind: str,
    folder: Path,
    *,
    vocab_size: int = TINY_VOCAB,
    seed: int = 0,
    **overrides: object,
) -> Path:
    """Save a tiny model of ``kind`` with its tokenizer into ``folder``; returns ``folder``.

    The same arguments always give the same bytes of weights. ``vocab_size`` counts the rows of
    the head; beyond about 390 the corpus gives no more tokens and the rest of the rows stay
    unused. ``overrides`` replace values of the transformers config.
    """
    tokenizer = tiny_tokenizer(kind, vocab_size)
    model = tiny_model(kind, vocab_size=vocab_size, seed=seed, **overrides)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_model(
    kind: str, *, vocab_size: int = TINY_VOCAB, seed: int = 0, **overrides: object
) -> PreTrainedModel:
    """The float32 model alone, in evaluation mode."""
    config = tiny_config(kind, vocab_size, **overrides)
    model = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1:
                weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.1)
            else:
                scale = 0.4 if "embed" in name or "lm_head" in name or "wte" in name else 0.2
                weight.normal_(std=scale, generator=generator)
    return model.eval()


def tiny_config(kind: str, vocab_size: int = TINY_VOCAB, **overrides: object) -> PreTrainedConfig:
    """The transformers config of ``kind``: three layers, hidden size 64."""
    tokenizer = tiny_tokenizer(kind, vocab_size)
    values: dict[str, object] = {
        "vocab_size": vocab_size,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None,
    }
    shape, config_class = _SHAPES[kind]
    return config_class(**(values | shape | overrides))


def tiny_tokenizer(kind: str, vocab_size: int = TINY_VOCAB) -> PreTrainedTokenizerFast:
    """The tokenizer of ``kind``: byte-level BPE with ``<|im_start|>`` and ``<|im_end|>``."""
    specials = [BOS, START, END] if kind == "gemma3" else [START, END]
    if vocab_size < BYTE_LEVEL_MINIMUM:
        rust = _letters(vocab_size, specials)
    else:
        rust = _trained(vocab_size - (UNUSED_ROWS if kind in _PADDED_HEADS else 0), specials)
    if kind == "gemma3":
        rust.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A",
            pair=f"{BOS} $A {BOS} $B",
            special_tokens=[(BOS, rust.token_to_id(BOS))],
        )
    bos = {"qwen2": None, "qwen3": None, "gemma3": BOS, "gpt2": END}.get(kind, START)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=rust, bos_token=bos, eos_token=END, clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def prefixed_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer in the manner of GLM: its rule puts two tokens before a text, one behind it."""
    tokenizer = tiny_tokenizer("llama")
    rust = tokenizer.backend_tokenizer
    rust.add_special_tokens(["[gMASK]", "<sop>"])
    specials = [(text, rust.token_to_id(text)) for text in ("[gMASK]", "<sop>", END)]
    rust.post_processor = processors.TemplateProcessing(
        single=f"[gMASK] <sop> $A {END}", pair=None, special_tokens=specials
    )
    return PreTrainedTokenizerFast(tokenizer_object=rust, eos_token=END)


def sentencepiece_tokenizer() -> PreTrainedTokenizerFast:
    """A few letters in the manner of Llama 2: a space put first, unknown letters as bytes."""
    letters = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abis"]
    vocab = {letter: index for index, letter in enumerate([*letters, "is", "▁is"])}
    merges = [("i", "s"), ("▁", "is")]
    rust = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, unk_token="<unk>"))
    rust.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    rust.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=rust, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def _trained(size: int, specials: list[str]) -> Tokenizer:
    rust = Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rust.train_from_iterator(CORPUS, trainer)
    return rust


def _letters(size: int, specials: list[str]) -> Tokenizer:
    letters = {chr(ord("a") + index): index for index in range(size - len(specials))}
    rust = Tokenizer(models.BPE(vocab=letters, merges=[]))
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    rust.add_special_tokens(specials)
    return rust


_ROTARY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
}

_SLIDING_FULL_SLIDING = {
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]
}

_GEMMA2 = (
    _ROTARY
    | _SLIDING_FULL_SLIDING
    | {
        "sliding_window": 200,
        "query_pre_attn_scalar": 24,
        "attn_logit_softcapping": 3.0,
        "final_logit_softcapping": 8.0,
    }
)

_GEMMA3 = (
    _ROTARY
    | _SLIDING_FULL_SLIDING
    | {"sliding_window": 16, "query_pre_attn_scalar": 24, "final_logit_softcapping": 8.0}
)

_SHAPES: dict[str, tuple[dict[str, object], type[PreTrainedConfig]]] = {
    "llama": (_ROTARY | {"tie_word_embeddings": True}, LlamaConfig),
    "smollm": (
        _ROTARY
        | {
            "hidden_size": 72,
            "intermediate_size": 200,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "head_dim": 8,
            "tie_word_embeddings": True,
        },
        LlamaConfig,
    ),
    "mistral": (_ROTARY | {"sliding_window": 128}, MistralConfig),
    "qwen2": (
        _ROTARY | {"use_sliding_window": True, "sliding_window": 100, "max_window_layers": 1},
        Qwen2Config,
    ),
    "qwen3": (_ROTARY | {"head_dim": 32, "tie_word_embeddings": False}, Qwen3Config),
    "gemma2": (_GEMMA2, Gemma2Config),
    "gemma3": (_GEMMA3, Gemma3TextConfig),
    "phi3": (_ROTARY | {"partial_rotary_factor": 0.5}, Phi3Config),
    "olmo2": (_ROTARY, Olmo2Config),
    "gpt2": ({"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 128}, GPT2Config),
    "gpt_neox": (
        {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 512,
            "rotary_pct": 0.25,
        },
        GPTNeoXConfig,
    ),
}
