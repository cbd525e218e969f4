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

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import takewhile

from model_runtime.errors import InvalidQuery, TokenIdOutOfRange
from model_runtime.tokenizer import Tokenizer


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
        bos_added: the prefix begins with a BOS that the caller did not write.
        candidates: in the caller's order; one that cannot be scored is its error.
    """

    policy: Boundary
    prefix: tuple[int, ...]
    shift_bytes: int
    context_tokens: int
    bos_added: bool
    candidates: tuple[JoinedCandidate | InvalidQuery, ...]

    @property
    def start_token(self) -> int:
        """Position of the first scored token."""
        return len(self.prefix)


@dataclass(frozen=True, slots=True)
class _Path:
    """The whole token path of one candidate, and its own start in it."""

    tokens: tuple[int, ...]
    start: int


def join(
    tokenizer: Tokenizer,
    context: str | Sequence[int],
    candidates: Sequence[str | Sequence[int]],
    *,
    boundary: Boundary | None = None,
    add_bos: bool | None = None,
    prefix_token_id: int | None = None,
    start_token: int | None = None,
) -> Join:
    """Turn a context and its candidates into one prefix and the tokens that are scored.

    Args:
        tokenizer: the model's.
        context: text, in which control tokens stay text, or ids.
        candidates: each text or ids.
        boundary: None takes ``joint`` where everything is text, else ``separate``.
        add_bos: None follows the tokenizer's own rule for text and leaves ids as they are.
        prefix_token_id: the first token where the context is empty and ``add_bos`` is not true.
        start_token: pins the start; ``1 <= start_token <=`` every candidate's own start.

    Raises:
        InvalidQuery: context or setting at fault, named by ``param``. A candidate's fault is
            its entry in ``Join.candidates`` instead.
    """
    policy = _policy(boundary, context, candidates)
    context_ids = _context_ids(tokenizer, context)
    by_rule = tokenizer.adds_bos and (isinstance(context, str) or not context_ids)
    head, bos_added = _head(tokenizer, context_ids, add_bos, prefix_token_id, by_rule=by_rule)
    before = (*head, *context_ids)
    checked = _all_checked(tokenizer, candidates)
    if policy is Boundary.JOINT:
        paths = _paths(tokenizer, checked, before, lead=head, lead_text=str(context))
    else:
        paths = _paths(tokenizer, checked, before, lead=before, lead_text="")
    start = _start(paths, len(before), start_token)
    tail_bytes = _size(tokenizer, before[start:])
    return Join(
        policy=policy,
        prefix=before[:start],
        shift_bytes=_shift_bytes(context, tail_bytes),
        context_tokens=len(before),
        bos_added=bos_added,
        candidates=tuple(
            path if isinstance(path, InvalidQuery) else _cut(tokenizer, path, start, tail_bytes)
            for path in paths
        ),
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
    """What stands before the context, and whether that is an added BOS.

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
    if bos is not None and (add_bos or (add_bos is None and by_rule)):
        return (bos,), True
    if not context_ids:
        raise InvalidQuery(
            "an empty context needs a first token: add_bos or prefix_token_id", "context"
        )
    return (), False


def _all_checked(
    tokenizer: Tokenizer, candidates: Sequence[str | Sequence[int]]
) -> list[str | tuple[int, ...] | InvalidQuery]:
    return [
        _checked(tokenizer, candidate, f"candidates.{index}")
        for index, candidate in enumerate(candidates)
    ]


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


def _paths(
    tokenizer: Tokenizer,
    checked: Sequence[str | tuple[int, ...] | InvalidQuery],
    before: tuple[int, ...],
    *,
    lead: tuple[int, ...],
    lead_text: str,
) -> list[_Path | InvalidQuery]:
    """One path per candidate: ``lead``, then ids, or the tokens of ``lead_text`` and text."""
    texts = [lead_text + candidate for candidate in checked if isinstance(candidate, str)]
    encoded = iter(tokenizer.encode_batch(texts))
    paths: list[_Path | InvalidQuery] = []
    for index, candidate in enumerate(checked):
        if isinstance(candidate, InvalidQuery):
            paths.append(candidate)
            continue
        ids = next(encoded) if isinstance(candidate, str) else candidate
        paths.append(_path((*lead, *ids), before, f"candidates.{index}"))
    return paths


def _path(tokens: tuple[int, ...], before: tuple[int, ...], param: str) -> _Path | InvalidQuery:
    start = _common_prefix(tokens, before)
    if start == 0:
        message = (
            "the candidate merges with the whole context, so nothing stands before it; "
            "set add_bos, or use boundary separate"
        )
        return InvalidQuery(message, param)
    if start == len(tokens):
        return InvalidQuery("the candidate adds no token to the context", param)
    return _Path(tokens, start)


def _common_prefix(tokens: tuple[int, ...], before: tuple[int, ...]) -> int:
    if tokens[: len(before)] == before:
        return len(before)
    pairs = zip(tokens, before, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), len(tokens))


def _start(paths: Sequence[_Path | InvalidQuery], end: int, pinned: int | None) -> int:
    """The request's start; failed candidates do not move it."""
    least = min((path.start for path in paths if isinstance(path, _Path)), default=end)
    if pinned is None:
        return least
    if not 1 <= pinned <= least:
        raise InvalidQuery(
            f"start_token must lie between 1 and {least}, the least start of the candidates",
            "start_token",
        )
    return pinned


def _size(tokenizer: Tokenizer, tokens: Sequence[int]) -> int:
    return sum(len(tokenizer.token_bytes(token)) for token in tokens)


def _shift_bytes(context: str | Sequence[int], tail_bytes: int) -> int:
    """SentencePiece may put a space before the text, which is no byte of the context."""
    return min(tail_bytes, len(context.encode())) if isinstance(context, str) else tail_bytes


def _cut(tokenizer: Tokenizer, path: _Path, start: int, tail_bytes: int) -> JoinedCandidate:
    scored = path.tokens[start:]
    own_start = path.start - start
    offsets = tokenizer.byte_offsets(scored[own_start:], _size(tokenizer, scored[:own_start]))
    merged = takewhile(lambda span: span[0] < tail_bytes and span[1] <= tail_bytes, offsets)
    return JoinedCandidate(scored, own_start + len(list(merged)))


def _check_ids(tokenizer: Tokenizer, ids: Sequence[int], param: str) -> None:
    for token_id in ids:
        if not 0 <= token_id < tokenizer.head_rows:
            raise TokenIdOutOfRange(
                f"{token_id} is no token id; ids run from 0 to {tokenizer.head_rows - 1}", param
            )
