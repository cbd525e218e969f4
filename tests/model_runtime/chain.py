"""The smallest search of several rounds."""

from __future__ import annotations

from collections.abc import Sequence

from model_runtime.types import LogprobQuery, QueryResult


class Chain:
    """A search that extends its path by a token a round. Its result is what it was told."""

    def __init__(self, prompt: tuple[int, ...], rounds: int) -> None:
        self.path = prompt
        self.told: list[QueryResult] = []
        self.cost = len(prompt) + rounds
        self._rounds = rounds

    @property
    def done(self) -> bool:
        return len(self.told) == self._rounds

    def query(self) -> LogprobQuery:
        return LogprobQuery(self.path, len(self.path), targets=(1,))

    def queries(self) -> Sequence[LogprobQuery]:
        return [self.query()]

    def advance(self, answers: Sequence[QueryResult]) -> None:
        self.told += answers
        self.path = (*self.path, len(self.told))

    def result(self) -> tuple[QueryResult, ...]:
        return tuple(self.told)

    @property
    def longest_path(self) -> int:
        return self.cost
