"""Tokenizers of the kinds that published models have, trained on a few lines.

Each is made from the JSON form of the ``tokenizers`` library: trained once byte-level and once in
the manner of SentencePiece, then given the normalizer and pre-tokenizer of its kind.
"""

from __future__ import annotations

import json
from copy import deepcopy
from functools import cache
from typing import Any

from tokenizers import Tokenizer as Rust
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from model_runtime.tokenization.tokenizer import Tokenizer
from tests.tiny_models import CORPUS, END

Spec = dict[str, Any]

LINES = (
    *CORPUS,
    "a  b   c    d",
    "東京 は 日本 の 首都",
    "don't I'LL we've 1 22 333 4444\r\n\r\n x",
)

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_PATTERN = LLAMA3_PATTERN.replace("{1,3}", "")
O200K_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK_PATTERNS = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
)

BYTES_ONLY: Spec = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": False,
}
BYTES = BYTES_ONLY | {"use_regex": True}
DIGITS: Spec = {"type": "Digits", "individual_digits": True}
REPLACE: Spec = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
PREPEND: Spec = {"type": "Prepend", "prepend": "▁"}
NFC: Spec = {"type": "NFC"}


def split(pattern: str, behavior: str = "Isolated", *, invert: bool = False) -> Spec:
    """A pre-tokenizer that splits by a pattern."""
    found = {"Regex": pattern}
    return {"type": "Split", "pattern": found, "behavior": behavior, "invert": invert}


def spaces(scheme: str, *, splits: bool = True) -> Spec:
    """A pre-tokenizer that writes spaces as SentencePiece does."""
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": splits}


def steps(*parts: Spec, name: str = "pretokenizers") -> Spec:
    """Several steps, one after the other."""
    return {"type": "Sequence", name: list(parts)}


def added(content: str, *, special: bool = False, **flags: bool) -> Spec:
    """An added token; its id is given where it is put into a tokenizer."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"content": content, "special": special, **plain, **flags}


def byte_level(pre_tokenizer: Spec | None, *tokens: Spec, **model: Any) -> Spec:
    """Byte-level merges behind this pre-tokenizer."""
    return _with(_trained_bytes(), pre_tokenizer, None, tokens, model)


def sentencepiece(
    pre_tokenizer: Spec | None, normalizer: Spec | None, *tokens: Spec, **model: Any
) -> Spec:
    """Merges of characters, unknown ones as bytes."""
    return _with(_trained_pieces(), pre_tokenizer, normalizer, tokens, model)


def unigram(pre_tokenizer: Spec) -> Spec:
    """Pieces with scores instead of merges."""
    spec = _with(_trained_pieces(), pre_tokenizer, None, (), {})
    pieces = [[piece, -1.0 - 2.0 / len(piece)] for piece in spec["model"]["vocab"]]
    spec["model"] = {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": True}
    return spec


def tokenizer(spec: Spec) -> Tokenizer:
    """Ours, of that kind."""
    rust = Rust.from_str(json.dumps(spec))
    unknown = "<unk>" if rust.token_to_id("<unk>") is not None else None
    theirs = PreTrainedTokenizerFast(tokenizer_object=rust, eos_token=END, unk_token=unknown)
    return Tokenizer(theirs)


def _with(
    trained: str, pre_tokenizer: Spec | None, normalizer: Spec | None, tokens: Any, model: Spec
) -> Spec:
    spec: Spec = json.loads(trained)
    spec["pre_tokenizer"], spec["normalizer"] = deepcopy(pre_tokenizer), deepcopy(normalizer)
    spec["model"] |= model
    first = len(spec["model"]["vocab"])
    for token_id, token in enumerate((added(END, special=True), *tokens), first):
        spec["added_tokens"].append({"id": token_id, **token})
    return spec


@cache
def _trained_bytes() -> str:
    return _trained(pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel(), None)


@cache
def _trained_pieces() -> str:
    spec = json.loads(_trained(pre_tokenizers.Metaspace(), decoders.Metaspace(), "<unk>"))
    vocab = spec["model"]["vocab"]
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    spec["model"] |= {"byte_fallback": True, "fuse_unk": True}
    decoder_steps: list[Spec] = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    spec["decoder"] = steps(*decoder_steps, name="decoders")
    return json.dumps(spec)


def _trained(pre_tokenizer: Any, decoder: Any, unknown: str | None) -> str:
    rust = Rust(models.BPE(unk_token=unknown))
    rust.pre_tokenizer, rust.decoder = pre_tokenizer, decoder
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if unknown is None else [],
        special_tokens=[] if unknown is None else [unknown],
        show_progress=False,
    )
    rust.train_from_iterator([line for line in LINES for _ in range(2)], trainer)
    return str(rust.to_str())
