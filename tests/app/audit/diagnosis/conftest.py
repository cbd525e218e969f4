"""A tiny Llama whose tokenizer adds nothing, and a tiny Gemma whose tokenizer adds BOS, both as
the product serves them and as another system runs them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from app.client import Client
from app.schemas.diagnosis import Diagnosis
from model_runtime import Engine, EngineConfig
from tests.app.audit.diagnosis.other_systems import OtherSystem
from tests.app.in_process import client_over
from tests.conftest import TinyFolder

CONTEXT = "It is raining and it is cold; the capital of France is"
CANDIDATES = (" Paris", " Tokyo and it", " not here", " the other answer")
QUICK: dict[str, Any] = {"max_tokens": 1, "num_beams": 1, "max_expansions": 1, "pairs": []}


@dataclass(frozen=True)
class Pair:
    """The product, and the other system."""

    client: Client
    other: OtherSystem

    def diagnose(
        self,
        reported: dict[str, Any],
        context: Any = CONTEXT,
        candidates: Any = CANDIDATES,
        **fields: Any,
    ) -> Diagnosis:
        """What the product says of what the other system reported."""
        answer = self.client.audit(
            context=context, candidates=list(candidates), reported=reported, **QUICK, **fields
        )
        assert answer.diagnosis is not None
        return answer.diagnosis

    def parts(self, candidates: Any = CANDIDATES) -> list[tuple[list[int], list[int]]]:
        """Context and answer of each candidate, as token ids."""
        before = self.other.context(CONTEXT)
        return [(before, self.other.answer(CONTEXT, one)) for one in candidates]


@pytest.fixture(scope="session")
def pairs(tiny_folder: TinyFolder) -> Iterator[dict[str, Pair]]:
    """By kind of model."""
    with ExitStack() as stack:
        found = {}
        for kind in ("llama", "gemma3"):
            config = EngineConfig(model=str(tiny_folder(kind)), kv_cache_bytes=16 << 20)
            client = stack.enter_context(client_over(Engine.load(config)))
            found[kind] = Pair(client, OtherSystem(tiny_folder(kind)))
        yield found


@pytest.fixture
def llama(pairs: dict[str, Pair]) -> Pair:
    """Its tokenizer puts nothing before a text."""
    return pairs["llama"]


@pytest.fixture
def gemma(pairs: dict[str, Pair]) -> Pair:
    """Its tokenizer puts BOS before a text."""
    return pairs["gemma3"]
