"""The fingerprint of what is served: it changes whenever a bit of an answer could.

Block sizes and the choice of kernels are constants of the code or follow from the machine; the
layout of rows, which is chosen once the weights are laid out, is added then.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch
import transformers

from model_runtime.loading.files import files_digest

_COMPUTING: Final = (
    *("attention", "batching", "decoder", "decoding", "kernels", "kv_cache"),
    *("loading", "logprobs", "native", "runner", "tokenization"),
)
"""Packages of the runtime whose code the bits of an answer follow from.

What only says when something runs, or whether there is memory for it, is not among them.
"""

_SUFFIXES: Final = (".py", ".c", ".h")


def torch_fingerprint(content: str, dtype: str, device: str, attention: str) -> str:
    """Where torch's kernels compute: weights, words, code, libraries, machine.

    Args:
        content: digest of the model's folder.
        dtype: of the products.
        device: ``cpu`` or ``cuda``.
        attention: a name in transformers' ``AttentionInterface``.
    """
    machine = torch.cuda.get_device_name() if device == "cuda" else _processor()
    return digest(content, *_code(), dtype, attention, torch.__version__, machine)


def native_fingerprint(content: str, frequencies: bytes) -> str:
    """Where the native kernels compute, in float32: weights, words and code.

    Neither the machine nor torch is a part of it, as no bit depends on them.

    Args:
        content: digest of the model's folder.
        frequencies: of the rotary positions, which transformers computes from the config.
    """
    return digest(content, *_code(), "native", hashlib.sha256(frequencies).hexdigest())


def digest(*facts: str) -> str:
    """Of facts that bits depend on, as a fingerprint is written: 24 hex digits."""
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:24]


def _code() -> tuple[str, str]:
    """Of the runtime's own sources, and the version of the library that its models come from."""
    package = Path(__file__).parents[1]
    return files_digest(_sources(package), package), transformers.__version__


def _sources(package: Path) -> Iterator[Path]:
    for name in _COMPUTING:
        for path in sorted((package / name).rglob("*")):
            if path.suffix in _SUFFIXES:
                yield path


def _processor() -> str:
    """What the CPU kernels choose by: instruction sets, make and cache sizes, never core counts."""
    facts = {k: v for k, v in torch.cpu.get_capabilities().items() if not k.startswith("num_")}
    return json.dumps([torch.backends.cpu.get_cpu_capability(), facts], sort_keys=True)
