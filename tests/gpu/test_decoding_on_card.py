"""Searches on the card find what searches on the CPU find."""

from __future__ import annotations

import random

import pytest

from model_runtime import BeamSearch, DecodingLimits, DecodingResult, GreedySearch
from tests.conftest import TinyFolder
from tests.gpu.on_card import OnCard, complete, longest_context, random_path
from tests.offline import Offline
from tests.tiny_models import TINY_KINDS, TINY_VOCAB

pytestmark = pytest.mark.gpu

NEW = 12
A_TOKEN = 5e-4


def check_same(got: DecodingResult, want: DecodingResult) -> None:
    ours, theirs = got.hypotheses, want.hypotheses
    assert [h.token_ids for h in ours] == [h.token_ids for h in theirs]
    assert [h.score for h in ours] == pytest.approx([h.score for h in theirs], abs=NEW * A_TOKEN)


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_greedy_and_beam_search_find_what_the_cpu_finds(kind: str, tiny_folder: TinyFolder) -> None:
    """In float32 the completions are the same tokens with the same scores."""
    prompt = random_path(random.Random(kind), longest_context(kind))
    on_cpu, on_card = Offline(tiny_folder(kind)), OnCard(tiny_folder(kind))
    limits = DecodingLimits(NEW)
    results = [
        (
            complete(offline, GreedySearch(prompt, limits, vocab_size=TINY_VOCAB)),
            complete(offline, BeamSearch(prompt, limits, vocab_size=TINY_VOCAB, num_beams=4)),
        )
        for offline in (on_card, on_cpu)
    ]
    for got, want in zip(*results, strict=True):
        check_same(got, want)
