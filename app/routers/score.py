"""POST /v1/score: our own body, and those that other servers read under the same path."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Request, Response
from pydantic import BaseModel, BeforeValidator, Discriminator, RootModel, Tag

from app.compat.generative_scoring.label_routes import label_scores
from app.compat.generative_scoring.label_schemas import LabelScoreRequest, LabelScores, ScoreList
from app.compat.generative_scoring.pair_schemas import DataPairs, PairRequest, QueryPairs, TextPairs
from app.compat.generative_scoring.pairs import pair_scores
from app.dependencies import ServiceDependency
from app.errors.table import AmbiguousBody
from app.http.json_body import QueuedRoute
from app.http.json_response import WORK_FAILURES, json_reply
from app.schemas.score import ScoreRequest
from app.schemas.score_response import ScoreResponse
from app.telemetry.request_facts import facts_of

router = APIRouter(tags=["score"], route_class=QueuedRoute, responses=WORK_FAILURES)

KEYS: Final[dict[str, tuple[str, ...]]] = {
    "our own": ("context", "candidates"),
    "SGLang's": ("query", "items", "label_token_ids"),
    "vLLM's texts": ("text_1", "text_2"),
    "vLLM's queries": ("queries", "documents"),
    "vLLM's data": ("data_1", "data_2"),
}
"""The keys by which a body is told; no key belongs to two. No shape is called like a key: a
complaint would be taken for one about that."""

_KINDS: Final[dict[str, type[BaseModel]]] = {
    "our own": ScoreRequest,
    "SGLang's": LabelScoreRequest,
    "vLLM's texts": TextPairs,
    "vLLM's queries": QueryPairs,
    "vLLM's data": DataPairs,
}
_SHAPE_OF: Final = {key: shape for shape, keys in KEYS.items() for key in keys}


def _shape(body: Any) -> str:
    """What a body is meant to be; our own where nothing tells."""
    read = next((shape for shape, kind in _KINDS.items() if isinstance(body, kind)), None)
    if read is not None:
        return read
    keys = [key for key in body if key in _SHAPE_OF] if isinstance(body, dict) else []
    # What is null asks for nothing, and tells nothing where another key does.
    keys.sort(key=lambda key: body[key] is None)
    return _SHAPE_OF[keys[0]] if keys else "our own"


def _refuse_mixture(body: Any) -> Any:
    """Raise ``AmbiguousBody``, naming the key, for one that belongs to another shape."""
    shape = _shape(body)
    given = [k for k in body if body[k] is not None] if isinstance(body, dict) else ()
    odd = (key for key in given if _SHAPE_OF.get(key, shape) != shape)
    for key in odd:
        raise AmbiguousBody(
            f"{key}: this key does not go together with {' and '.join(KEYS[shape])}", key
        )
    return body


ScoreBody = Annotated[
    Annotated[ScoreRequest, Tag("our own")]
    | Annotated[LabelScoreRequest, Tag("SGLang's")]
    | Annotated[TextPairs, Tag("vLLM's texts")]
    | Annotated[QueryPairs, Tag("vLLM's queries")]
    | Annotated[DataPairs, Tag("vLLM's data")],
    Discriminator(_shape),
    BeforeValidator(_refuse_mixture),
    Body(),
]


def _pair_shape(body: Any) -> str:
    """Which of vLLM's a body is meant to be."""
    shape = _shape(body)
    return shape if shape.startswith("vLLM's") else "vLLM's texts"


PairBody = Annotated[
    Annotated[TextPairs, Tag("vLLM's texts")]
    | Annotated[QueryPairs, Tag("vLLM's queries")]
    | Annotated[DataPairs, Tag("vLLM's data")],
    Discriminator(_pair_shape),
    BeforeValidator(_refuse_mixture),
    Body(),
]


class ScoreReply(RootModel[ScoreResponse | LabelScores | ScoreList]):
    """Our own answer; to another server's body, that server's."""


@router.post(
    "/v1/score",
    response_model=ScoreReply,
    summary="Log-probabilities of candidates given a context",
)
async def score(request: ScoreBody, service: ServiceDependency, http: Request) -> Response:
    """Score every candidate as a whole sequence: log P(candidate | context).

    Results come in the order of the candidates. One that cannot be scored (empty, too long,
    an id that the model does not have) is an error in its own result; the others are scored.

    A body with ``query``, ``items`` and ``label_token_ids`` is SGLang's, and answered in its shape:
    the probability of each label as the token behind query and item. One with ``text_1`` and
    ``text_2`` (or ``queries`` and ``documents``, or ``data_1`` and ``data_2``) is vLLM's: the
    relevance of each pair, between 0 and 1, as /v1/rerank has it.
    """
    deadline = service.deadline(request)
    if isinstance(request, LabelScoreRequest):
        return await json_reply(await label_scores(request, service, http), deadline)
    if isinstance(request, PairRequest):
        return await json_reply(await pair_scores(request, service, http), deadline)
    answer = await service.score(request)
    facts_of(http.scope).update(answer.usage.model_dump())
    return await json_reply(answer) if _of_search(answer) else await json_reply(answer, deadline)


def _of_search(answer: ScoreResponse) -> bool:
    """Whether a search has found it, which tells what it has when the time runs out."""
    top = answer.top
    return answer.boundary.policy == "marginal" or (top is not None and top.search == "best_first")


@router.post("/score", response_model=ScoreList, summary="Relevance of pairs, in vLLM's shape")
async def score_pairs(request: PairBody, service: ServiceDependency, http: Request) -> Response:
    """vLLM's other path for what /v1/score answers to ``text_1`` and ``text_2``."""
    answer = await pair_scores(request, service, http)
    return await json_reply(answer, service.deadline(request))
