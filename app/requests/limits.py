"""What the served model and the operator allow. The schemas bound the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.requests.deadline import Deadline
from app.schemas.bounds import (
    MAX_BODY_BYTES,
    MAX_CANDIDATES,
    MAX_JOINED_CHARS,
    MAX_PATH_TOKENS,
    MAX_PREFIX_PAIRS,
    MAX_RESULTS,
    MAX_SCORED_TOKENS,
    MAX_TOKEN_ENTRIES,
    MAX_TOP_ENTRIES,
    MAX_TOP_LOGPROBS,
)
from app.schemas.request import LogprobsRequest, ServingOptions
from app.schemas.score import ScoreRequest
from model_runtime import (
    InvalidQuery,
    ModelInfo,
    PathTooLong,
    TokenIdOutOfRange,
    Tokenizer,
    prefix_pairs,
)


@dataclass(frozen=True, slots=True)
class Limits:
    """The operator's own bounds.

    Attributes:
        max_candidates: in one request.
        max_top_logprobs: most probable tokens listed at one position.
        max_body_bytes: of a request; kept by ``BodyLimit`` and only reported here.
        default_timeout_ms: for requests that name no ``timeout_ms``; None for no limit.
    """

    max_candidates: int = MAX_CANDIDATES
    max_top_logprobs: int = MAX_TOP_LOGPROBS
    max_body_bytes: int = MAX_BODY_BYTES
    default_timeout_ms: int | None = None

    def deadline(self, request: ServingOptions, arrived: float | None = None) -> Deadline:
        """When the request's time is over, by its own ``timeout_ms`` where it names one; counted
        from ``arrived``, in seconds of ``time.monotonic``, or from now."""
        return Deadline.after(request.timeout_ms or self.default_timeout_ms, arrived)

    def check(self, request: ServingOptions) -> None:
        """Raise ``InvalidQuery``, naming the field, for a request beyond these bounds."""
        candidates = getattr(request, "candidates", None) or ()
        _check_count("candidates", len(candidates), self.max_candidates)
        for param in ("top_logprobs", "top_k"):
            _check_count(param, getattr(request, param, None) or 0, self.max_top_logprobs)


def check_ids(param: str, token_ids: Sequence[int], info: ModelInfo) -> None:
    """Raise ``TokenIdOutOfRange``, naming the entry, for an id that the model does not have."""
    for index, token_id in enumerate(token_ids):
        if not 0 <= token_id < info.vocab_size:
            place = f"{param}.{index}"
            raise TokenIdOutOfRange(
                f"{token_id} is no token id; ids run from 0 to {info.vocab_size - 1}",
                place,
            )


def check_context(prefix_tokens: int, info: ModelInfo, *, room: int) -> None:
    """Raise ``PathTooLong`` where the context leaves no room for ``room`` more tokens."""
    limit = info.max_model_len - room
    if prefix_tokens > limit:
        raise PathTooLong(
            f"{prefix_tokens} tokens are too many; here the model takes {limit}",
            param="context",
        )


def check_entries(positions: int, request: LogprobsRequest) -> None:
    """Raise ``InvalidQuery`` where a response would list too many tokens, or rivals of them."""
    if not request.lists_tokens:
        return
    param = "token_logprobs" if request.token_logprobs else "top_logprobs"
    if positions > MAX_TOKEN_ENTRIES:
        raise InvalidQuery(
            f"{positions} tokens are too many to list; a response may list {MAX_TOKEN_ENTRIES}",
            param,
        )
    if positions * request.top_logprobs > MAX_TOP_ENTRIES:
        raise InvalidQuery(
            f"{positions} positions x {request.top_logprobs} are too many to list; "
            f"a response may list {MAX_TOP_ENTRIES}",
            "top_logprobs",
        )


def _check_receipt(entries: int) -> None:
    """Raise ``InvalidQuery`` where a receipt would list too many log-probabilities."""
    if entries > MAX_TOKEN_ENTRIES:
        raise InvalidQuery(
            f"{entries} log-probabilities are too many to list; a response may list "
            f"{MAX_TOKEN_ENTRIES}",
            "receipt",
        )


def check_unread(tokenizer: Tokenizer, request: ScoreRequest) -> None:
    """Raise ``InvalidQuery`` for a request that is too large, whatever its tokens are."""
    check_report(request)
    if request.boundary not in ("separate", "marginal"):
        check_joined_chars(tokenizer, request.context, request.candidates)


def check_report(request: ScoreRequest) -> None:
    """Raise ``InvalidQuery`` where a response would report too many candidates in full."""
    count = len(request.candidates)
    if request.compact and request.lists_tokens:
        raise InvalidQuery("columns have no place for tokens", "compact")
    if count > MAX_RESULTS and not request.compact:
        raise InvalidQuery(
            f"{count} are too many to report in full, {MAX_RESULTS} at most; set compact",
            "candidates",
        )


def check_scored(request: ScoreRequest, tokens: int) -> None:
    """Raise ``InvalidQuery`` where the scored tokens of all candidates are too many to hold."""
    if tokens > MAX_SCORED_TOKENS:
        param = "candidates" if request.start_token is None else "start_token"
        raise InvalidQuery(
            f"{tokens} tokens of {len(request.candidates)} candidates are too many to "
            f"score; a request may have {MAX_SCORED_TOKENS}",
            param,
        )


@dataclass(frozen=True, slots=True)
class ScoreSize:
    """What the candidates of one request come to.

    Attributes:
        scored_tokens: of all candidates together, appended ends included.
        path_tokens: of all token paths that are asked about, contexts included.
        open_paths: tokens of the candidates that may begin one another, None for one that cannot;
            none where the answer does not say which do.
        receipt_entries: log-probabilities of a receipt; 0 where none was asked for.
    """

    scored_tokens: int
    path_tokens: int
    open_paths: Sequence[Sequence[int] | None]
    receipt_entries: int = 0

    def check(self, request: ScoreRequest) -> None:
        """Raise ``InvalidQuery`` for what is too much to hold, to compute or to answer."""
        check_scored(request, self.scored_tokens)
        check_entries(self.scored_tokens, request)
        _check_receipt(self.receipt_entries)
        check_prefixes(self.open_paths)
        if self.path_tokens > MAX_PATH_TOKENS:
            raise InvalidQuery(
                f"with their contexts they are {self.path_tokens} tokens; a request may have "
                f"{MAX_PATH_TOKENS}; send fewer at a time with start_token pinned, or set top_n",
                "candidates",
            )


def check_prefixes(paths: Sequence[Sequence[int] | None]) -> None:
    """Raise ``InvalidQuery`` where candidates that begin one another are too many to list."""
    pairs = prefix_pairs(paths)
    if pairs > MAX_PREFIX_PAIRS:
        raise InvalidQuery(
            f"{pairs} pairs of them begin one another; a response may list "
            f"{MAX_PREFIX_PAIRS}; set compact, or send fewer",
            "candidates",
        )


def check_joined_chars(tokenizer: Tokenizer, context: object, candidates: Sequence[object]) -> None:
    """Raise ``InvalidQuery`` for what would keep a tokenizing thread busy for too long.

    ``joint`` tokenizes the end of the context again for each candidate, from the last place on
    behind which no candidate changes a token: all of it where the tokenizer knows of none.
    """
    if not isinstance(context, str) or not all(isinstance(one, str) for one in candidates):
        return
    repeated = context
    if len(context) * len(candidates) > MAX_JOINED_CHARS:
        tokenizer.check_text(context, "context")
        repeated = tokenizer.unstable_suffix(context, tokenizer.encode(context))
    joined = len(repeated) * len(candidates)
    if joined > MAX_JOINED_CHARS:
        raise InvalidQuery(
            f"{len(candidates)} of them, each tokenized behind {len(repeated)} "
            f"characters of the context, exceed {MAX_JOINED_CHARS} characters in all; send fewer "
            "at a time (to /v1/score with start_token pinned), or token ids",
            "candidates",
        )


def _check_count(param: str, count: int, limit: int) -> None:
    if count > limit:
        raise InvalidQuery(f"{count} is more than this server allows, {limit}", param)
