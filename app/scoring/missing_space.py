"""Candidates behind which a space was forgotten: "is" and "Paris" make "isParis"."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from unicodedata import east_asian_width

from app.schemas.score_response import WARNED_CANDIDATES, ScoreWarning
from model_runtime import ChainruleError, Join, LogprobQuery, QueryResult, Tokenizer

FAR_MORE_PROBABLE = math.log(100)
"""Nats by which the first token behind a space must be ahead."""
_SPACELESS_SCRIPTS = (
    ("\u0e00", "\u0eff"),  # Thai and Lao
    ("\u0f00", "\u0fff"),  # Tibetan
    ("\u1000", "\u109f"),  # Myanmar
    ("\u1780", "\u17ff"),  # Khmer
)
READ_CHARACTERS = 100
"""Of a candidate: enough for its first token."""
READ_CONTEXT_CHARACTERS = 1000
"""Of the context, with each candidate."""


@dataclass(frozen=True, slots=True)
class MissingSpaces:
    """Questions beside those of the candidates, about a row that they need anyway.

    Attributes:
        before: the context's own tokens.
        first: by the candidate's index, its first token, and what that would be behind a space.
    """

    before: tuple[int, ...]
    first: Mapping[int, tuple[int, int]]

    @property
    def queries(self) -> tuple[LogprobQuery, ...]:
        """The log-probabilities of both tokens of each, behind the context.

        One a candidate, so that each is found again whatever it is asked with.
        """
        before = self.before
        return tuple(LogprobQuery(before, len(before), pair) for pair in self.first.values())

    def warnings(self, answers: Sequence[QueryResult]) -> list[ScoreWarning]:
        """Of the candidates whose token behind a space is far more probable."""
        found = []
        for index, answer in zip(self.first, answers, strict=True):
            if isinstance(answer, ChainruleError):
                continue
            plain, spaced = answer.target_logprobs
            if spaced - plain > FAR_MORE_PROBABLE:
                found.append(_warning(index, spaced - plain))
        return found


def spaceless(context: object, candidates: Sequence[object]) -> list[int]:
    """Those of the first candidates that begin with a letter, where the context ends with one.

    Of scripts that put spaces between words.
    """
    if not isinstance(context, str) or not _is_spaced_letter(context[-1:]):
        return []
    return [
        index
        for index, one in enumerate(candidates[:WARNED_CANDIDATES])
        if isinstance(one, str) and _is_spaced_letter(one[:1])
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
        # A space that is a token of its own says nothing of the word behind it.
        if one is not None and other is not None and tokenizer.token_bytes(other).strip()
    }
    return MissingSpaces(joined.context, first) if first else None


def _is_spaced_letter(sign: str) -> bool:
    if not sign.isalpha() or east_asian_width(sign) in ("W", "F"):
        return False
    return not any(first <= sign <= last for first, last in _SPACELESS_SCRIPTS)


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
