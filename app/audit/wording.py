"""Numbers and tokens as the sentences of an audit spell them."""

from __future__ import annotations

import json


def quoted(text: str) -> str:
    """A token or a candidate, so that spaces and line ends can be seen."""
    return json.dumps(text, ensure_ascii=False)


def nats(value: float) -> str:
    """A difference of log-probabilities."""
    return f"{value:.4g} nats"


def count_of(number: int, noun: str) -> str:
    """So many of them."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
