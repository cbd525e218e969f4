"""transformers by hand, in chainrule's own environment: what ``benchmarks.by_hand`` does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM

from benchmarks import by_hand
from benchmarks.peers.protocol import Ids
from benchmarks.peers.workers.serving import serve
from benchmarks.workloads import Group

THREADS = 2


class Transformers:
    """The model as transformers serves it, in one precision throughout."""

    version = transformers.__version__

    def __init__(self, folder: Path, variant: str) -> None:
        torch.set_num_threads(THREADS)
        dtype = getattr(torch, variant)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()

    def score(self, paths: Sequence[tuple[Ids, Ids]]) -> list[float]:
        """A context with several candidates is computed once, pairs in padded batches."""
        groups = [
            Group(tuple(context), tuple(tuple(c) for _, c in part))
            for context, part in groupby(paths, key=itemgetter(0))
        ]
        if all(len(group.candidates) == 1 for group in groups):
            return by_hand.score_pairs(self._model, groups)
        return [s for group in groups for s in by_hand.score_shared(self._model, group)]

    def greedy(self, prompts: Sequence[Ids], new_tokens: int) -> tuple[float, list[Ids]]:
        """``generate`` behind the prompts' cache."""
        decoder = by_hand.Decoder(self._model, [tuple(prompt) for prompt in prompts])
        began = time.perf_counter()
        completions = decoder.generate(new_tokens)
        return time.perf_counter() - began, [list(tokens) for tokens in completions]

    @torch.inference_mode()
    def beam(self, prompt: Ids, num_beams: int, new_tokens: int) -> tuple[float, Ids]:
        """``generate`` from the prompt on."""
        self._model.generation_config.eos_token_id = None
        ids = torch.tensor([prompt])
        output = self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            do_sample=False,
            num_beams=num_beams,
            return_dict_in_generate=True,
            output_scores=True,
        )
        tokens = output.sequences[0, len(prompt) :].tolist()
        return float(output.sequences_scores[0]) * len(tokens), tokens


if __name__ == "__main__":
    serve(Transformers)
