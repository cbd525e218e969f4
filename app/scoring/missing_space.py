"""Candidates behind which a space was forgotten: "is" and "Paris" make "isParis"."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.schemas.score_response import WARNED_CANDIDATES, ScoreWarning
from model_runtime import ChainruleError, Join, LogprobQuery, QueryResult, Tokenizer

FAR_MORE_PROBABLE = math.log(100)
"""Nats by which the first token behind a space must be ahead."""
READ_CHARACTERS = 100
"""Of a candidate: enough for its first token."""
READ_CONTEXT_CHARACTERS = 1000
"""Of the context, with each candidate."""


@dataclass(frozen=True, slots=True)
class MissingSpaces:
    """A question beside those of the candidates, about a row that they need anyway.

    Attributes:
        before: the context's own tokens.
        indices: of the candidates.
        first: their first tokens, and what those would be behind a space.
    """

    before: tuple[int, ...]
    indices: tuple[int, ...]
    first: tuple[tuple[int, int], ...]

    @property
    def query(self) -> LogprobQuery:
        """The log-probabilities of both tokens of each, in turn, behind the context."""
        targets = tuple(token for pair in self.first for token in pair)
        return LogprobQuery(self.before, len(self.before), targets)

    def warnings(self, answer: QueryResult) -> list[ScoreWarning]:
        """Of the candidates whose token behind a space is far more probable."""
        if isinstance(answer, ChainruleError):
            return []
        pairs = zip(answer.target_logprobs[::2], answer.target_logprobs[1::2], strict=True)
        return [
            _warning(index, spaced - plain)
            for index, (plain, spaced) in zip(self.indices, pairs, strict=True)
            if spaced - plain > FAR_MORE_PROBABLE
        ]


def spaceless(context: object, candidates: Sequence[object]) -> list[int]:
    """Those of the first candidates that begin with a letter, where the context ends with one."""
    if not isinstance(context, str) or not context[-1:].isalpha():
        return []
    return [
        index
        for index, one in enumerate(candidates[:WARNED_CANDIDATES])
        if isinstance(one, str) and one[:1].isalpha()
    ]


def missing_spaces(
    tokenizer: Tokenizer, joined: Join, texts: Mapping[int, str]
) -> MissingSpaces | None:
    """What to ask, of the candidates that leave the context's tokens alone both ways.

    None also where the tokenizer says nowhere that a text can be cut, so that each candidate would
    have to be read behind a long context once more.

    Args:
        tokenizer: the model's.
        joined: what the context is tokenized to.
        texts: of candidates, by their indices.
    """
    if len(joined.suffix) > READ_CONTEXT_CHARACTERS:
        return None
    beginnings = [text[:READ_CHARACTERS] for text in texts.values()]
    plain = joined.first_tokens(tokenizer, beginnings)
    spaced = joined.first_tokens(tokenizer, [f" {text}" for text in beginnings])
    first = {
        index: (one, other)
        for index, one, other in zip(texts, plain, spaced, strict=True)
        if one is not None and other is not None
    }
    return MissingSpaces(joined.context, (*first,), (*first.values(),)) if first else None


def _warning(index: int, ahead: float) -> ScoreWarning:
    param = f"candidates.{index}"
    times = float(f"{math.exp(min(ahead, 99)):.2g}")
    return ScoreWarning(
        code="missing_space",
        message=(
            f"{param} begins with a letter right behind the context's last one; behind a space "
            f"its first token would be {times:,.0f} times as probable"
        ),
        param=param,
    )
