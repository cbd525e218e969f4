"""POST /v1/decode."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from fastapi import APIRouter, Response
from pydantic import TypeAdapter

from app.dependencies import FactsDependency, ServiceDependency
from app.http.json_body import QueuedRoute
from app.http.json_response import WORK_FAILURES, json_reply
from app.http.sse import EventStream, component, event_schema
from app.schemas.decode import DecodeRequest
from app.schemas.decode_response import EVENTS_EXAMPLE, DecodedToken, DecodeResponse
from app.schemas.error import ErrorResponse
from app.telemetry.request_facts import Facts

router = APIRouter(tags=["decode"], route_class=QueuedRoute, responses=WORK_FAILURES)

_NAMES: Final[dict[type, str]] = {DecodedToken: "token", DecodeResponse: "result"}
_EVENT: Final[TypeAdapter[DecodedToken | DecodeResponse]] = TypeAdapter(
    DecodedToken | DecodeResponse
)

# No plain answer holds one, so the document has no component of it.
_TOKEN_SCHEMA: Final = TypeAdapter(DecodedToken).json_schema(
    ref_template="#/components/schemas/{model}"
)
_TOKEN_SCHEMA.pop("$defs")

EVENTS: Final[dict[str, Any]] = {
    "description": "The answer; with ``stream``, as events: ``token`` for each token, then one "
    "``result`` with the whole answer. An ``error`` event takes the place of what cannot follow. A "
    "``token`` event has ``index``, ``id``, ``logprob``, ``rank``, ``top_logprobs``, and ``text``: "
    "what the text surely grows by, empty while a character or a possible stop is not complete.",
    "content": {
        "text/event-stream": {
            "itemSchema": {
                "oneOf": [
                    event_schema(_TOKEN_SCHEMA, "token"),
                    event_schema(component(DecodeResponse), "result"),
                    event_schema(component(ErrorResponse), "error"),
                ]
            },
            "example": EVENTS_EXAMPLE,
        }
    },
}


@router.post(
    "/v1/decode",
    response_model=DecodeResponse,
    summary="The most probable continuations",
    responses={
        200: EVENTS,
        501: {"model": ErrorResponse, "description": "The server has no grammar compiler"},
    },
)
async def decode(
    request: DecodeRequest, service: ServiceDependency, facts: FactsDependency
) -> Response:
    """Search for the most probable continuations: by greedy or beam search, or exactly, with a
    certificate. All of them can be limited to candidates, a regular expression or a JSON schema.

    Every token's log-probability is the model's own, also where others were not allowed.
    """
    facts["strategy"] = "compare" if request.compare else request.strategies[0]
    if request.stream:
        facts["stream"] = True
        events = _observed(service.stream(request, facts=facts), facts)
        return await EventStream.open(events, _NAMES, _EVENT)
    answer = await service.decode(request)
    _observe(answer, facts)
    # Without the deadline: a search whose time ran out tells what it has found.
    return await json_reply(answer)


async def _observed(
    events: AsyncGenerator[DecodedToken | DecodeResponse, None], facts: Facts
) -> AsyncGenerator[DecodedToken | DecodeResponse, None]:
    async with aclosing(events):
        async for event in events:
            if isinstance(event, DecodeResponse):
                _observe(event, facts)
            yield event


def _observe(answer: DecodeResponse, facts: Facts) -> None:
    facts.update(answer.usage.model_dump())
    if answer.certificate is not None:
        facts.update(optimal=answer.certificate.optimal, expanded=answer.certificate.expanded)
