"""The default model's scores against minicons, a library that linguists score sentences with."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from tests.end_to_end.live_server import LiveServer
from tests.offline import eager_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own source: escapes in plain strings
    from minicons.scorer import IncrementalLMScorer

pytestmark = [pytest.mark.real_model, pytest.mark.process]

PAIRS = [
    ("The capital of France is", " Paris"),
    ("The capital of France is", " a city on the Seine, isn't it?"),
    ("The keys to the cabinet", " are on the table."),
    ("The keys to the cabinet", " is on the table."),
    ("def add(a, b):\n    return", " a + b\n"),
    ("Die Hauptstadt von Österreich ist", " Wien, und 1 + 1 = 2."),
]
REDUCTIONS: dict[str, Callable[[Any], float]] = {
    "logprob": lambda logprobs: float(logprobs.sum()),
    "mean_logprob": lambda logprobs: float(logprobs.mean()),
}
CLOSE = 1e-3


@pytest.fixture(scope="module")
def minicons(real_folder: Path) -> IncrementalLMScorer:
    """Its scorer over the same weights, as transformers runs them by itself."""
    return IncrementalLMScorer(
        eager_model(real_folder, torch.float32),
        "cpu",
        tokenizer=AutoTokenizer.from_pretrained(real_folder),
    )


@pytest.mark.parametrize("boundary", ["joint", "separate"])
@pytest.mark.parametrize("field", REDUCTIONS)
@pytest.mark.parametrize(("context", "candidate"), PAIRS)
def test_conditional_scores_agree(
    real_server: LiveServer,
    minicons: IncrementalLMScorer,
    context: str,
    candidate: str,
    field: str,
    boundary: str,
) -> None:
    """Sum and mean over the candidate's tokens are the same numbers, wherever the joins agree."""
    [want] = minicons.conditional_score(
        context, candidate, separator="", reduction=REDUCTIONS[field]
    )
    body = {"context": context, "candidates": [candidate], "boundary": boundary}
    reply = real_server.post("/v1/score", body)
    assert reply["boundary"]["shift_bytes"] == 0
    assert reply["results"][0][field] == pytest.approx(want, abs=CLOSE)


def test_many_candidates_agree_at_once(
    real_server: LiveServer, minicons: IncrementalLMScorer
) -> None:
    """So they do for a batch of unequal lengths, which minicons pads and we do not."""
    context = "The capital of France is"
    candidates = [" Paris", " London", " not easy to find on this map", " 42"]
    want = minicons.conditional_score(
        [context] * len(candidates), candidates, separator="", reduction=REDUCTIONS["logprob"]
    )
    body = {"context": context, "candidates": candidates}
    results = real_server.post("/v1/score", body)["results"]
    assert [result["logprob"] for result in results] == pytest.approx(want, abs=CLOSE)
    best = max(range(len(want)), key=lambda place: want[place])
    assert results[best]["rank"] == 1


@pytest.mark.parametrize("field", REDUCTIONS)
def test_whole_sentences_agree(
    real_server: LiveServer, minicons: IncrementalLMScorer, field: str
) -> None:
    """A sentence is scored from its second token on where there is no BOS, here and there."""
    sentence = "The capital of France is Paris, and that of Japan is Tokyo."
    ids = minicons.tokenizer(sentence).input_ids
    [want] = minicons.sequence_score([sentence], reduction=REDUCTIONS[field])
    body = {"context": ids[:1], "candidates": [ids[1:]]}
    [result] = real_server.post("/v1/score", body)["results"]
    assert result["token_count"] == len(ids) - 1
    assert result[field] == pytest.approx(want, abs=CLOSE)
