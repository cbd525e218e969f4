"""POST /v1/score with boundary ``marginal``, first half: candidates to a search over bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.requests.item_errors import raise_if_failed, with_candidate_index
from app.requests.limits import check_context, check_prefixes, check_report
from app.requests.prompt import parse_prompt
from app.requests.token_details import path_bytes
from app.requests.worker_threads import check_wanted
from app.schemas.bounds import DEFAULT_MARGINAL_EXPANSIONS, MAX_MARGINAL_PATHS
from app.schemas.score import ScoreRequest
from app.schemas.score_response import BoundaryReport
from model_runtime import (
    ChainruleError,
    InvalidQuery,
    Join,
    MarginalCandidate,
    MarginalSearch,
    ModelInfo,
    PathTooLong,
    TokenIdOutOfRange,
    Tokenizer,
    VocabularyTrie,
    join,
    vocabulary_trie,
)


@dataclass(frozen=True, slots=True)
class MarginalPlanned:
    """A candidate that can be scored.

    Attributes:
        searched: its bytes as the tokenizer normalizes them, and the tokens that are tried first.
        size: bytes of the candidate as it was given, in UTF-8.
        normalized: its text, where the tokenizer's normalizer changed that.
    """

    searched: MarginalCandidate
    size: int
    normalized: str | None = None


PlannedText = MarginalPlanned | ChainruleError
"""What is searched for, or why it cannot be."""


@dataclass(frozen=True, slots=True)
class MarginalPlan:
    """A request as a search.

    Attributes:
        request: what was asked.
        boundary: what the response says of the join.
        candidates: in the request's order; one that cannot be scored is its error.
        search: over those that can be, in order.
    """

    request: ScoreRequest
    boundary: BoundaryReport
    candidates: tuple[PlannedText, ...]
    search: MarginalSearch

    @property
    def scorable(self) -> tuple[MarginalPlanned, ...]:
        """The candidates that are searched for."""
        return tuple(c for c in self.candidates if isinstance(c, MarginalPlanned))


def plan_marginal(tokenizer: Tokenizer, info: ModelInfo, request: ScoreRequest) -> MarginalPlan:
    """Read the candidates as bytes behind the context's own tokens.

    Raises:
        InvalidQuery: a setting or the context is at fault, no candidate can be scored, or one
            cannot and the request is all or nothing.
    """
    _refuse_settings(request)
    check_report(request)
    if request.append_eos and not info.end_token_ids:
        raise InvalidQuery("this model has no end token", "append_eos")
    budget = request.max_expansions or DEFAULT_MARGINAL_EXPANSIONS
    _check_budget(len(request.candidates), budget)
    joined = _context(tokenizer, info, request)
    trie = vocabulary_trie(tokenizer, frozenset(info.end_token_ids))
    room = info.max_model_len - len(joined.prefix)
    reader = _Reader(tokenizer, trie, room, budget, ended=request.append_eos)
    candidates = tuple(reader.read(request.candidates))
    raise_if_failed(candidates, request.all_or_nothing)
    if not request.append_eos:
        check_prefixes([_text(one) for one in candidates])
    search = MarginalSearch(
        joined.prefix,
        [one.searched for one in candidates if isinstance(one, MarginalPlanned)],
        trie,
        max_expansions=budget,
        max_model_len=info.max_model_len,
        ends=info.end_token_ids if request.append_eos else None,
    )
    return MarginalPlan(request, _report(joined), candidates, search)


def _text(candidate: PlannedText) -> bytes | None:
    return candidate.searched.content if isinstance(candidate, MarginalPlanned) else None


def _refuse_settings(request: ScoreRequest) -> None:
    """A sum over many tokenizations has no tokens of its own and no one length."""
    unfit = {
        "normalization": request.normalization != "sum",
        "start_token": request.start_token is not None,
        "top_n": request.top_n is not None,
        "compact": request.compact,
        "token_logprobs": request.token_logprobs,
        "top_logprobs": request.top_logprobs > 0,
        "receipt": request.receipt,
    }
    for param, given in unfit.items():
        if given:
            raise InvalidQuery(
                "boundary marginal is summed over many tokenizations and has none", param
            )


def _check_budget(candidates: int, budget: int) -> None:
    if candidates * budget > MAX_MARGINAL_PATHS:
        raise InvalidQuery(
            f"{candidates} candidates x {budget} token paths exceed "
            f"{MAX_MARGINAL_PATHS} in all; send fewer candidates, or less to spend on each",
            "max_expansions",
        )


def _context(tokenizer: Tokenizer, info: ModelInfo, request: ScoreRequest) -> Join:
    """The context with no candidate behind it: its own tokens, BOS by rule."""
    prompt = parse_prompt(tokenizer, info, request)
    joined = join(
        tokenizer,
        prompt.content,
        (),
        add_bos=prompt.add_bos,
        prefix_token_id=prompt.prefix_token_id,
    )
    check_context(len(joined.prefix), info, room=1)
    return joined


def _report(joined: Join) -> BoundaryReport:
    return BoundaryReport(
        policy="marginal",
        start_token=len(joined.prefix),
        shift_bytes=0,
        context_tokens=joined.context_tokens,
        bos_added=joined.bos_added,
    )


class _Reader:
    """Candidates of one request as bytes, with tokens that are tried first.

    Args:
        tokenizer: whose tokens they are.
        trie: the tokens that are text.
        room: tokens that the model takes behind the context.
        budget: token paths asked about for each candidate.
        ended: an end follows each candidate.
    """

    def __init__(
        self, tokenizer: Tokenizer, trie: VocabularyTrie, room: int, budget: int, *, ended: bool
    ) -> None:
        self._tokenizer = tokenizer
        self._trie = trie
        self._room = room
        self._budget = budget
        self._ended = ended

    def read(self, candidates: Sequence[str | list[int]]) -> Iterator[PlannedText]:
        """Each candidate, or what is wrong with it."""
        checked = [self._checked(candidate) for candidate in candidates]
        texts = [candidate for candidate in checked if isinstance(candidate, str)]
        encoded = iter(self._tokenizer.encode_batch(texts, check=check_wanted))
        for index, candidate in enumerate(checked):
            check_wanted()
            if isinstance(candidate, InvalidQuery):
                yield with_candidate_index(candidate, index)
                continue
            if isinstance(candidate, str):
                text = self._read_text(candidate, tuple(next(encoded)))
            else:
                text = self._read_ids(candidate)
            error = self._unfit(text.searched)
            yield text if error is None else with_candidate_index(error, index)

    def _checked(self, candidate: str | list[int]) -> str | tuple[int, ...] | InvalidQuery:
        if not candidate:
            return InvalidQuery("the candidate is empty")
        if isinstance(candidate, str):
            try:
                self._tokenizer.check_text(candidate)
            except InvalidQuery as error:
                return error
            return candidate
        for token_id in candidate:
            if not 0 <= token_id < self._tokenizer.head_rows:
                last = self._tokenizer.head_rows - 1
                return TokenIdOutOfRange(f"{token_id} is no token id; ids run from 0 to {last}")
            if not self._trie.is_text(token_id):
                return InvalidQuery(f"token {token_id} stands for no text")
        return tuple(candidate)

    def _read_text(self, text: str, ids: tuple[int, ...]) -> MarginalPlanned:
        normalized = self._tokenizer.normalize(text)
        content = normalized.encode()
        # A tokenizer that puts a space first spells other bytes.
        spells = path_bytes(self._tokenizer, ids) == content and all(map(self._trie.is_text, ids))
        own = ids if spells else self._trie.spell(content)
        return MarginalPlanned(
            MarginalCandidate(content, own),
            len(text.encode()),
            None if normalized == text else normalized,
        )

    def _read_ids(self, ids: tuple[int, ...]) -> MarginalPlanned:
        content = path_bytes(self._tokenizer, ids)
        return MarginalPlanned(MarginalCandidate(content, ids), len(content))

    def _unfit(self, candidate: MarginalCandidate) -> InvalidQuery | None:
        """What keeps even the tokens that are tried first from being asked about."""
        if not candidate.content:
            return InvalidQuery("the tokenizer's normalizer leaves nothing of the candidate")
        tokens = len(candidate.preferred) + self._ended
        if tokens > self._room:
            return PathTooLong(
                f"{tokens} tokens are too many behind this context; the model takes {self._room}"
            )
        if tokens > self._budget:
            return InvalidQuery(
                f"its {tokens} tokens alone need max_expansions of {tokens}, not {self._budget}"
            )
        return None
