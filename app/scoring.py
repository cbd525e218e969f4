"""POST /v1/score, first half: candidates to queries. ``candidate_scores`` reads the answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.limits import check_context, check_top_entries
from app.prompt import Prompt, read_prompt
from app.schemas.score import BoundaryReport, ScoreRequest
from app.token_details import path_bytes
from model_runtime import (
    Boundary,
    ChainruleError,
    InvalidQuery,
    Join,
    JoinedCandidate,
    LogprobQuery,
    ModelInfo,
    Tokenizer,
    join,
)

Check = Callable[[LogprobQuery], InvalidQuery | None]


@dataclass(frozen=True, slots=True)
class PlannedCandidate:
    """A candidate that can be scored.

    Attributes:
        query: what is asked about it; the scored tokens begin at ``score_from``.
        tail_tokens: how many of them lie wholly inside the context's end.
        content: the bytes of the candidate alone.
        characters: Unicode code points of the candidate alone.
    """

    query: LogprobQuery
    tail_tokens: int
    content: bytes
    characters: int

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The scored tokens, without an appended end."""
        return self.query.tokens[self.query.score_from :]


@dataclass(frozen=True, slots=True)
class ScorePlan:
    """A request in token ids.

    Attributes:
        request: what was asked.
        prompt: its context.
        joined: where context and candidates meet.
        candidates: in the request's order; one that cannot be scored is its error.
    """

    request: ScoreRequest
    prompt: Prompt
    joined: Join
    candidates: tuple[PlannedCandidate | ChainruleError, ...]

    @property
    def queries(self) -> tuple[LogprobQuery, ...]:
        """One for each candidate that can be scored, in order."""
        return tuple(c.query for c in self.candidates if isinstance(c, PlannedCandidate))

    @property
    def boundary(self) -> BoundaryReport:
        """What the response says of the join."""
        return BoundaryReport(
            policy=self.joined.policy.value,
            start_token=self.joined.start_token,
            shift_bytes=self.joined.shift_bytes,
            context_tokens=self.joined.context_tokens,
            bos_added=self.joined.bos_added,
        )


def plan_score(
    tokenizer: Tokenizer, info: ModelInfo, check: Check, request: ScoreRequest
) -> ScorePlan:
    """Tokenize and join; ``check`` says what the engine would refuse.

    Raises:
        InvalidQuery: a setting or the context is at fault, no candidate can be scored, or one
            cannot and the request is all or nothing.
    """
    targets = _end_ids(info) if request.append_eos else None
    prompt = read_prompt(tokenizer, info, request)
    joined = join(
        tokenizer,
        prompt.content,
        request.candidates,
        boundary=None if request.boundary is None else Boundary(request.boundary),
        add_bos=prompt.add_bos,
        prefix_token_id=prompt.prefix_token_id,
        start_token=request.start_token,
    )
    check_context(len(joined.prefix), info, room=1)
    candidates = tuple(
        _plan_candidate(tokenizer, check, request, joined, index, targets)
        for index in range(len(request.candidates))
    )
    refuse_failures(candidates, request.all_or_nothing)
    plan = ScorePlan(request, prompt, joined, candidates)
    _check_top_entries(request, plan.queries)
    return plan


def refuse_failures(items: Sequence[object], all_or_nothing: bool) -> None:
    """Raise the first error among ``items`` if one is too many, or if there is nothing else."""
    failures = [item for item in items if isinstance(item, ChainruleError)]
    if failures and (all_or_nothing or len(failures) == len(items)):
        raise failures[0]


def located(error: ChainruleError, index: int) -> ChainruleError:
    """The error, naming candidate ``index`` where the candidate is what is wrong."""
    if not isinstance(error, InvalidQuery):
        return error
    param = f"candidates.{index}"
    return type(error)(f"{param}: {error}", param=param)


def _end_ids(info: ModelInfo) -> tuple[int, ...]:
    if not info.end_token_ids:
        raise InvalidQuery("append_eos: this model has no end token", param="append_eos")
    return info.end_token_ids


def _plan_candidate(
    tokenizer: Tokenizer,
    check: Check,
    request: ScoreRequest,
    joined: Join,
    index: int,
    targets: tuple[int, ...] | None,
) -> PlannedCandidate | ChainruleError:
    candidate = joined.candidates[index]
    if isinstance(candidate, ChainruleError):
        return located(candidate, index)
    planned = _planned(tokenizer, request, joined, index, candidate, targets)
    error = check(planned.query) or _undivided(request, planned)
    return planned if error is None else located(error, index)


def _planned(
    tokenizer: Tokenizer,
    request: ScoreRequest,
    joined: Join,
    index: int,
    candidate: JoinedCandidate,
    targets: tuple[int, ...] | None,
) -> PlannedCandidate:
    query = LogprobQuery(
        tokens=joined.prefix + candidate.token_ids,
        score_from=len(joined.prefix),
        targets=targets,
        top_k=min(request.top_logprobs, tokenizer.head_rows),
    )
    given = request.candidates[index]
    if isinstance(given, str):
        return PlannedCandidate(query, candidate.tail_tokens, given.encode(), len(given))
    content = path_bytes(tokenizer, given)
    return PlannedCandidate(query, candidate.tail_tokens, content, len(tokenizer.decode(given)))


def _undivided(request: ScoreRequest, planned: PlannedCandidate) -> InvalidQuery | None:
    if request.normalization in ("per_char", "per_byte") and not planned.content:
        return InvalidQuery(f"stands for no text, so it has no {request.normalization} score")
    return None


def _check_top_entries(request: ScoreRequest, queries: Sequence[LogprobQuery]) -> None:
    rows = sum(query.last_row + 1 - query.score_from for query in queries)
    check_top_entries(rows, request.top_logprobs)
