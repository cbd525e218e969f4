"""What the driver asks and a worker answers: one JSON object a line.

Standard library only, since every peer's own Python imports it::

    worker -> driver   {"version": "1.2.3"}                                   once, when it is warm
    driver -> worker   {"job": "score", "groups": [[context, [candidate, ...]], ...], ...}
    worker -> driver   {"seconds": 1.5, "scores": [...], "tokens": []}
               or      {"not_offered": "what it lacks"}
               or      {"error": "why not"}
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

Ids = list[int]

SCORE, GREEDY, BEAM = "score", "greedy", "beam"


@dataclass(frozen=True, slots=True)
class Request:
    """One measured piece of work.

    Attributes:
        job: ``score`` gives the sum of log-probabilities of every candidate, ``greedy`` continues
            every prompt by ``new_tokens`` and ``beam`` the one prompt with ``num_beams``. End
            tokens end nothing.
        groups: for ``score``, contexts with their candidates.
        prompts: for the others.
        new_tokens, num_beams: for the others.
    """

    job: str
    groups: list[tuple[Ids, list[Ids]]] = field(default_factory=list)
    prompts: list[Ids] = field(default_factory=list)
    new_tokens: int = 0
    num_beams: int = 1

    @property
    def paths(self) -> list[tuple[Ids, Ids]]:
        """For ``score``, each candidate with its context, in the order of the scores."""
        return [(context, c) for context, candidates in self.groups for c in candidates]

    def to_line(self) -> str:
        """One line of JSON, its end included."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Request:
        """The inverse of ``to_line``."""
        values: dict[str, Any] = json.loads(line)
        values["groups"] = [(context, candidates) for context, candidates in values["groups"]]
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a side computed, and how long it took.

    Attributes:
        seconds: wall clock. Of ``greedy`` only the steps: the prompts were computed before.
        scores: for ``score`` a sum for each candidate, for ``beam`` the sum of the best completion.
        tokens: the completion of each prompt.
    """

    seconds: float
    scores: list[float] = field(default_factory=list)
    tokens: list[Ids] = field(default_factory=list)

    def to_line(self) -> str:
        """One line of JSON, its end included."""
        return json.dumps(asdict(self)) + "\n"
