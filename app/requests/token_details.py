"""Token ids as a response shows them: text, exact bytes, and where they stand."""

from __future__ import annotations

from collections.abc import Sequence

from app.schemas.response import TokenDetail, TopLogprob
from model_runtime import Tokenizer, TokenLogprob

Span = tuple[int | None, int | None]
"""[start, end) in bytes; (None, None) where the text has no such place."""


def token_details(
    tokenizer: Tokenizer,
    token_ids: Sequence[int],
    spans: Sequence[Span],
    logprobs: Sequence[float],
    ranks: Sequence[int],
    top: Sequence[Sequence[TokenLogprob]],
) -> list[TokenDetail]:
    """One entry for each of n tokens.

    Args:
        tokenizer: whose ids they are.
        token_ids, spans, logprobs, ranks: [n]; spans in bytes.
        top: [n][*] most probable tokens at each place; empty for none.
    """
    rows = top or [()] * len(token_ids)
    return [
        TokenDetail(
            id=token_id,
            text=tokenizer.token_text(token_id),
            bytes=list(tokenizer.token_bytes(token_id)),
            start=start,
            end=end,
            logprob=logprob,
            rank=rank,
            top_logprobs=[top_logprob(tokenizer, entry) for entry in row],
        )
        for token_id, (start, end), logprob, rank, row in zip(
            token_ids, spans, logprobs, ranks, rows, strict=True
        )
    ]


def path_bytes(tokenizer: Tokenizer, token_ids: Sequence[int]) -> bytes:
    """The bytes that the tokens stand for, one after the other."""
    return b"".join(tokenizer.token_bytes(token_id) for token_id in token_ids)


def top_logprob(tokenizer: Tokenizer, entry: TokenLogprob) -> TopLogprob:
    """One alternative."""
    return TopLogprob(id=entry.id, text=tokenizer.token_text(entry.id), logprob=entry.logprob)
