"""Made-up questions: contexts and candidates of common words, different each time, reproducible."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

_PROSE: Final = (
    "the of and to in is was for on with as by at from it an are be this which or his not had "
    "but one have were their has been who all they more other when time into only new some could "
    "these two may first then any like over such our even most made after also many must before "
    "back see through way where get much go good new write long day own year work life"
)
"""Each word is one token behind a space in nearly every vocabulary."""
_WORDS: Final = tuple(_PROSE.split())


@dataclass(frozen=True, slots=True)
class Workload:
    """What the questions are like.

    Attributes:
        context_tokens: of a context, about.
        candidates: answers, items or documents of one request.
        candidate_tokens: of each of them, about.
        max_tokens: to be generated.
        contexts: so many different contexts, in random order; 0 makes every one new.
        model: the model's name; None leaves it out.
        label_token_ids: for the shapes that want the ids of labels.
    """

    context_tokens: int = 200
    candidates: int = 4
    candidate_tokens: int = 8
    max_tokens: int = 16
    contexts: int = 0
    model: str | None = None
    label_token_ids: tuple[int, ...] = (1, 2)


@dataclass(frozen=True, slots=True)
class Question:
    """One context and what may follow it."""

    context: str
    candidates: tuple[str, ...]


class Questions:
    """An endless sequence of them; the same seeds make the same sequence.

    Args:
        workload: what they are like.
        seed: of what is new each time.
        contexts_seed: of the contexts that come again: those who share it share them.
    """

    def __init__(self, workload: Workload, seed: str, contexts_seed: str = "") -> None:
        self._workload = workload
        self._random = random.Random(seed)
        self._contexts_seed = contexts_seed

    def next(self) -> Question:
        """One more."""
        workload = self._workload
        return Question(
            self._context(),
            tuple(
                self._text(self._random, workload.candidate_tokens)
                for _ in range(workload.candidates)
            ),
        )

    def _context(self) -> str:
        workload = self._workload
        if not workload.contexts:
            return self._text(self._random, workload.context_tokens)
        chosen = self._random.randrange(workload.contexts)
        source = random.Random(f"{self._contexts_seed} context {chosen}")
        return self._text(source, workload.context_tokens)

    def _text(self, source: random.Random, tokens: int) -> str:
        return "".join(f" {word}" for word in source.choices(_WORDS, k=tokens))
