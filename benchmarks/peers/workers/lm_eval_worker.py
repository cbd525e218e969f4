"""lm-evaluation-harness: the log-likelihoods of its Hugging Face model."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from lm_eval.models.huggingface import HFLM

from benchmarks.peers.protocol import Ids
from benchmarks.peers.workers.serving import serve

THREADS = 2

AT_ONCE = 8
"""Its ``batch_size``: it makes log-probabilities of every position of all of them."""


class LmEval:
    """``HFLM`` asked on the level of tokens, below its tokenizer."""

    version = version("lm-eval")

    def __init__(self, folder: Path, variant: str) -> None:
        torch.set_num_threads(THREADS)
        self._model = HFLM(pretrained=str(folder), dtype=variant, device="cpu", batch_size=AT_ONCE)

    def score(self, paths: Sequence[tuple[Ids, Ids]]) -> list[float]:
        """Each candidate with its context is a request."""
        requests = [
            ((f"context {i}", f"candidate {i}"), context, candidate)
            for i, (context, candidate) in enumerate(paths)
        ]
        answers = self._model._loglikelihood_tokens(requests, disable_tqdm=True)
        return [float(logprob) for logprob, _ in answers]

    def greedy(self, prompts: Sequence[Ids], new_tokens: int) -> tuple[float, list[Ids]]:
        """Left to transformers, which it calls."""
        raise NotImplementedError("generation is that of transformers")

    def beam(self, prompt: Ids, num_beams: int, new_tokens: int) -> tuple[float, Ids]:
        """Left to transformers, which it calls."""
        raise NotImplementedError("generation is that of transformers")


if __name__ == "__main__":
    serve(LmEval)
