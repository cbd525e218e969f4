"""What a handler may ask for, as annotated parameters.

All of it hangs on the app's state, put there by ``create_app``; nothing is global. The functions
are coroutines although they await nothing: FastAPI sends plain functions to a thread.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, cast

from fastapi import Depends, Header, Request

from app.audit.service import AuditService
from app.calibration.store import CalibrationStore
from app.http.lifecycle import Lifecycle
from app.schemas.debias import Debias
from app.service import ScoringService
from app.telemetry.metrics import Metrics
from app.telemetry.request_facts import Facts, facts_of
from model_runtime import Engine


async def get_lifecycle(request: Request) -> Lifecycle:
    """The state of this process."""
    return cast(Lifecycle, request.app.state.lifecycle)


async def get_metrics(request: Request) -> Metrics:
    """The metrics of this app."""
    return cast(Metrics, request.app.state.metrics)


async def get_facts(request: Request) -> Facts:
    """What the access log is told of this request."""
    return facts_of(request.scope)


async def get_calibrations(request: Request) -> CalibrationStore:
    """The calibrations that a request may name: where keys are kept apart, those of its key."""
    return cast(CalibrationStore, request.app.state.calibrations).of(_tenant(request))


async def get_has_keys(request: Request) -> bool:
    """Whether there are API keys, one of which every request has shown then."""
    return bool(request.app.state.has_keys)


async def get_debias(
    request: Request,
    said: Annotated[
        Debias | None,
        Header(alias="X-Chainrule-Debias", description="``debias`` where the body has none."),
    ] = None,
) -> Debias:
    """The orders of decisions whose body names none: by its header, or as the operator has it."""
    return said or cast(Debias, request.app.state.decision_debias)


CalibrationsDependency = Annotated[CalibrationStore, Depends(get_calibrations)]
DebiasDependency = Annotated[Debias, Depends(get_debias)]
HasKeysDependency = Annotated[bool, Depends(get_has_keys)]
FactsDependency = Annotated[Facts, Depends(get_facts)]
LifecycleDependency = Annotated[Lifecycle, Depends(get_lifecycle)]
MetricsDependency = Annotated[Metrics, Depends(get_metrics)]


async def get_engine(lifecycle: LifecycleDependency) -> Engine:
    """The engine.

    Raises:
        EngineUnavailable: it is being loaded, is stopping, or has died.
    """
    return lifecycle.engine()


EngineDependency = Annotated[Engine, Depends(get_engine)]


async def get_service(request: Request, engine: EngineDependency) -> ScoringService:
    """The service over the engine, made for the first request that wants it.

    Where keys are kept apart, it is the service as the tenant of the request's key has it.
    """
    state = request.app.state
    if state.service is None:
        state.service = ScoringService(
            engine, state.limits, state.score_cache, state.rerank_card, state.served_names
        )
    service = cast(ScoringService, state.service)
    return service.for_request(_tenant(request), request.state.arrived)


def _tenant(request: Request) -> str:
    """Of the request's key, where keys are kept apart; else everybody is one."""
    return _key_digest(request) if request.app.state.keys_apart else ""


def _key_digest(request: Request) -> str:
    """Names the API key of a request that has been let in, without being it."""
    _, _, key = request.headers["authorization"].partition(" ")
    return hashlib.sha256(key.strip().encode()).hexdigest()


ServiceDependency = Annotated[ScoringService, Depends(get_service)]


async def get_audit_service(
    request: Request, engine: EngineDependency, service: ServiceDependency
) -> AuditService:
    """Audits of what the request's own service answers."""
    return AuditService(service, engine, request.app.state.limits)


AuditDependency = Annotated[AuditService, Depends(get_audit_service)]
