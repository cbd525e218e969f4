"""A question with a closed set of answers, whoever asked it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Option:
    """One of the answers that a question allows.

    Attributes:
        text: what the model would write.
        description: shown to the model beside it.
    """

    text: str
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about the input.

    Attributes:
        kind: whether a statement holds, which option fits, or which level of a scale.
        instructions: the statement or the question; None where the options say it all.
        options: one at least. Of a predicate yes and no, in this order; of a score from the lowest
            level to the highest.
        param: the field of the request that errors name, as in ``questions.3``.
    """

    kind: Literal["predicate", "choice", "score"]
    instructions: str | None
    options: tuple[Option, ...]
    param: str
