"""Documents cut to so many tokens, where the caller asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from app.token_details import path_bytes
from model_runtime import Tokenizer

Side = Literal["left", "right"]


def shortened(tokenizer: Tokenizer, text: str, tokens: int) -> str:
    """``text`` up to its first ``tokens`` tokens, where it has more of them."""
    ids = tokenizer.encode(text)
    if len(ids) <= tokens:
        return text
    cuts = cuts_of(tokenizer, text, tokens, "right")
    # Cut inside a word, the rest of the word may take more tokens than before.
    return next(cut for cut in cuts if len(tokenizer.encode(cut)) <= tokens)


def cuts_of(tokenizer: Tokenizer, text: str, tokens: int, side: Side) -> Iterator[str]:
    """``text`` cut to ``tokens`` of its own tokens, then to one less, and so on down to none.

    Args:
        tokenizer: whose tokens count.
        text: what is cut; half a character at the cut is left out.
        tokens: so many at most; negative for no cut at all.
        side: what is cut off: the beginning or the end.
    """
    ids = tokenizer.encode(text)
    whole = text.encode()
    spelled = path_bytes(tokenizer, ids)
    # SentencePiece may put a space before the text, which is no byte of it.
    added = len(spelled) - len(whole) if spelled.endswith(whole) else 0
    for count in range(tokens, -1, -1):
        kept = ids[:count] if side == "right" else ids[len(ids) - count :]
        held = path_bytes(tokenizer, kept)
        yield (held[added:] if side == "right" else held).decode(errors="ignore")
