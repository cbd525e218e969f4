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
QUESTIONS = 20
"""Of each kind about one input; of the input's ids the first are its words."""
OPTIONS = {"billing": "Payments and refunds.", "shipping": None, "other": None}
LEVELS = ["It can wait.", "This week.", "Today."]


def _decisions(ids: list[int]) -> Fields:
    questions: list[Fields] = []
    for index in range(QUESTIONS):
        asked = f"Is number {index} in it?"
        options = [
            {"value": option} if beside is None else {"value": option, "description": beside}
            for option, beside in OPTIONS.items()
        ]
        levels = [{"label": str(i), "description": level} for i, level in enumerate(LEVELS)]
        questions += [
            {"type": "predicate", "instructions": asked},
            {"type": "choice", "instructions": asked, "choices": options},
            {"type": "score", "instructions": asked, "levels": levels},
        ]
    return {"input": _words(ids), "questions": questions}


def _system_one(ids: list[int]) -> Fields:
    questions: Fields = {}
    for index in range(QUESTIONS):
        asked = {"instructions": f"Is number {index} in it?"}
        questions |= {
            f"noul {index}": {"type": "noul", **asked},
            f"choice {index}": {"type": "choice", **asked, "criteria": OPTIONS},
            f"score {index}": {"type": "score", **asked, "criteria": LEVELS},
        }
    return {"model": "jev-latest", "state": _words(ids), "questions": questions}


def _words(ids: list[int]) -> str:
    return " ".join(map(str, ids[: TOKENS // 5]))


def _read_decisions(answer: Any) -> Numbers:
    shares: Numbers = []
    for one in answer["answers"]:
        shares += [one["probability"]] if one["type"] == "predicate" else []
        shares += [option["probability"] for option in one.get("probabilities", ())]
    return shares


def _read_system_one(answer: Any) -> Numbers:
    shares: Numbers = []
    for one in answer["answers"].values():
        shares += [one["noul"]] if one["type"] == "noul" else one["probabilities"].values()
    return shares


CHAT_TOKENS = 16
_CHAT = {"max_tokens": CHAT_TOKENS, "ignore_eos": True}


def _messages(ids: list[int]) -> list[Fields]:
    """A question to which these ids give its words."""
    return [{"role": "user", "content": " ".join(map(str, ids[: TOKENS // 4]))}]


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
        f"OpenAI chat, {CHAT_TOKENS} tokens",
        (
            "/v1/decode",
            lambda ids: {"context": _messages(ids), "token_logprobs": True, **_CHAT},
        ),
        (
            "/v1/chat/completions",
            lambda ids: {"messages": _messages(ids), "logprobs": True, **_CHAT},
        ),
        lambda answer: [token["logprob"] for token in answer["sequences"][0]["tokens"]],
        lambda answer: [token["logprob"] for token in answer["choices"][0]["logprobs"]["content"]],
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
    Pair(
        f"System One, {3 * QUESTIONS} questions",
        ("/v1/decisions", _decisions),
        ("/v1/systemone", _system_one),
        _read_decisions,
        _read_system_one,
    ),
)


def run(runs: int) -> None:
    """Print the table."""
    table = Table(
        f"One request of {TOKENS} tokens or words of them over HTTP, in our shape and in another's",
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
