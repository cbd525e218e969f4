"""`make bench`: many questions about one input, against as many prompts; and what orders cost.

The questions are 400 choices between four options about an input of 1,000 tokens. Whoever
has no decisions sends each as a prompt of its own with the whole input in it; such prompts share
nothing here, as behind a server without a cache. ``debias: cyclic`` asks every question in the
four rotations of its options.

python -m benchmarks.decisions
"""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

from benchmarks.server_process import request, running_server
from benchmarks.table import Table
from benchmarks.timing import alternate, median

QUESTIONS = 400
INPUT_WORDS = 922
OPTIONS = ("delivery", "payment", "product", "other")
INSTRUCTION_WORDS = (8, 54)
"""Of a short question, and of one that says what belongs to each option."""

PROMPTS = 40
"""Separate prompts of one timed run; all take as many times as long as there are more of them."""

WORDS = (
    *("customer", "order", "parcel", "invoice", "refund", "address", "delivery", "charge"),
    *("product", "warranty", "receipt", "agent", "account", "payment", "courier", "date"),
    *("amount", "complaint", "box", "damage", "email", "phone", "reply", "delay", "voucher"),
)

TIMEOUT_MS = 3_600_000

Body = dict[str, Any]


def run(runs: int) -> None:
    """Print the table."""
    table = Table(
        f"{QUESTIONS} questions with {len(OPTIONS)} options about one input, over HTTP",
        *("words of a question", "tokens of the input", "one request, s"),
        *(f"{QUESTIONS} prompts, s", "one request is faster by"),
        *("debias: cyclic, s", "cyclic takes"),
    )
    with running_server() as port:
        for words in INSTRUCTION_WORDS:
            table.row(*_row(port, words, runs))


def _row(port: int, words: int, runs: int) -> tuple[str, ...]:
    salts = map(str, itertools.count())
    asked = [_question(index, words) for index in range(QUESTIONS)]
    text = _text(INPUT_WORDS, "input")

    def ask(questions: list[Body], debias: str = "none") -> Body:
        sent = {"input": text, "questions": questions, "debias": debias, "timeout_ms": TIMEOUT_MS}
        return _answer(port, {**sent, "cache_salt": f"{words} {next(salts)}"})

    def prompts() -> list[Body]:
        return [ask([question])["answers"][0] for question in asked[:PROMPTS]]

    if ask(asked)["answers"][:PROMPTS] != prompts():
        raise SystemExit("a question among others is answered otherwise than alone")
    seconds = alternate(
        {"once": lambda: ask(asked), "prompts": prompts, "cyclic": lambda: ask(asked, "cyclic")},
        runs,
    )
    once, some, cyclic = (median(seconds[name]) for name in ("once", "prompts", "cyclic"))
    separate = some * QUESTIONS / PROMPTS
    (alone, all_alike) = (ask(asked[:1])["usage"], ask([asked[0]] * 2)["usage"])
    input_tokens = 2 * alone["input_tokens"] - all_alike["input_tokens"]
    return (
        *(str(words), str(input_tokens), f"{once:.1f}", f"{separate:.0f}"),
        *(f"{separate / once:.1f}x", f"{cyclic:.1f}", f"{cyclic / once:.2f} times as long"),
    )


def _text(words: int, seed: str) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def _question(index: int, words: int) -> Body:
    return {
        "type": "choice",
        "instructions": f"Who takes number {index}? {_text(words - 4, str(index))}",
        "choices": [{"value": option} for option in OPTIONS],
    }


def _answer(port: int, body: Body) -> Body:
    status, content = request(port, "POST", "/v1/decisions", json.dumps(body).encode())
    if status != 200:
        raise SystemExit(f"/v1/decisions answered {status}: {content[:300]!r}")
    return dict(json.loads(content))


if __name__ == "__main__":
    run(1)
