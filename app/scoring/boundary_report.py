"""``boundary_detail`` of POST /v1/score: how each candidate met the context, under every policy.

The request is scored under its own policy, then copies of it under the others; what is said here
of tokens is read from the text alone::

    context "It is", candidate "n't"     It| isn|'t      own_start 1, merged
                     candidate " yes"    It| is| yes     own_start 2
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile

from app.requests.prompt import Prompt, parse_prompt
from app.requests.worker_threads import check_wanted
from app.schemas.response import Timings, Usage
from app.schemas.score import ScoreRequest
from app.schemas.score_response import (
    BoundaryReport,
    CandidateJoin,
    CandidateScore,
    PolicyScores,
    ScoreResponse,
    SplitToken,
)
from model_runtime import (
    ChainruleError,
    InvalidQuery,
    ModelInfo,
    NonFiniteLogits,
    Tokenizer,
)

TOKENS_BEFORE = 8
TOKENS_BEHIND = 4
"""Tokens of the split that are listed on either side of the context's end."""

Score = Callable[[ScoreRequest], Awaitable[ScoreResponse]]
Detailed = list[CandidateScore]
UseTokenizer = Callable[[Callable[[Tokenizer, ModelInfo], Detailed]], Awaitable[Detailed]]

ByPolicy = Mapping[str, Sequence[CandidateScore]]
"""Results of the same candidates, by policy; none where it could score no candidate."""


def policy_requests(request: ScoreRequest) -> dict[str, ScoreRequest]:
    """The request under every policy but its own, as far as they apply: ids have no joint split.

    Raises:
        InvalidQuery: the request does not score its candidates one by one, to the end.
    """
    for param in ("top_n", "compact"):
        if getattr(request, param):
            raise InvalidQuery(
                f"{param} leaves no place for a report of each candidate",
                "boundary_detail",
            )
    policies = ("joint", "separate", "marginal") if _is_text(request) else ("separate", "marginal")
    plain = {
        "boundary_detail": False,
        "start_token": None,
        "normalization": "sum",
        "pmi_context": None,
        "calibration_contexts": None,
        "token_logprobs": False,
        "top_logprobs": 0,
        "all_or_nothing": False,
    }
    return {
        policy: request.model_copy(update={**plain, "boundary": policy})
        for policy in policies
        if policy != _own_policy(request)
    }


async def score_in_detail(
    score: Score, use_tokenizer: UseTokenizer, request: ScoreRequest
) -> ScoreResponse:
    """The answer to a request with ``boundary_detail``: one request, whatever is asked for it.

    Args:
        score: as ``score_under_each_policy`` takes it.
        use_tokenizer: calls what it is given beside the event loop.
        request: what was asked.

    Raises:
        ChainruleError: as ``score_under_each_policy``.
    """
    reply, by_policy = await score_under_each_policy(score, request)

    def detailed(tokenizer: Tokenizer, info: ModelInfo) -> Detailed:
        return attach_report(tokenizer, info, request, reply.boundary, reply.results, by_policy)

    return reply.model_copy(update={"results": await use_tokenizer(detailed)})


async def score_under_each_policy(
    score: Score, request: ScoreRequest
) -> tuple[ScoreResponse, dict[str, list[CandidateScore]]]:
    """Score a request under its own policy, then under the others, one after the other.

    Args:
        score: answers a request without ``boundary_detail``, each within the same deadline.
        request: one with it.

    Returns:
        The reply under its own policy, with what all of them took together; and the results
        under the others, as ``attach_report`` takes them.

    Raises:
        ChainruleError: as ``score``; that nothing can be scored fails the request only where it
            is so under its own policy.
    """
    others = policy_requests(request)
    reply = await score(request.model_copy(update={"boundary_detail": False}))
    usage, timings = reply.usage, reply.timings_ms
    by_policy: dict[str, list[CandidateScore]] = {}
    for policy, other in others.items():
        try:
            found = await score(other)
        except (InvalidQuery, NonFiniteLogits) as error:
            if not _scores_nothing(error):
                raise _attribute(error, policy, request) from error
            by_policy[policy] = []
            continue
        by_policy[policy] = found.results
        usage, timings = _added(usage, found.usage), _all_added(timings, found.timings_ms)
    return reply.model_copy(update={"usage": usage, "timings_ms": timings}), by_policy


def _attribute(error: ChainruleError, policy: str, request: ScoreRequest) -> ChainruleError:
    """What a policy that nobody named fails with, as the fault of the field that asked for it."""
    set_by_caller = request.max_expansions is not None
    if not isinstance(error, InvalidQuery) or (error.param == "max_expansions" and set_by_caller):
        return error
    return type(error)(f"under {policy}, {error.reason}", "boundary_detail")


def _scores_nothing(error: ChainruleError) -> bool:
    """Whether a request failed because none of its candidates could be scored."""
    if isinstance(error, InvalidQuery):
        return (error.param or "").startswith("candidates.")
    return isinstance(error, NonFiniteLogits)


def _added(usage: Usage, more: Usage) -> Usage:
    """The context is the same one, however often it is asked about."""
    sums = {name: value + getattr(more, name) for name, value in usage.model_dump().items()}
    return Usage(**{**sums, "prompt_tokens": usage.prompt_tokens})


def _all_added(timings: Timings, more: Timings) -> Timings:
    return Timings(
        **{name: value + getattr(more, name) for name, value in timings.model_dump().items()}
    )


def attach_report(
    tokenizer: Tokenizer,
    info: ModelInfo,
    request: ScoreRequest,
    boundary: BoundaryReport,
    results: Sequence[CandidateScore],
    by_policy: ByPolicy,
) -> list[CandidateScore]:
    """The results with ``join`` filled, but for candidates that failed.

    Args:
        tokenizer: the model's.
        info: what is served.
        request: what was asked.
        boundary: where the request's own policy starts.
        results: under that policy, in the request's order.
        by_policy: under the policies of ``policy_requests``.
    """
    splits = _Splits.of(tokenizer, parse_prompt(tokenizer, info, request), boundary)
    every = {**by_policy, boundary.policy: results}
    return [
        result if result.error is not None else _with_join(result, splits, candidate, every)
        for result, candidate in zip(results, request.candidates, strict=True)
    ]


def _is_text(request: ScoreRequest) -> bool:
    return all(isinstance(part, str) for part in (request.context, *request.candidates))


def _own_policy(request: ScoreRequest) -> str:
    return request.boundary or ("joint" if _is_text(request) else "separate")


@dataclass(frozen=True, slots=True)
class _Split:
    """A candidate's tokens behind the first tokens of the context.

    Attributes:
        kept: so many tokens of the context come before them.
        tokens: the rest of the path.
        own_start: so many tokens of the whole path are the context's own.
        inside: so many of ``tokens`` lie wholly in the context.
        merged: the one behind them does so in part.
    """

    kept: int
    tokens: Sequence[int]
    own_start: int
    inside: int
    merged: bool


@dataclass(frozen=True, slots=True)
class _Splits:
    """How candidates are split behind one context.

    Attributes:
        tokenizer: the model's.
        boundary: where scoring starts.
        before: the context's own tokens, with what stands before them.
        window: the end of the context that candidates may change; None for ids.
        tail: its tokens.
    """

    tokenizer: Tokenizer
    boundary: BoundaryReport
    before: tuple[int, ...]
    window: str | None
    tail: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Tokenizer, prompt: Prompt, boundary: BoundaryReport) -> _Splits:
        """Tokenize the context."""
        before = prompt.token_ids(tokenizer)
        if not isinstance(prompt.content, str):
            return cls(tokenizer, boundary, before, None, ())
        window = tokenizer.unstable_suffix(prompt.content, tokenizer.encode(prompt.content))
        return cls(tokenizer, boundary, before, window, tuple(tokenizer.encode(window)))

    def joint(self, candidate: str | Sequence[int]) -> _Split:
        """One text, tokenized together; ids as they are."""
        if self.window is None or not isinstance(candidate, str):
            return self.separate(candidate)
        tokens = self.tokenizer.encode(self.window + candidate)
        kept = len(self.before) - len(self.tail)
        common = takewhile(lambda pair: pair[0] == pair[1], zip(tokens, self.tail, strict=False))
        end = sum(self._sizes(self.tail))
        ends = [at for at in accumulate(self._sizes(tokens)) if at <= end]
        merged = end > 0 and (not ends or ends[-1] < end)
        return _Split(kept, tokens, kept + sum(1 for _ in common), len(ends), merged)

    def separate(self, candidate: str | Sequence[int]) -> _Split:
        """Tokenized alone, behind the context's own tokens."""
        tokens = self.tokenizer.encode(candidate) if isinstance(candidate, str) else candidate
        return _Split(len(self.before), tokens, len(self.before), 0, merged=False)

    def shown(self, candidate: str | Sequence[int]) -> list[SplitToken]:
        """The split of the request's own policy, near the context's end."""
        is_separate = self.boundary.policy == "separate"
        split = self.separate(candidate) if is_separate else self.joint(candidate)
        path = (*self.before[: split.kept], *split.tokens)
        place = split.kept + split.inside
        first = max(min(self.boundary.start_token, split.own_start), place - TOKENS_BEFORE)
        return [
            SplitToken(id=token, text=self.tokenizer.token_text(token))
            for token in path[first : place + TOKENS_BEHIND]
        ]

    def _sizes(self, tokens: Sequence[int]) -> Iterator[int]:
        return (len(self.tokenizer.token_bytes(token)) for token in tokens)


def _with_join(
    result: CandidateScore, splits: _Splits, candidate: str | Sequence[int], every: ByPolicy
) -> CandidateScore:
    check_wanted()
    met = splits.joint(candidate)
    found = {policy: scores[result.index] for policy, scores in every.items() if scores}
    marginal = found.get("marginal")
    join = CandidateJoin(
        own_start=met.own_start,
        merged=met.merged,
        tokens=splits.shown(candidate),
        policies=PolicyScores(
            joint=found["joint"].logprob if "joint" in found else None,
            separate=found["separate"].logprob if "separate" in found else None,
            marginal=None if marginal is None else marginal.marginal,
        ),
    )
    return result.model_copy(update={"join": join})
