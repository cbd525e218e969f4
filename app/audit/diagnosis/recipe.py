"""How scores are made of rows: rightly, or with one mistake or another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from app.audit.diagnosis.rows import LISTED, PathRows

Window = Literal["all", "first_dropped", "early", "with_prompt"]
End = Literal["none", "any", "eos"]
Divisor = Literal["sum", "mean", "per_byte", "per_char", "all_tokens", "all_predicted"]

OVERFLOW = 700.0
"""exp of more is no float."""


class Number(NamedTuple):
    """A number, and what an error of 1 in every token's log-probability would change in it."""

    value: float
    error: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a system comes by its numbers.

    Attributes:
        source: index of the input whose rows are read; 0 is the request's own.
        shift: by how many rows too late each token is read.
        window: which tokens count.
        cut: so many of them, from the first scored position on; None for all.
        end: whether an end is scored: any of the model's, or the tokenizer's own.
        top_k: the softmax is over so many most probable tokens; None for the vocabulary.
        temperature: the logits are divided by it before the softmax.
        divisor: what the sum is divided by: nothing, scored tokens, bytes, characters, the tokens
            of context and candidate, or those of them that have a prediction.
        among: the scores go through a softmax over the candidates.
        among_temperature: they are divided by it before.
        log_base: natural logarithm of the base that logarithms are to.
        sign: -1 where it is turned round.
    """

    source: int = 0
    shift: int = 0
    window: Window = "all"
    cut: int | None = None
    end: End = "none"
    top_k: int | None = None
    temperature: float | None = None
    divisor: Divisor = "sum"
    among: bool = False
    among_temperature: float = 1.0
    log_base: float = 1.0
    sign: int = 1

    @property
    def token_key(self) -> tuple[object, ...]:
        """What the log-probabilities of tokens depend on."""
        return (
            *(self.source, self.shift, self.window, self.cut, self.end, self.top_k),
            self.temperature,
        )

    def tokens(self, path: PathRows) -> list[Number] | None:
        """The log-probability of each token that counts, in nats; None where it cannot be made."""
        found = []
        for position in self._positions(path):
            number = self._token(path, position)
            if number is None:
                return None
            found.append(number)
        if self.window == "with_prompt":
            if path.prompt is None:
                return None
            found = [*(Number(value, 1.0) for value in path.prompt), *found]
        return found

    def scores(
        self,
        paths: Sequence[PathRows | None],
        tokens: Sequence[Sequence[Number] | None],
        *,
        independent: bool = False,
    ) -> list[Number | None]:
        """What each candidate gets.

        Args:
            paths: of the recipe's input.
            tokens: what ``tokens`` makes of each of them.
            independent: whether the errors of tokens are, or add up.
        """
        found = [
            None
            if path is None or numbers is None
            else self._score(path, numbers, independent=independent)
            for path, numbers in zip(paths, tokens, strict=True)
        ]
        if self.among:
            found = self._among(found)
        return [None if number is None else self.in_unit(number) for number in found]

    def in_unit(self, number: Number) -> Number:
        """The logarithm to another base, or turned round."""
        return Number(number.value * self.sign / self.log_base, number.error / self.log_base)

    def _score(
        self, path: PathRows, tokens: Sequence[Number], *, independent: bool
    ) -> Number | None:
        divisor = self._divide_by(path, len(tokens))
        if divisor <= 0:
            return None
        errors = [number.error for number in tokens]
        error = math.hypot(*errors) if independent else sum(errors)
        return Number(math.fsum([number.value for number in tokens]) / divisor, error / divisor)

    def _among(self, scores: Sequence[Number | None]) -> list[Number | None]:
        """Normalized among the candidates."""
        temperature = self.among_temperature
        there = [number for number in scores if number is not None]
        if not there:
            return list(scores)
        best = max(number.value for number in there) / temperature
        mass = math.fsum(math.exp(number.value / temperature - best) for number in there)
        log_mass = best + math.log(mass)
        error = 2 * max(number.error for number in there) / temperature
        return [
            None if number is None else Number(number.value / temperature - log_mass, error)
            for number in scores
        ]

    def _positions(self, path: PathRows) -> list[int]:
        positions = list(range(path.start, path.length + (self.end != "none")))
        if self.window == "early":
            positions = [position - 1 for position in positions]
        if self.window == "first_dropped":
            positions = positions[1:]
        if self.cut is not None:
            positions = [one for one in positions if one < path.start + self.cut]
        return positions

    def _token(self, path: PathRows, position: int) -> Number | None:
        row = path.rows.get(position + self.shift)
        if row is None:
            return None
        logprob = row.logprobs.get(-self.shift)
        if self.end == "eos" and position == path.length:
            logprob = row.eos
        if logprob is None or logprob == -math.inf:
            return None
        if self.top_k is not None:
            if not 0 < self.top_k <= min(LISTED, len(row.top)) or logprob < row.top[self.top_k - 1]:
                return None
            listed = row.top[: self.top_k]
            mass = math.log(math.fsum(math.exp(one - row.best) for one in listed)) + row.best
            return Number(logprob - mass, 2.0)
        if self.temperature is not None:
            if not row.partitions:
                return None
            scaled = (logprob - row.best) / self.temperature
            value = scaled - row.partition(self.temperature)
            return Number(value, 1.0 + 2.0 / self.temperature)
        return Number(logprob, 1.0)

    def _divide_by(self, path: PathRows, count: int) -> int:
        whole = path.length + (self.end != "none")
        return {
            "sum": 1,
            "mean": count,
            "per_byte": path.byte_count,
            "per_char": path.characters,
            "all_tokens": whole,
            "all_predicted": whole - 1,
        }[self.divisor]


def as_probability(number: Number) -> Number:
    """exp of a score."""
    if number.value > OVERFLOW:
        return Number(math.inf, math.inf)
    value = math.exp(number.value)
    return Number(value, value * number.error)
