"""Beam search through the whole runtime against ``generate`` of transformers.

Ours goes through planner, path attention and prefix cache, dozens of searches at a time in the
same batches; theirs is one call after the other with transformers' own attention and cache. The
two add up in different order, so paths whose scores are equal within that error may change
places: such ranks are counted, shown, and allowed twice in a hundred.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from model_runtime.config import EngineConfig
from model_runtime.decoding.beam import BeamSearch
from model_runtime.decoding.hypothesis import Hypothesis
from model_runtime.engine import Engine
from model_runtime.scheduling.engine_stats import EngineStats
from model_runtime.tokenization.tokenizer import Tokenizer
from tests.model_runtime.decoding.generate_settings import (
    VOCAB,
    Beams,
    Setting,
    generate_beams,
    some_setting,
    swaps,
)
from tests.offline import Offline
from tests.tiny_models import save_tiny_model

KINDS = ("smollm", "qwen3", "gemma2", "gpt2", "olmo2", "phi3")
SETTINGS = 24
"""Per kind; all of them run at once."""

SWAPS = 0.02
"""The share of returned sequences that may have changed places."""

LONGEST_PROMPT = 90
"""Tokens: some prompts end behind the second key block, all within GPT-2's positions."""

WIDE_VOCAB = 2048
"""More than (1 + one end) x 512, which ``generate`` needs for its first step at 512 beams."""

PROMPTS = (
    "The capital of France is",
    "Q: Is the sky blue? A:",
    "Once upon a time, there was a",
)

Record = Callable[[str, object], None]


def settings_with_shared_prompts(seed: int) -> list[Setting]:
    """Random settings, half of whose prompts begin with a part of the same text."""
    source = random.Random(seed)
    shared = tuple(source.randrange(VOCAB) for _ in range(LONGEST_PROMPT - 6))
    settings = []
    for index in range(SETTINGS):
        setting = some_setting(source)
        start = shared[: source.randrange(len(shared))] if index % 2 else ()
        settings.append(replace(setting, prompt=start + setting.prompt))
    return settings


def decode(
    folder: Path, searches: Sequence[BeamSearch], **config: Any
) -> tuple[list[tuple[Hypothesis, ...]], EngineStats]:
    """What each search finds, all of them submitted at once."""

    async def run() -> tuple[list[tuple[Hypothesis, ...]], EngineStats]:
        engine = Engine.load(EngineConfig(model=str(folder), device="cpu", **config))
        await engine.start()
        try:
            outcomes = await asyncio.gather(*map(engine.decode, searches))
        finally:
            await engine.stop(drain_s=5)
        return [outcome.value.hypotheses for outcome in outcomes], engine.stats()

    return asyncio.run(run())


def in_step(model: Offline, searches: Sequence[BeamSearch]) -> None:
    """Run searches to their ends, the queries of all of them in one batch a step."""
    while running := [search for search in searches if not search.done]:
        asked = [search.queries() for search in running]
        answers = iter(model.answer([query for queries in asked for query in queries]))
        for search, queries in zip(running, asked, strict=True):
            search.advance(list(islice(answers, len(queries))))


def plain(folder: Path) -> PreTrainedModel:
    """The model as transformers runs it by itself."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def check(
    ours: Sequence[tuple[Hypothesis, ...]],
    theirs: Sequence[Beams],
    settings: Sequence[Setting],
    show: Callable[[str], None],
) -> None:
    """Every score equal, and hardly a sequence in another's place; says how many."""
    pairs = zip(ours, theirs, settings, strict=True)
    swapped = {setting: swaps(*pair, setting) for *pair, setting in pairs}
    count, returned = sum(swapped.values()), sum(map(len, theirs))
    show(f"{count} of {returned} sequences in {len(settings)} settings changed places")
    assert count <= SWAPS * returned, [setting for setting, n in swapped.items() if n]


@pytest.fixture
def show(
    capsys: pytest.CaptureFixture[str], record_property: Record, request: pytest.FixtureRequest
) -> Callable[[str], None]:
    """Puts a line into the test's output and its report, whether or not it passes."""

    def line(text: str) -> None:
        record_property("ties", text)
        with capsys.disabled():
            sys.stdout.write(f"\n{request.node.name}: {text}\n")

    return line


@pytest.mark.parametrize("kind", KINDS)
def test_beams_equal_generate(kind: str, tmp_path: Path, show: Callable[[str], None]) -> None:
    """Tokens and scores of many settings in shared batches are those of ``generate``."""
    folder = save_tiny_model(kind, tmp_path, vocab_size=VOCAB)
    settings = settings_with_shared_prompts(seed=KINDS.index(kind))
    ours, stats = decode(folder, [setting.beam_search() for setting in settings])
    assert stats.shared_batches > 5
    assert stats.cached_tokens > 100
    model = plain(folder)
    check(ours, [generate_beams(model, setting) for setting in settings], settings, show)


@pytest.mark.parametrize("num_beams", [64, 200, 512])
def test_wide_beams_equal_generate(
    num_beams: int, tmp_path: Path, show: Callable[[str], None]
) -> None:
    """Up to the widest beam, every one of the returned sequences."""
    folder = save_tiny_model("smollm", tmp_path, vocab_size=WIDE_VOCAB)
    setting = Setting(
        prompt=(5, 3, 8, 1),
        max_tokens=4,
        ends=frozenset({7}),
        num_beams=num_beams,
        num_return_sequences=num_beams,
        early_stopping="never",
    )
    ours, _ = decode(folder, [setting.beam_search(WIDE_VOCAB)], kv_cache_bytes=64 << 20)
    check(ours, [generate_beams(plain(folder), setting)], [setting], show)


@pytest.mark.real_model
def test_beams_of_the_real_model_equal_generate(
    real_model: Offline, real_folder: Path, show: Callable[[str], None]
) -> None:
    """Four beams behind three prompts of the default model, batched together."""
    tokenizer, model = Tokenizer.load(real_folder), plain(real_folder)
    settings = [
        Setting(
            prompt=tuple(tokenizer.encode(prompt)),
            max_tokens=8,
            ends=frozenset({model.generation_config.eos_token_id}),
            num_beams=4,
            num_return_sequences=4,
        )
        for prompt in PROMPTS
    ]
    searches = [setting.beam_search(model.config.vocab_size) for setting in settings]
    in_step(real_model, searches)
    ours = [search.result().hypotheses for search in searches]
    check(ours, [generate_beams(model, setting) for setting in settings], settings, show)
