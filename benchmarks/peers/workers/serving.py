"""The loop that every worker runs: requests on standard input, answers on standard output."""

from __future__ import annotations

import json
import os
import random
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from benchmarks.peers.protocol import BEAM, GREEDY, SCORE, Answer, Ids, Request


class Peer(Protocol):
    """What a worker brings. A job that it cannot do raises ``NotImplementedError``."""

    version: str

    def score(self, paths: Sequence[tuple[Ids, Ids]]) -> list[float]:
        """The sum of each candidate behind its context; neighbours may share a context."""
        ...

    def greedy(self, prompts: Sequence[Ids], new_tokens: int) -> tuple[float, list[Ids]]:
        """Seconds of the steps behind the computed prompts, and every completion."""
        ...

    def beam(self, prompt: Ids, num_beams: int, new_tokens: int) -> tuple[float, Ids]:
        """The best completion: the sum of its log-probabilities, and its tokens."""
        ...


def serve(load: Callable[[Path, str], Peer]) -> None:
    """Load the peer from the arguments (model folder, variant), warm it up, answer requests.

    Whatever the peer prints goes to standard error, so that only answers are on standard output.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    folder, variant = Path(sys.argv[1]), sys.argv[2]
    peer = load(folder, variant)
    _answer(peer, _warm_up())
    print(json.dumps({"version": peer.version}), file=answers, flush=True)
    for line in sys.stdin:
        try:
            answer = _answer(peer, Request.from_line(line)).to_line()
        except NotImplementedError as error:
            answer = json.dumps({"not_offered": str(error)}) + "\n"
        except Exception as error:
            traceback.print_exc()
            answer = json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n"
        answers.write(answer)
        answers.flush()


def _warm_up() -> Request:
    rng = random.Random(0)
    ids = [rng.randrange(100, 1000) for _ in range(64)]
    return Request(SCORE, groups=[(ids[:48], [ids[48:56], ids[56:]])])


def _answer(peer: Peer, request: Request) -> Answer:
    if request.job == GREEDY:
        seconds, completions = peer.greedy(request.prompts, request.new_tokens)
        return Answer(seconds, tokens=completions)
    began = time.perf_counter()
    if request.job == SCORE:
        scores = peer.score(request.paths)
        return Answer(time.perf_counter() - began, scores=scores)
    if request.job == BEAM:
        total, tokens = peer.beam(request.prompts[0], request.num_beams, request.new_tokens)
        return Answer(time.perf_counter() - began, scores=[total], tokens=[tokens])
    raise ValueError(f"no job is called {request.job}")
