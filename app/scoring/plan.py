"""POST /v1/score, first half: candidates to queries. ``response`` reads the answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.requests.item_errors import raise_if_failed, with_candidate_index
from app.requests.limits import ScoreSize, check_context, check_scored, check_unread
from app.requests.prompt import Prompt, parse_prompt
from app.requests.token_details import path_bytes
from app.requests.worker_threads import check_wanted
from app.schemas.score import ScoreRequest
from app.schemas.score_response import BoundaryReport
from app.scoring.baseline import Baseline, read_baseline
from app.scoring.missing_space import MissingSpaces, missing_spaces, spaceless
from model_runtime import (
    GNMT_ALPHA,
    Boundary,
    ChainruleError,
    InvalidQuery,
    Join,
    JoinedCandidate,
    LogprobQuery,
    ModelInfo,
    Normalization,
    Size,
    Tokenizer,
    join,
)

Check = Callable[[LogprobQuery], InvalidQuery | None]


@dataclass(frozen=True, slots=True)
class QueryTemplate:
    """What is asked about every candidate of a request.

    Attributes:
        prefix: the token path that all are conditional on.
        end_ids: ids one of which ends each of them; None where no end is scored.
        top_k: most probable tokens listed at each scored position.
        baseline: the contexts that scores are compared with.
    """

    prefix: tuple[int, ...]
    end_ids: tuple[int, ...] | None
    top_k: int
    baseline: Baseline


@dataclass(frozen=True, slots=True)
class PlannedCandidate:
    """A candidate that can be scored.

    Attributes:
        asked: what is asked about it, as about all the others.
        token_ids: the scored tokens, without an appended end.
        tail_tokens: how many of them lie wholly inside the context's end.
        content: the bytes of the candidate alone.
        characters: Unicode code points of the candidate alone.
    """

    asked: QueryTemplate
    token_ids: tuple[int, ...]
    tail_tokens: int
    content: bytes
    characters: int

    # Made when they are wanted: a hundred thousand candidates share one long context.

    @property
    def query(self) -> LogprobQuery:
        """The candidate behind the context."""
        prefix, asked = self.asked.prefix, self.asked
        return LogprobQuery(prefix + self.token_ids, len(prefix), asked.end_ids, asked.top_k)

    @property
    def queries(self) -> tuple[LogprobQuery, ...]:
        """All that is asked about it: behind the context, and behind each of the baseline's."""
        query = self.query
        return (query, *self.asked.baseline.queries(query))

    @property
    def size(self) -> Size:
        """What its score may be divided by."""
        tokens = len(self.token_ids) + (self.asked.end_ids is not None)
        return Size(tokens, self.characters, len(self.content))


Planned = PlannedCandidate | ChainruleError
"""What is asked about a candidate, or why it cannot be scored."""


@dataclass(frozen=True, slots=True)
class ScorePlan:
    """A request in token ids.

    Attributes:
        request: what was asked.
        prompt: its context.
        joined: where context and candidates meet.
        baseline: the contexts that scores are compared with.
        candidates: in the request's order; one that cannot be scored is its error.
        spaces: what else is asked, where a space may be missing.
    """

    request: ScoreRequest
    prompt: Prompt
    joined: Join
    baseline: Baseline
    candidates: tuple[Planned, ...]
    spaces: MissingSpaces | None = None

    @property
    def queries(self) -> tuple[LogprobQuery, ...]:
        """Those of each candidate that can be scored, in order, and behind them those beside."""
        queries = tuple(query for candidate in self.scorable for query in candidate.queries)
        return queries if self.spaces is None else (*queries, *self.spaces.queries)

    @property
    def queries_beside(self) -> int:
        """How many of the queries, the last ones, are no candidate's."""
        return 0 if self.spaces is None else len(self.spaces.first)

    @property
    def scorable(self) -> tuple[PlannedCandidate, ...]:
        """The candidates that can be scored."""
        return tuple(c for c in self.candidates if isinstance(c, PlannedCandidate))

    @property
    def size(self) -> ScoreSize:
        """How much work and how large an answer it makes."""
        scorable = self.scorable
        scored = sum(candidate.size.tokens for candidate in scorable)
        normalization = Normalization(self.request.normalization)
        all_paths = self.request.top_n is None or normalization.has_baseline
        contexts = (self.joined.prefix, *self.baseline.prefixes) if all_paths else ()
        return ScoreSize(
            scored_tokens=scored,
            path_tokens=sum(len(prefix) * len(scorable) + scored for prefix in contexts),
            open_paths=() if self.request.compact else self.open_paths,
            receipt_entries=scored * (1 + len(self.baseline.prefixes))
            if self.request.receipt
            else 0,
        )

    @property
    def open_paths(self) -> list[tuple[int, ...] | None]:
        """The paths of the candidates that may begin others: with an end behind it none does."""
        return [
            one.token_ids
            if isinstance(one, PlannedCandidate) and not self.request.append_eos
            else None
            for one in self.candidates
        ]

    @property
    def alpha(self) -> float:
        """The exponent of ``gnmt``."""
        asked = self.request.gnmt_alpha
        return GNMT_ALPHA if asked is None else asked

    @property
    def boundary(self) -> BoundaryReport:
        """What the response says of the join."""
        return BoundaryReport.model_validate(self.joined, from_attributes=True)


def plan_score(
    tokenizer: Tokenizer, info: ModelInfo, check: Check, request: ScoreRequest
) -> ScorePlan:
    """The request in token ids, within all bounds; its queries are made when they are wanted.

    Args:
        tokenizer: the model's.
        info: what is served.
        check: what the engine would refuse a query with.
        request: what was asked.

    Raises:
        InvalidQuery: a setting or the context is at fault, no candidate can be scored, or one
            cannot and the request is all or nothing.
    """
    check_unread(tokenizer, request)
    plan = _parse(tokenizer, info, check, request)
    plan.size.check(request)
    return plan


def _parse(tokenizer: Tokenizer, info: ModelInfo, check: Check, request: ScoreRequest) -> ScorePlan:
    """Tokenize the contexts and candidates, and join them where they meet."""
    targets = _end_ids(info) if request.append_eos else None
    prompt = parse_prompt(tokenizer, info, request)
    baseline = read_baseline(tokenizer, info, request)
    planner = CandidatePlanner(tokenizer, check, request, prompt, baseline, targets)
    wanted = None if request.boundary is None else Boundary(request.boundary)
    joined = planner.join(range(len(request.candidates)), wanted, start_token=None)
    check_context(len(joined.prefix), info, room=1)
    candidates = planner.plan(range(len(request.candidates)), joined)
    raise_if_failed(candidates, request.all_or_nothing)
    if request.start_token is not None or _failed_after_joining(joined, candidates):
        joined, candidates = planner.replan(candidates, joined)
    spaces = None if request.top_n is not None else planner.missing_spaces(candidates, joined)
    return ScorePlan(request, prompt, joined, baseline, tuple(candidates), spaces)


def _end_ids(info: ModelInfo) -> tuple[int, ...]:
    if not info.end_token_ids:
        raise InvalidQuery("this model has no end token", param="append_eos")
    return info.end_token_ids


def _failed_after_joining(joined: Join, candidates: Sequence[Planned]) -> bool:
    """Whether a candidate that cannot be scored had a say in where the others start."""
    return any(
        isinstance(one, JoinedCandidate) and isinstance(planned, ChainruleError)
        for one, planned in zip(joined.candidates, candidates, strict=True)
    )


class CandidatePlanner:
    """Joins and plans the candidates of one request, all or some of them, by index."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        check: Check,
        request: ScoreRequest,
        prompt: Prompt,
        baseline: Baseline,
        targets: tuple[int, ...] | None,
    ) -> None:
        self._tokenizer = tokenizer
        self._check = check
        self._request = request
        self._prompt = prompt
        self._baseline = baseline
        self._targets = targets

    def join(
        self, indices: Sequence[int], boundary: Boundary | None, start_token: int | None
    ) -> Join:
        """Where the context and these candidates meet."""
        return join(
            self._tokenizer,
            self._prompt.content,
            [self._request.candidates[index] for index in indices],
            boundary=boundary,
            add_bos=self._prompt.add_bos,
            prefix_token_id=self._prompt.prefix_token_id,
            start_token=start_token,
            check=check_wanted,
        )

    def plan(self, indices: Sequence[int], joined: Join) -> list[Planned]:
        """What is asked about each of these candidates, or why it cannot be scored."""
        top_k = min(self._request.top_logprobs, self._tokenizer.head_rows)
        asked = QueryTemplate(joined.prefix, self._targets, top_k, self._baseline)
        return [
            self._plan(index, asked, candidate)
            for index, candidate in zip(indices, joined.candidates, strict=True)
        ]

    def replan(self, candidates: Sequence[Planned], joined: Join) -> tuple[Join, list[Planned]]:
        """The same without those that failed: they must not move the start of the others."""
        start = self._request.start_token
        if start is not None:
            check_scored(self._request, (joined.context_tokens - start) * len(candidates))
        good = [i for i, one in enumerate(candidates) if isinstance(one, PlannedCandidate)]
        joined = self.join(good, joined.policy, start)
        replanned = dict(zip(good, self.plan(good, joined), strict=True))
        return joined, [replanned.get(i, failed) for i, failed in enumerate(candidates)]

    def missing_spaces(self, candidates: Sequence[Planned], joined: Join) -> MissingSpaces | None:
        """What to ask about candidates that may lack a space; None where there are none."""
        given = self._request.candidates
        texts = {
            index: str(given[index])
            for index in spaceless(self._prompt.content, given)
            if isinstance(candidates[index], PlannedCandidate)
        }
        return missing_spaces(self._tokenizer, joined, texts) if texts else None

    def _plan(
        self, index: int, asked: QueryTemplate, candidate: JoinedCandidate | InvalidQuery
    ) -> Planned:
        check_wanted()
        if isinstance(candidate, InvalidQuery):
            return with_candidate_index(candidate, index)
        planned = self._planned(index, asked, candidate)
        errors = (*map(self._check, planned.queries), _missing_divisor(self._request, planned))
        error = next((error for error in errors if error is not None), None)
        return planned if error is None else with_candidate_index(error, index)

    def _planned(
        self, index: int, asked: QueryTemplate, candidate: JoinedCandidate
    ) -> PlannedCandidate:
        given = self._request.candidates[index]
        if isinstance(given, str):
            content, characters = given.encode(), len(given)
        else:
            content = path_bytes(self._tokenizer, given)
            characters = len(self._tokenizer.decode(given))
        return PlannedCandidate(
            asked, candidate.token_ids, candidate.tail_tokens, content, characters
        )


def _missing_divisor(request: ScoreRequest, planned: PlannedCandidate) -> InvalidQuery | None:
    if request.normalization in ("per_char", "per_byte") and not planned.content:
        return InvalidQuery(f"stands for no text, so it has no {request.normalization} score")
    return None
