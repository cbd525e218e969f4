"""vLLM on the CPU: prompt log-probabilities, generation and its beam search."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vllm
from vllm import LLM, SamplingParams
from vllm.sampling_params import BeamSearchParams

from benchmarks.peers.protocol import Ids
from benchmarks.peers.workers.serving import serve

MAX_BATCHED_TOKENS = 16_384
"""All of the largest workload in one step, so that nothing waits for a second one."""

BLOCK = 32
"""Tokens of a cache block: the smallest that its CPU kernels are made for, so that of a prompt
of 256 tokens 224 are found again, where its default of 128 finds half."""


class Vllm:
    """An ``LLM`` with its prefix cache on. Prompt log-probabilities do not read that cache."""

    version = vllm.__version__

    def __init__(self, folder: Path, variant: str) -> None:
        self._llm = LLM(
            model=str(folder),
            dtype=variant,
            max_model_len=1024,
            max_num_batched_tokens=MAX_BATCHED_TOKENS,
            max_num_seqs=64,
            block_size=BLOCK,
            enable_prefix_caching=True,
            max_logprobs=64,
            disable_log_stats=True,
        )
        self._numbers = itertools.count()

    def score(self, paths: Sequence[tuple[Ids, Ids]]) -> list[float]:
        """One prompt a candidate; the rows of the context go through the head as well."""
        asked = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0, detokenize=False)
        prompts: list[Any] = [{"prompt_token_ids": context + c} for context, c in paths]
        outputs = self._llm.generate(prompts, asked, use_tqdm=False)
        return [_sum(o.prompt_logprobs, c) for o, (_, c) in zip(outputs, paths, strict=True)]

    def greedy(self, prompts: Sequence[Ids], new_tokens: int) -> tuple[float, list[Ids]]:
        """From the moment that the last prompt has its first token."""
        self._generate(prompts, 1)
        began, after, completions = self._generate(prompts, new_tokens + 1)
        seconds = time.perf_counter() - began
        # Prompts that were started one step earlier have fewer steps left after that moment.
        whole = seconds * new_tokens * len(prompts) / after
        return whole, [tokens[:new_tokens] for tokens in completions]

    def beam(self, prompt: Ids, num_beams: int, new_tokens: int) -> tuple[float, Ids]:
        """Its offline beam search, which asks the engine anew for every step."""
        asked = BeamSearchParams(beam_width=num_beams, max_tokens=new_tokens, ignore_eos=True)
        (output,) = self._llm.beam_search([{"prompt_token_ids": prompt}], asked)
        best = output.sequences[0]
        return float(best.cum_logprob), list(best.tokens[len(prompt) :])

    def _generate(self, prompts: Sequence[Ids], tokens: int) -> tuple[float, int, list[Ids]]:
        """When every prompt had its first token, tokens made after that, all completions."""
        engine = self._llm.llm_engine
        asked = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True, detokenize=False)
        done: dict[str, Ids] = {}
        for prompt in prompts:
            name = str(next(self._numbers))
            done[name] = []
            engine.add_request(name, {"prompt_token_ids": prompt}, asked)
        began, before = 0.0, 0
        while engine.has_unfinished_requests():
            for output in engine.step():
                done[output.request_id] = list(output.outputs[0].token_ids)
            if not began and all(done.values()):
                began, before = time.perf_counter(), sum(map(len, done.values()))
        return began, sum(map(len, done.values())) - before, list(done.values())


def _sum(logprobs: Any, candidate: Ids) -> float:
    rows = logprobs[-len(candidate) :]
    return sum(float(row[token].logprob) for row, token in zip(rows, candidate, strict=True))


if __name__ == "__main__":
    serve(Vllm)
