"""Queries and searches against a model on the card, with no scheduler."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TypeVar

import torch
from transformers import AutoModelForCausalLM

from model_runtime.attention.interface import ATTENTION_NAME
from model_runtime.batching.batch import Batch
from model_runtime.decoding.base import SearchStrategy
from model_runtime.kv_cache.prefix_cache import PrefixCache
from model_runtime.runner.model_runner import ModelRunner
from model_runtime.types import LogprobQuery
from tests.offline import Offline
from tests.tiny_models import TINY_VOCAB

R = TypeVar("R")

KV_BYTES = 64 << 20


class OnCard(Offline):
    """A runner on the first CUDA device, and its cache.

    Args:
        dtype: of the products, and of keys and values.
    """

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        device = torch.device("cuda")
        model = AutoModelForCausalLM.from_pretrained(
            folder, attn_implementation=ATTENTION_NAME, dtype=torch.float32
        )
        self.runner = ModelRunner(model.eval().to(device), KV_BYTES, dtype)
        self.cache = PrefixCache(self.runner.slots)
        self.batches: list[Batch] = []


def complete(offline: Offline, search: SearchStrategy[R]) -> R:
    """Run a search to its end."""
    while not search.done:
        search.advance(offline.answer(search.queries()))
    return search.result()


def random_path(rng: random.Random, length: int) -> tuple[int, ...]:
    """Ids that every tiny model has tokens for."""
    return tuple(rng.randrange(TINY_VOCAB - 16) for _ in range(length))


def longest_context(kind: str) -> int:
    """Tokens of the contexts in these tests: several key blocks, where the model has room."""
    return 100 if kind == "gpt2" else 300


def forked(kind: str) -> list[LogprobQuery]:
    """Candidates behind prefixes of one context, at lengths on and off block multiples."""
    rng, longest = random.Random(kind), longest_context(kind)
    trunk = random_path(rng, longest)
    cuts = (1, 7, 64, longest // 2, longest - 44, longest)
    return [LogprobQuery(trunk[:cut] + random_path(rng, 16), cut) for cut in cuts]
