"""A path of a best-first search whose continuations are asked for."""

from __future__ import annotations

from dataclasses import dataclass

from model_runtime.decoding.frontier import Stem
from model_runtime.decoding.prefix import Prefix


@dataclass(frozen=True, slots=True)
class Expansion:
    """One query of a round.

    Attributes:
        prefix: the path whose continuations are asked for.
        bound: no completion behind it, as far as it was not looked at, scores more.
        count: continuations listed at most.
        stem: the same path where it was asked before and more of its continuations are needed.
        in_beam: the beam search goes on from here.
    """

    prefix: Prefix
    bound: float
    count: int
    stem: Stem | None = None
    in_beam: bool = False
