"""chainrule's answers to the same requests."""

from __future__ import annotations

import time

from benchmarks.in_process import InProcess
from benchmarks.peers.protocol import BEAM, GREEDY, SCORE, Answer, Request
from benchmarks.workloads import Group
from model_runtime import BeamSearch, DecodingLimits, GreedySearch


class Ours:
    """The engine in this process. Every run has a salt of its own."""

    def __init__(self, engine: InProcess) -> None:
        self._engine = engine
        self._vocab_size = engine.engine.info.vocab_size

    def ask(self, request: Request, salt: str) -> Answer:
        """The answer, and how long it took."""
        if request.job == SCORE:
            return self._score(request, salt)
        if request.job == GREEDY:
            return self._greedy(request, salt)
        if request.job == BEAM:
            return self._beam(request, salt)
        raise ValueError(f"no job is called {request.job}")

    def _score(self, request: Request, salt: str) -> Answer:
        groups = [
            Group(tuple(context), tuple(tuple(c) for c in candidates))
            for context, candidates in request.groups
        ]
        began = time.perf_counter()
        sums = self._engine.sums(groups, salt)
        return Answer(time.perf_counter() - began, scores=sums)

    def _greedy(self, request: Request, salt: str) -> Answer:
        """The first search leaves all prompts in the cache; the second is measured."""
        self._engine.decode(self._searches(request, 1), salt)
        searches = self._searches(request, request.new_tokens)
        began = time.perf_counter()
        outcomes = self._engine.decode(searches, salt)
        seconds = time.perf_counter() - began
        return Answer(seconds, tokens=[list(o.value.hypotheses[0].token_ids) for o in outcomes])

    def _beam(self, request: Request, salt: str) -> Answer:
        search = BeamSearch(
            request.prompts[0],
            DecodingLimits(request.new_tokens),
            num_beams=request.num_beams,
            vocab_size=self._vocab_size,
        )
        began = time.perf_counter()
        (outcome,) = self._engine.decode([search], salt)
        seconds = time.perf_counter() - began
        best = outcome.value.hypotheses[0]
        return Answer(seconds, scores=[best.logprob], tokens=[list(best.token_ids)])

    def _searches(self, request: Request, tokens: int) -> list[GreedySearch]:
        limits = DecodingLimits(tokens)
        return [GreedySearch(p, limits, vocab_size=self._vocab_size) for p in request.prompts]
