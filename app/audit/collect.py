"""Ask the service about the candidates in several ways: the only part of an audit that waits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from app.audit.evidence import Evidence, scored_of
from app.requests.deadline import Deadline
from app.requests.limits import Limits
from app.requests.prompt import Prompt, parse_prompt
from app.schemas.audit import DEFAULT_AUDIT_NEW_TOKENS, AuditRequest
from app.schemas.bounds import MAX_AUDIT_TOKENS
from app.schemas.decode import DecodeRequest
from app.schemas.decode_response import DecodeResponse
from app.schemas.response import Usage
from app.schemas.score import ScoreRequest
from app.schemas.score_response import CandidateScore, ScoreResponse
from app.scoring.token_paths import PathQueries, PathScores
from app.service import ScoringService
from model_runtime import (
    ChainruleError,
    Engine,
    InvalidQuery,
    LogprobQuery,
    ModelInfo,
    NonFiniteLogits,
    Tokenizer,
)

R = TypeVar("R", ScoreResponse, DecodeResponse, PathScores[Any])
Context = tuple[Prompt, tuple[int, ...]]
"""A context, and its tokens with what stands before them."""

ALTERNATIVES = 2
"""Most probable tokens to ask for: one of them is not the token itself."""

MARGINAL_EXPANSIONS = 64
"""Token paths that ``marginal`` asks about for each candidate, beside as many as the longest has
tokens. Few sums gain a thousandth of a nat from more, and an audit takes three times as long with
the 256 of /v1/score."""


class EvidenceCollector:
    """Asks what one audit is made of, one question after the other.

    Args:
        service: as the request's tenant has it.
        engine: the same service's.
        limits: the operator's bounds.
        request: what is audited.
        deadline: when its time is over.
    """

    def __init__(
        self,
        service: ScoringService,
        engine: Engine,
        limits: Limits,
        request: AuditRequest,
        deadline: Deadline,
    ) -> None:
        self._service = service
        self._engine = engine
        self._request = request
        self._alternatives = min(ALTERNATIVES, limits.max_top_logprobs, engine.info.vocab_size)
        self._deadline = deadline
        self._spent: list[Usage] = []

    async def collect(self) -> Evidence:
        """Everything that the answer is made of.

        Raises:
            InvalidQuery: what /v1/score refuses, or the candidates are too long to be audited.
            DeadlineExceeded: the request's time ran out, over all of its questions.
        """
        asked = self._score_request()
        scores = self._counted(await self._service.score(asked, self._deadline))
        _check_size(scores)
        by_policy = {
            policy: await self._under(policy, asked, _longest(scores))
            for policy in _other_policies(self._request, scores)
        }
        paths = self._counted(
            await self._service.score_paths(
                self._request,
                lambda tokenizer, info: self._paths(tokenizer, info, scores),
                deadline=self._deadline,
            )
        )
        prompt, before = paths.plan
        decoded = self._counted(await self._decoded(before, scores))
        return Evidence(
            request=self._request,
            tokenizer=self._engine.tokenizer,
            prompt=prompt,
            before=before,
            scores=scores,
            by_policy={**by_policy, scores.boundary.policy: scores.results},
            entropies=_entropies(scores, paths),
            decoded=decoded,
            usage=with_cost(scores.usage, self._spent[1:]),
        )

    def _score_request(self) -> ScoreRequest:
        """What /v1/score would be asked, tokens listed. Its fields are checked already."""
        same = ("context", "candidates", "add_bos", "prefix_token_id", "boundary", "start_token")
        fields: dict[str, Any] = {name: getattr(self._request, name) for name in same}
        return ScoreRequest.model_construct(
            **fields,
            **self._options(),
            append_eos=self._request.append_eos,
            token_logprobs=True,
            top_logprobs=self._alternatives,
        )

    def _options(self) -> dict[str, Any]:
        """How every question wants to be treated."""
        return {name: getattr(self._request, name) for name in ("model", "priority", "cache_salt")}

    async def _under(
        self, policy: str, asked: ScoreRequest, longest: int
    ) -> Sequence[CandidateScore]:
        """The candidates' results under another policy; none where it cannot score them."""
        changed = {"start_token": None, "token_logprobs": False, "top_logprobs": 0}
        deadline = self._deadline
        if policy == "marginal":
            changed["max_expansions"] = MARGINAL_EXPANSIONS + longest
            # A search that runs out of time says what it has found; the rest needs time as well.
            deadline = deadline.halfway()
        request = asked.model_copy(update={**changed, "boundary": policy})
        try:
            return self._counted(await self._service.score(request, deadline)).results
        except (InvalidQuery, NonFiniteLogits):
            return ()

    def _paths(
        self, tokenizer: Tokenizer, info: ModelInfo, scores: ScoreResponse
    ) -> PathQueries[Context]:
        """The scored paths once more, for the entropies that /v1/score does not list."""
        prompt = parse_prompt(tokenizer, info, self._request)
        before = prompt.token_ids(tokenizer)
        start, is_ended = scores.boundary.start_token, self._request.append_eos
        ends = info.end_token_ids if is_ended else None
        paths = [[token.id for token in one.tokens or ()] for one in scored_of(scores)]
        wholes = [(*before[:start], *path[: len(path) - is_ended]) for path in paths]
        queries = [LogprobQuery(whole, start, ends, summary=True) for whole in wholes]
        return PathQueries(queries, (prompt, before), len(before), sum(map(len, paths)))

    async def _decoded(self, before: tuple[int, ...], scores: ScoreResponse) -> DecodeResponse:
        """Greedy, beam and exact search behind what the candidates are scored behind."""
        request, prefix = self._request, before[: scores.boundary.start_token]
        wanted = request.max_tokens or min(DEFAULT_AUDIT_NEW_TOKENS, _longest(scores))
        asked = DecodeRequest(
            context=list(prefix),
            add_bos=False,
            compare=["greedy", "beam", "exact"],
            max_tokens=min(wanted, self._engine.info.max_model_len - len(prefix)),
            num_beams=request.beams,
            max_expansions=request.expansions,
            token_logprobs=True,
            **self._options(),
        )
        return await self._service.decode(asked, self._deadline.halfway())

    def _counted(self, answer: R) -> R:
        self._spent.append(answer.usage)
        return answer


def _longest(scores: ScoreResponse) -> int:
    """Scored tokens of the longest candidate."""
    return max(one.token_count or 0 for one in scored_of(scores))


def _check_size(scores: ScoreResponse) -> None:
    tokens = sum(one.token_count or 0 for one in scored_of(scores))
    if tokens > MAX_AUDIT_TOKENS:
        raise InvalidQuery(
            f"{tokens} scored tokens are too many to audit; {MAX_AUDIT_TOKENS} are the most",
            "candidates",
        )


def _other_policies(request: AuditRequest, scores: ScoreResponse) -> list[str]:
    """Those that apply beside the request's own: ids have no joint split."""
    is_text = all(isinstance(part, str) for part in (request.context, *request.candidates))
    policies = ("joint", "separate", "marginal") if is_text else ("separate", "marginal")
    return [policy for policy in policies if policy != scores.boundary.policy]


def _entropies(scores: ScoreResponse, paths: PathScores[Context]) -> dict[int, tuple[float, ...]]:
    found = {}
    for one, answer in zip(scored_of(scores), paths.answers, strict=True):
        if isinstance(answer, ChainruleError):
            raise answer
        found[one.index] = answer.entropies
    return found


def with_cost(asked: Usage, spent: Sequence[Usage]) -> Usage:
    """What all questions cost; prompt and scored tokens are those of the first."""
    total = {name: sum(getattr(usage, name) for usage in spent) for name in Usage.model_fields}
    for name in ("cached_tokens", "computed_tokens", "reused_scores"):
        total[name] += getattr(asked, name)
    total |= {"prompt_tokens": asked.prompt_tokens, "scored_tokens": asked.scored_tokens}
    return Usage(**total)
