"""Greedy and beam search against ``generate`` of transformers on the same models.

``generate`` adds log-probs up in float32 and caches keys; here they are added in float64 and
every step is a full forward. So two paths whose scores differ by less than that may change
places; such settings are counted, reported, and allowed in at most two of a hundred.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from transformers import PreTrainedModel

from model_runtime.decoding.greedy import GreedySearch
from tests.model_runtime.decoding.generate_settings import (
    VOCAB,
    generate,
    generate_beams,
    some_setting,
    swaps,
)
from tests.model_runtime.decoding.plain_model import run
from tests.tiny_models import tiny_model

BEAM_SETTINGS = 60
"""Per model shape."""


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """A tiny model."""
    return tiny_model(request.param, vocab_size=VOCAB)


def test_beam_search_equals_generate(
    model: PreTrainedModel, record_property: Callable[[str, object], None]
) -> None:
    """Tokens and ``sequences_scores`` are equal over many prompts and settings."""
    source = random.Random(1)
    swapped = []
    for _ in range(BEAM_SETTINGS):
        setting = some_setting(source)
        theirs = generate_beams(model, setting)
        if swaps(run(setting.beam_search(), model).hypotheses, theirs, setting):
            swapped.append(setting)
    record_property("settings with equal scores swapped", len(swapped))
    assert len(swapped) <= 0.02 * BEAM_SETTINGS, swapped


def test_greedy_search_equals_generate(model: PreTrainedModel) -> None:
    """Tokens are equal over many prompts and settings."""
    source = random.Random(2)
    for _ in range(40):
        setting = some_setting(source)
        theirs = generate(model, setting).sequences[0, len(setting.prompt) :].tolist()
        search = GreedySearch(setting.prompt, setting.limits, vocab_size=VOCAB)
        (ours,) = run(search, model).hypotheses
        assert list(ours.token_ids) == theirs, setting
