"""`make bench`: what another API's shape costs over our own, for the same work of the model.

Each pair asks a live server the same question twice: natively, and as another API writes it. What
stands behind a question is new every time, so that both compute it; under "cached" it is the same
every time, so that nearly all that is left is reading, translating and writing.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.server_process import request, running_server
from benchmarks.table import Table
from benchmarks.timing import alternate, median

TOKENS = 200
VOCABULARY = 49_152
REQUESTS = 10
"""Of one timed run."""

Fields = dict[str, Any]
Numbers = list[float]


@dataclass(frozen=True, slots=True)
class Pair:
    """One question in two shapes.

    Attributes:
        name: of the row.
        native, foreign: a path, and the body about some token ids.
        read_native, read_foreign: the numbers of an answer, which must be equal.
    """

    name: str
    native: tuple[str, Callable[[list[int]], Fields]]
    foreign: tuple[str, Callable[[list[int]], Fields]]
    read_native: Callable[[Any], Numbers]
    read_foreign: Callable[[Any], Numbers]


LABELS = [340, 411]

PAIRS = (
    Pair(
        "OpenAI echo with logprobs",
        (
            "/v1/score",
            lambda ids: {"context": ids[:1], "candidates": [ids[1:]], "top_logprobs": 1},
        ),
        (
            "/v1/completions",
            lambda ids: {"prompt": [ids], "echo": True, "logprobs": 1, "max_tokens": 1},
        ),
        lambda answer: [token["logprob"] for token in answer["results"][0]["tokens"]],
        lambda answer: answer["choices"][0]["logprobs"]["token_logprobs"][1:-1],
    ),
    Pair(
        "OpenAI greedy, one token",
        ("/v1/decode", lambda ids: {"context": ids, "max_tokens": 1, "token_logprobs": True}),
        ("/v1/completions", lambda ids: {"prompt": ids, "logprobs": 1, "max_tokens": 1}),
        lambda answer: [token["logprob"] for token in answer["sequences"][0]["tokens"]],
        lambda answer: answer["choices"][0]["logprobs"]["token_logprobs"],
    ),
    Pair(
        "SGLang and vLLM label scores",
        ("/v1/next_token", lambda ids: {"context": ids, "token_ids": LABELS, "top_k": 0}),
        (
            "/v1/score",
            lambda ids: {"query": ids, "items": [ids[:1]], "label_token_ids": LABELS},
        ),
        lambda answer: [token["probability"] for token in answer["chosen"]],
        lambda answer: answer["scores"][0],
    ),
)


def run(runs: int) -> None:
    """Print the table."""
    table = Table(
        f"One request of {TOKENS} tokens over HTTP, in our shape and in another's",
        *("shape", "context", "native ms", "other ms", "costs"),
    )
    with running_server() as port:
        for pair in PAIRS:
            for cached in (False, True):
                table.row(*_row(port, pair, cached, runs))


def _row(port: int, pair: Pair, cached: bool, runs: int) -> tuple[str, ...]:
    paths = _paths(f"{pair.name} {cached}", cached)
    _check(port, pair, next(paths))

    def side(which: tuple[str, Callable[[list[int]], Fields]]) -> None:
        for _ in range(REQUESTS):
            _ask(port, which, next(paths))

    seconds = alternate(
        {"native": lambda: side(pair.native), "other": lambda: side(pair.foreign)}, runs
    )
    native, other = (1000 * median(seconds[name]) / REQUESTS for name in ("native", "other"))
    kind = "cached" if cached else "new"
    return pair.name, kind, f"{native:.1f}", f"{other:.1f}", f"{100 * (other / native - 1):+.0f} %"


def _paths(row: str, cached: bool) -> Iterator[list[int]]:
    seeds = itertools.repeat(0) if cached else itertools.count(1)
    for seed in seeds:
        yield random.Random(f"{row} {seed}").choices(range(100, VOCABULARY), k=TOKENS)


def _ask(port: int, which: tuple[str, Callable[[list[int]], Fields]], ids: list[int]) -> Any:
    path, body = which
    status, content = request(port, "POST", path, json.dumps(body(ids)).encode())
    if status != 200:
        raise SystemExit(f"{path} answered {status}: {content[:300]!r}")
    return json.loads(content)


def _check(port: int, pair: Pair, ids: list[int]) -> None:
    """End the benchmark where the two shapes do not say the same."""
    tail = ids if pair.foreign[0] != "/v1/score" else [*ids, *ids[:1]]
    native = pair.read_native(_ask(port, pair.native, tail))
    foreign = pair.read_foreign(_ask(port, pair.foreign, ids))
    if native != foreign:
        raise SystemExit(f"{pair.name}: {foreign[:5]}, and natively {native[:5]}")
