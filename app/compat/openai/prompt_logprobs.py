"""The log-probabilities of a prompt's own tokens as vLLM shows them: by token id."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

from pydantic import ConfigDict, Field

from app.schemas.bounds import MAX_TOP_LOGPROBS
from app.schemas.response import PART_CONFIG
from model_runtime import LogprobResult, Tokenizer, TokenLogprob

PromptLogprobsCount = Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)]
"""So many most probable tokens at each place of a prompt."""

LEAST: Final = -9999.0
"""What stands for minus infinity, which JSON does not have; vLLM sends the same number."""


# A dataclass for the reason that ``TopLogprob`` is one.
@dataclass(slots=True, kw_only=True)
class PromptLogprob:
    """One token at one place of a prompt."""

    __pydantic_config__: ClassVar[ConfigDict] = PART_CONFIG

    logprob: float
    """Natural log; -9999 where the probability is 0."""
    rank: int
    """1 + the number of tokens of the whole vocabulary that are strictly more probable here."""
    decoded_token: str
    """The token's text; a token may hold a part of a character (U+FFFD)."""


PromptLogprobs = list[dict[str, PromptLogprob] | None]
"""[tokens of the prompt] by token id: the prompt's own token first, then the most probable ones.
Null for the first token, which nothing comes before."""


def prompt_logprobs(
    tokenizer: Tokenizer, token_ids: Sequence[int], answer: LogprobResult, count: int
) -> PromptLogprobs:
    """One entry for each token of a prompt.

    Args:
        tokenizer: the model's.
        token_ids: [n] the prompt's, at least one.
        answer: of the rows 1 .. n - 1 at least, with ``count`` most probable tokens or more at
            each; any answer for a prompt of one token.
        count: most probable tokens to list at each place, beside the prompt's own.
    """
    own = len(token_ids) - 1
    rows = answer.top[:own] if count else ((),) * own
    actual = zip(token_ids[1:], answer.logprobs[:own], answer.ranks[:own], rows, strict=True)
    return [
        None,
        *(
            _place(tokenizer, token_id, logprob, rank, row[:count])
            for token_id, logprob, rank, row in actual
        ),
    ]


def _place(
    tokenizer: Tokenizer, token_id: int, logprob: float, rank: int, row: Sequence[TokenLogprob]
) -> dict[str, PromptLogprob]:
    place = {str(token_id): _entry(tokenizer, token_id, logprob, rank)}
    before, best = math.inf, 0
    for position, (other, value) in enumerate(row, start=1):
        # Of equally probable tokens each has the rank of the first.
        best = position if value < before else best
        before = value
        if other != token_id:
            place[str(other)] = _entry(tokenizer, other, value, best)
    return place


def _entry(tokenizer: Tokenizer, token_id: int, logprob: float, rank: int) -> PromptLogprob:
    return PromptLogprob(
        logprob=LEAST if logprob == -math.inf else logprob,
        rank=rank,
        decoded_token=tokenizer.token_text(token_id),
    )
