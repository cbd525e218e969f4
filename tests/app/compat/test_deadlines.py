"""A request of another shape whose time runs out while it is tokenized ends then, unscored."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest

from tests.app.compat.decisions.decision_calls import LAW, ChatTokenizer, predicate
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine

MANY = 1_000
"""Texts, more than are tokenized at once."""

SLOW: list[tuple[str, dict[str, Any]]] = [
    ("/score", {"text_1": "a", "text_2": ["b"] * MANY}),
    ("/v1/score", {"queries": "a", "documents": ["b"] * MANY}),
    ("/v1/score", {"query": "a", "items": ["b"] * MANY, "label_token_ids": [1]}),
    ("/generative_scoring", {"query": "a", "items": ["b"] * MANY, "label_token_ids": [1]}),
    ("/v1/decisions", {"input": "a", "questions": [predicate()] * 300}),
]


class SlowTokenizer(ChatTokenizer):
    """Takes its time for each call."""

    def encode_batch(self, texts: Sequence[str], **settings: Any) -> list[list[int]]:
        time.sleep(0.03)
        return super().encode_batch(texts, **settings)

    def encode(self, text: str, *, parse_special: bool = False) -> list[int]:
        time.sleep(0.03)
        return super().encode(text, parse_special=parse_special)


@pytest.mark.parametrize(("path", "body"), SLOW)
@pytest.mark.anyio
async def test_tokenizing_ends_with_the_time(path: str, body: dict[str, Any]) -> None:
    """It is a 504 that names the deadline, and nothing of it reaches the model."""
    engine = FakeEngine(LAW, tokenizer=SlowTokenizer(), max_model_len=1 << 16)
    async with client_of(shell_app(engine)) as client:
        model = {"model": engine.info.name} if path == "/v1/decisions" else {}
        response = await client.post(path, json={"timeout_ms": 10, **model, **body})
    assert response.status_code == 504, response.text
    assert response.json()["error"]["code"] == "deadline_exceeded"
    assert engine.queries == []
