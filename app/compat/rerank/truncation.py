"""Documents cut to so many tokens, where the caller asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from app.requests.encoding import encode_in_chunks
from app.requests.token_details import path_bytes
from app.requests.worker_threads import check_wanted
from model_runtime import Tokenizer

Side = Literal["left", "right"]


def truncate(tokenizer: Tokenizer, texts: Sequence[str], tokens: int) -> list[str]:
    """Each text up to its first ``tokens`` tokens, where it has more of them.

    Raises:
        DeadlineExceeded: the time ran out first.
    """
    found = list(texts)
    pending = {
        index: truncations(tokenizer, texts[index], ids, tokens, "right")
        for index, ids in enumerate(encode_in_chunks(tokenizer, texts))
        if len(ids) > tokens
    }
    while pending:
        for index, cuts in pending.items():
            check_wanted()
            found[index] = next(cuts)
        # Cut inside a word, the rest of the word may take more tokens than before.
        again = encode_in_chunks(tokenizer, [found[index] for index in pending])
        tried = zip(pending.items(), again, strict=True)
        pending = {index: cuts for (index, cuts), ids in tried if len(ids) > tokens}
    return found


def truncations(
    tokenizer: Tokenizer, text: str, ids: Sequence[int], tokens: int, side: Side
) -> Iterator[str]:
    """``text`` cut to ``tokens`` of its own tokens, then to one less, and so on down to none.

    Args:
        tokenizer: whose tokens count.
        text: what is cut; half a character at the cut is left out.
        ids: the tokens of ``text``.
        tokens: so many at most; negative for no cut at all.
        side: what is cut off: the beginning or the end.
    """
    whole = text.encode()
    spelled = path_bytes(tokenizer, ids)
    # SentencePiece may put a space before the text, which is no byte of it.
    added = len(spelled) - len(whole) if spelled.endswith(whole) else 0
    for count in range(tokens, -1, -1):
        kept = ids[:count] if side == "right" else ids[len(ids) - count :]
        held = path_bytes(tokenizer, kept)
        yield (held[added:] if side == "right" else held).decode(errors="ignore")
