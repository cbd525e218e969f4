"""CTranslate2: its scoring and its generation, from a model converted once."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import ctranslate2
from ctranslate2.converters import TransformersConverter

from benchmarks.peers.protocol import Ids
from benchmarks.peers.workers.serving import serve

CONVERTED = Path(".cache/peers")
THREADS = 2

AT_ONCE = 8
"""Paths of a scoring batch: it makes log-probabilities of every position of all of them."""


class CTranslate2:
    """A ``Generator`` on two threads. It knows tokens by their text."""

    version = ctranslate2.__version__

    def __init__(self, folder: Path, variant: str) -> None:
        converted = CONVERTED / f"{folder.name}-ctranslate2"
        if not (converted / "model.bin").is_file():
            TransformersConverter(str(folder)).convert(str(converted), force=True)
        self._texts: list[str] = json.loads((converted / "vocabulary.json").read_text())
        self._generator = ctranslate2.Generator(
            str(converted), compute_type=variant, inter_threads=1, intra_threads=THREADS
        )

    def score(self, paths: Sequence[tuple[Ids, Ids]]) -> list[float]:
        """Every candidate pays for its context: nothing is shared."""
        texts = [self._to_texts(context + c) for context, c in paths]
        results = self._generator.score_batch(texts, max_batch_size=AT_ONCE)
        return [
            sum(result.log_probs[-len(c) :]) for result, (_, c) in zip(results, paths, strict=True)
        ]

    def greedy(self, prompts: Sequence[Ids], new_tokens: int) -> tuple[float, list[Ids]]:
        """From the moment that the last prompt has its first token."""
        first = 0.0

        def watch(step: ctranslate2.GenerationStepResult) -> bool:
            nonlocal first
            if step.step == 0:
                first = time.perf_counter()
            return False

        results = self._generator.generate_batch(
            [self._to_texts(prompt) for prompt in prompts],
            beam_size=1,
            max_length=new_tokens + 1,
            end_token=self._never(),
            include_prompt_in_result=False,
            callback=watch,
        )
        seconds = time.perf_counter() - first
        return seconds, [result.sequences_ids[0][:new_tokens] for result in results]

    def beam(self, prompt: Ids, num_beams: int, new_tokens: int) -> tuple[float, Ids]:
        """Its score is the mean, as its length penalty of 1 makes it."""
        (result,) = self._generator.generate_batch(
            [self._to_texts(prompt)],
            beam_size=num_beams,
            max_length=new_tokens,
            end_token=self._never(),
            include_prompt_in_result=False,
            return_scores=True,
        )
        tokens = result.sequences_ids[0]
        return result.scores[0] * len(tokens), tokens

    def _to_texts(self, ids: Ids) -> list[str]:
        return [self._texts[i] for i in ids]

    def _never(self) -> str:
        """A control token that the model never makes, since some end token must be named."""
        return self._texts[3]


if __name__ == "__main__":
    serve(CTranslate2)
