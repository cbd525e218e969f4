"""Mistakes in what transformers says of the default model, as a server names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.app.audit.diagnosis.other_systems import OtherSystem, totals
from tests.end_to_end.live_server import LiveServer

pytestmark = [pytest.mark.real_model, pytest.mark.process]

CONTEXT = "The capital of France is"
CANDIDATES = [" Paris", " London", " a small town"]
LONGER = [" Paris, and it is a large city", " London, or so they say", " a small town"]
QUESTION, ANSWERS = "What is the capital of France?", ["Paris", "London"]
QUICK = {"max_tokens": 1, "num_beams": 1, "max_expansions": 1, "pairs": []}


@pytest.fixture(scope="module")
def other(real_folder: Path) -> OtherSystem:
    """transformers in float32."""
    return OtherSystem(real_folder)


def first(server: LiveServer, reported: dict[str, Any], **body: Any) -> list[str]:
    """The mistakes that are named first."""
    asked = {"context": CONTEXT, "candidates": CANDIDATES, **body}
    found = server.post("/v1/audit", {**asked, **QUICK, "reported": reported})["diagnosis"]
    assert found["verdict"] in ("agree", "explained"), found
    return [] if found["verdict"] == "agree" else list(found["explanations"][0]["mistakes"])


def test_the_default_models_numbers_are_diagnosed(
    other: OtherSystem, real_server: LiveServer, real_folder: Path
) -> None:
    """Right ones, a mistake each, and the precision that most pipelines compute it in."""
    parts = [(other.ids(CONTEXT), other.answer(CONTEXT, one)) for one in CANDIDATES]
    assert first(real_server, {"totals": totals([other.logprobs(*p) for p in parts])}) == []
    warm = [round(one, 3) for one in totals([other.logprobs(*p, 0.7) for p in parts])]
    assert first(real_server, {"totals": warm}) == ["temperature"]
    rough = OtherSystem(real_folder, torch.bfloat16)
    longer = [(other.ids(CONTEXT), other.answer(CONTEXT, one)) for one in LONGER]
    noisy = {"token_logprobs": [rough.logprobs(*p) for p in longer]}
    assert first(real_server, noisy, candidates=LONGER) == ["bf16_noise"]


def test_a_forgotten_template_is_named(other: OtherSystem, real_server: LiveServer) -> None:
    """Messages were asked about, and their text alone was fed."""
    plain = [(other.ids(QUESTION), other.answer(QUESTION, one)) for one in ANSWERS]
    reported = {"totals": totals([other.logprobs(*p) for p in plain])}
    chat = [{"role": "user", "content": QUESTION}]
    found = first(real_server, reported, context=chat, candidates=ANSWERS)
    assert found == ["template_missing"]
