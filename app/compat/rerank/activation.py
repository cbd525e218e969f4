"""What turns a recipe's logit into a score."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Literal

Activation = Literal["sigmoid", "identity", "tanh"]

ACTIVATIONS: Final[dict[str, Activation]] = {
    "Sigmoid": "sigmoid",
    "Identity": "identity",
    "Tanh": "tanh",
}
"""By the names of torch's classes. All of them keep the order."""


def sigmoid(value: float) -> float:
    """1 / (1 + exp(-value))."""
    # Neither form overflows where it is used.
    rest = math.exp(-abs(value))
    return 1 / (1 + rest) if value >= 0 else rest / (1 + rest)


def _identity(value: float) -> float:
    return value


_FUNCTIONS: Final[dict[Activation, Callable[[float], float]]] = {
    "sigmoid": sigmoid,
    "identity": _identity,
    "tanh": math.tanh,
}


def activated(activation: Activation, logit: float) -> float:
    """The score: 0..1, any number, or -1..1."""
    return _FUNCTIONS[activation](logit)
