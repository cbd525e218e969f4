"""The token paths of candidates behind one context, from the first token that they may change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from model_runtime.errors import InvalidQuery
from model_runtime.token_paths import common_prefix
from model_runtime.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class CandidatePath:
    """The token path of one candidate, without what all candidates have in common.

    Attributes:
        tokens: behind the first ``kept`` tokens of the context.
        start: the candidate's own, counted from the first token of all.
    """

    tokens: tuple[int, ...]
    start: int


def candidate_paths(
    tokenizer: Tokenizer,
    checked: Sequence[str | tuple[int, ...] | InvalidQuery],
    suffix: str,
    before: tuple[int, ...],
    kept: int,
    check: Callable[[], None],
) -> list[CandidatePath | InvalidQuery]:
    """One path per candidate: ids, or the tokens of the suffix with the candidate behind it.

    Args:
        tokenizer: the model's.
        checked: the candidates that can be tokenized; what is wrong with the others.
        suffix: the end of the context that texts are tokenized with; empty for ``separate``.
        before: the context's own tokens, with what stands before them.
        kept: so many of them lie before the suffix.
        check: called now and then; what it raises ends the work.
    """
    texts = list(dict.fromkeys(suffix + one for one in checked if isinstance(one, str)))
    encoded = dict(zip(texts, tokenizer.encode_batch(texts, check=check), strict=True))
    tail = before[kept:]
    paths: list[CandidatePath | InvalidQuery] = []
    for index, candidate in enumerate(checked):
        if isinstance(candidate, InvalidQuery):
            paths.append(candidate)
            continue
        ids = tuple(encoded[suffix + candidate]) if isinstance(candidate, str) else candidate
        path = CandidatePath(ids, kept + common_prefix(ids, tail))
        paths.append(_refusal(path, kept, index) or path)
    return paths


def _refusal(path: CandidatePath, kept: int, index: int) -> InvalidQuery | None:
    if path.start == 0:
        message = (
            "the candidate merges with the whole context, so nothing stands before it; "
            "set add_bos, or use boundary separate"
        )
        return InvalidQuery(message, f"candidates.{index}")
    if path.start == kept + len(path.tokens):
        message = "the candidate adds no token to the context"
        return InvalidQuery(message, f"candidates.{index}")
    return None
