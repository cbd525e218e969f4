"""Where the context ends and a candidate begins, when a tokenizer may merge across that end.

Candidate i has its own start k_i: so many leading tokens do the context alone and the context
with the candidate have in common. The request's start is the least of them, so that every
candidate is conditional on the same tokens::

    context        "It is"              T = It| is
    candidate 0    " yes"               T = It| is| yes          k_0 = 2
    candidate 1    "n't"                T = It| isn|'t           k_1 = 1
                                            ^
    start 1: scored are " is yes" and " isn't", shift_bytes = 3, tail_tokens = 1 and 0
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from model_runtime.errors import InvalidQuery, TokenIdOutOfRange
from model_runtime.tokenization.candidate_tokens import CandidatePath, candidate_paths
from model_runtime.tokenization.tokenizer import Tokenizer, no_check


class Boundary(StrEnum):
    """How a candidate is put behind its context."""

    JOINT = "joint"
    """One text, tokenized together."""

    SEPARATE = "separate"
    """Tokenized alone, ids concatenated; what ids always get."""


@dataclass(frozen=True, slots=True)
class JoinedCandidate:
    """One candidate behind the request's start.

    Attributes:
        token_ids: the scored tokens, from the start on; no end token among them.
        tail_tokens: how many of them lie wholly inside the end of the context.
    """

    token_ids: tuple[int, ...]
    tail_tokens: int


@dataclass(frozen=True, slots=True)
class Join:
    """A context and its candidates as token ids.

    Attributes:
        policy: the boundary that was applied.
        prefix: ids before the start, BOS included; every candidate is conditional on them.
        shift_bytes: bytes of the context that lie behind the start.
        context_tokens: tokens of the context alone, BOS included.
        bos_added: the prefix begins with a BOS that the caller did not write, or with all that
            the tokenizer's rule puts there.
        candidates: in the caller's order; one that cannot be scored is its error.
        context: [context_tokens] all ids of the context alone, BOS included.
        suffix: the end of the context that texts were tokenized with; empty for ``separate``.
    """

    policy: Boundary
    prefix: tuple[int, ...]
    shift_bytes: int
    context_tokens: int
    bos_added: bool
    candidates: tuple[JoinedCandidate | InvalidQuery, ...]
    context: tuple[int, ...]
    suffix: str

    @property
    def start_token(self) -> int:
        """Position of the first scored token."""
        return len(self.prefix)

    def first_tokens(self, tokenizer: Tokenizer, texts: Sequence[str]) -> list[int | None]:
        """The token that each text would begin with behind this context; None where the two merge.

        The context is not tokenized again.
        """
        before = len(self.context)
        kept = before - len(tokenizer.encode(self.suffix))
        paths = candidate_paths(tokenizer, texts, self.suffix, self.context, kept, no_check)
        return [
            path.tokens[before - kept]
            if isinstance(path, CandidatePath) and path.start == before
            else None
            for path in paths
        ]


def join(
    tokenizer: Tokenizer,
    context: str | Sequence[int],
    candidates: Sequence[str | Sequence[int]],
    *,
    boundary: Boundary | None = None,
    add_bos: bool | None = None,
    prefix_token_id: int | None = None,
    start_token: int | None = None,
    check: Callable[[], None] = no_check,
) -> Join:
    """Turn a context and its candidates into one prefix and the tokens that are scored.

    Args:
        tokenizer: the model's.
        context: text, in which control tokens stay text, or ids.
        candidates: each text or ids.
        boundary: None takes ``joint`` where everything is text, else ``separate``.
        add_bos: None follows the tokenizer's own rule for text, whatever it puts first, and
            leaves ids as they are. True is BOS alone.
        prefix_token_id: the first token where the context is empty and ``add_bos`` is not true.
        start_token: pins the start; ``1 <= start_token <=`` every candidate's own start.
        check: called now and then while candidates are tokenized; what it raises ends the work.

    Raises:
        InvalidQuery: context or setting at fault, named by ``param``. A candidate's fault is
            its entry in ``Join.candidates`` instead.
    """
    policy = _policy(boundary, context, candidates)
    context_ids = _context_ids(tokenizer, context)
    by_rule = isinstance(context, str) or not context_ids
    head, bos_added = _head(tokenizer, context_ids, add_bos, prefix_token_id, by_rule=by_rule)
    before = (*head, *context_ids)
    checked = _all_checked(tokenizer, candidates)
    suffix = ""
    if policy is Boundary.JOINT and candidates:
        suffix = tokenizer.unstable_suffix(str(context), context_ids)
    kept = len(before) - len(tokenizer.encode(suffix))
    paths = candidate_paths(tokenizer, checked, suffix, before, kept, check)
    start = _start(paths, len(before), start_token)
    tail_bytes = _size(tokenizer, before[start:])
    return Join(
        policy=policy,
        prefix=before[:start],
        shift_bytes=_shift_bytes(context, tail_bytes),
        context_tokens=len(before),
        bos_added=bos_added,
        candidates=tuple(_joined(tokenizer, paths, before, kept, start, tail_bytes)),
        context=before,
        suffix=suffix,
    )


def _policy(
    boundary: Boundary | None, context: str | Sequence[int], candidates: Sequence[object]
) -> Boundary:
    all_text = all(isinstance(part, str) for part in (context, *candidates))
    if boundary is Boundary.JOINT and not all_text:
        raise InvalidQuery("joint needs text; ids can only be joined as separate", "boundary")
    if boundary is None:
        return Boundary.JOINT if all_text else Boundary.SEPARATE
    return boundary


def _context_ids(tokenizer: Tokenizer, context: str | Sequence[int]) -> tuple[int, ...]:
    if isinstance(context, str):
        tokenizer.check_text(context, "context")
        return tuple(tokenizer.encode(context))
    _check_ids(tokenizer, context, "context")
    return tuple(context)


def _head(
    tokenizer: Tokenizer,
    context_ids: Sequence[int],
    add_bos: bool | None,
    prefix_token_id: int | None,
    *,
    by_rule: bool,
) -> tuple[tuple[int, ...], bool]:
    """What stands before the context, and whether that is an added BOS or the rule's own.

    Where the context is empty, what the caller says (``add_bos``, then ``prefix_token_id``)
    comes before the tokenizer's rule.
    """
    bos = tokenizer.bos_token_id
    if prefix_token_id is not None:
        _check_ids(tokenizer, [prefix_token_id], "prefix_token_id")
    if add_bos and bos is None:
        raise InvalidQuery("this model's tokenizer has no BOS to add", "add_bos")
    if not add_bos and not context_ids and prefix_token_id is not None:
        return (prefix_token_id,), False
    if bos is not None and add_bos:
        return (bos,), True
    if add_bos is None and by_rule and tokenizer.prefix_ids:
        return tokenizer.prefix_ids, True
    if not context_ids:
        raise InvalidQuery(
            f"an empty context needs a first token: {_first_token(tokenizer)}", "context"
        )
    return (), False


def _first_token(tokenizer: Tokenizer) -> str:
    """What to take for one with this model, in words."""
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    if bos is not None:
        begin = f"add_bos true puts the BOS {tokenizer.token_text(bos)!r} there"
        return f"{begin}, prefix_token_id any token (this one is {bos})"
    if eos is not None:
        end = (
            f"prefix_token_id {eos} puts {tokenizer.token_text(eos)!r} there, which ends its texts"
        )
        return f"this model has no BOS, but {end}"
    return f"this model has no BOS; any of 0 to {tokenizer.head_rows - 1} may be prefix_token_id"


def _all_checked(
    tokenizer: Tokenizer, candidates: Sequence[str | Sequence[int]]
) -> list[str | tuple[int, ...] | InvalidQuery]:
    texts = [candidate for candidate in candidates if isinstance(candidate, str)]
    if len(texts) == len(candidates) and all(texts) and _are_good(tokenizer, texts):
        return list(texts)
    return [
        _checked(tokenizer, candidate, f"candidates.{index}")
        for index, candidate in enumerate(candidates)
    ]


def _are_good(tokenizer: Tokenizer, texts: Sequence[str]) -> bool:
    try:
        tokenizer.check_text("".join(texts))
    except InvalidQuery:
        return False
    return True


def _checked(
    tokenizer: Tokenizer, candidate: str | Sequence[int], param: str
) -> str | tuple[int, ...] | InvalidQuery:
    """The candidate, or what is wrong with it."""
    try:
        if not candidate:
            raise InvalidQuery("the candidate is empty", param)
        if isinstance(candidate, str):
            tokenizer.check_text(candidate, param)
            return candidate
        _check_ids(tokenizer, candidate, param)
    except InvalidQuery as error:
        return error
    return tuple(candidate)


def _start(paths: Sequence[CandidatePath | InvalidQuery], end: int, pinned: int | None) -> int:
    """The request's start; failed candidates do not move it."""
    least = min((path.start for path in paths if isinstance(path, CandidatePath)), default=end)
    if pinned is None:
        return least
    if not 1 <= pinned <= least:
        raise InvalidQuery(
            f"must lie between 1 and {least}, the least start of the candidates",
            "start_token",
        )
    return pinned


def _size(tokenizer: Tokenizer, tokens: Sequence[int]) -> int:
    return sum(len(tokenizer.token_bytes(token)) for token in tokens)


def _shift_bytes(context: str | Sequence[int], tail_bytes: int) -> int:
    """SentencePiece may put a space before the text, which is no byte of the context."""
    return min(tail_bytes, len(context.encode())) if isinstance(context, str) else tail_bytes


def _joined(
    tokenizer: Tokenizer,
    paths: Sequence[CandidatePath | InvalidQuery],
    before: tuple[int, ...],
    kept: int,
    start: int,
    tail_bytes: int,
) -> Iterator[JoinedCandidate | InvalidQuery]:
    """The scored tokens of each candidate: from ``start`` on, wherever that lies."""
    common = before[start:kept]
    skipped = max(0, start - kept)
    for path in paths:
        if isinstance(path, InvalidQuery):
            yield path
            continue
        scored = common + path.tokens[skipped:]
        tail = _tail_tokens(tokenizer, scored, path.start - start, tail_bytes)
        yield JoinedCandidate(scored, tail)


def _tail_tokens(
    tokenizer: Tokenizer, scored: Sequence[int], own_start: int, tail_bytes: int
) -> int:
    """So many of the scored tokens lie in the last ``tail_bytes`` of the context."""
    if tail_bytes == 0:
        return own_start
    end = _size(tokenizer, scored[:own_start])
    tail = own_start
    while end < tail_bytes and tail < len(scored):
        end += len(tokenizer.token_bytes(scored[tail]))
        tail += end <= tail_bytes
    return tail


def _check_ids(tokenizer: Tokenizer, ids: Sequence[int], param: str) -> None:
    for token_id in ids:
        if not 0 <= token_id < tokenizer.head_rows:
            raise TokenIdOutOfRange(
                f"{token_id} is no token id; ids run from 0 to {tokenizer.head_rows - 1}", param
            )
