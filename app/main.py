"""The app: routes, middleware and state put together."""

from __future__ import annotations

import inspect
import linecache
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from anyio import to_thread
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.middleware import Middleware

from app import version
from app.cache.score_cache import ScoreCache
from app.calibration.store import CalibrationStore
from app.compat.decisions import calibration_routes as calibration
from app.compat.decisions import routes as decisions
from app.compat.generative_scoring import label_routes as scoring
from app.compat.openai import render_routes as rendering
from app.compat.openai import routes as completions
from app.compat.openai import tokenizer_routes as tokenization
from app.compat.openai.chat import routes as chat
from app.compat.rerank import routes as rerank
from app.compat.rerank.config import RerankDefaults
from app.compat.systemone import routes as systemone
from app.errors.table import install_error_handlers
from app.http.full_gc import FullGcDeferral
from app.http.json_body import JsonRoute, Parser, QueuedRoute
from app.http.lifecycle import Lifecycle
from app.http.middleware.access_log import AccessLog
from app.http.middleware.authentication import Authentication, open_paths
from app.http.middleware.body_limit import BodyBounds, BodyLimit
from app.http.middleware.cancellation import CancelOnDisconnect
from app.http.middleware.head_as_get import HeadAsGet
from app.http.middleware.load_shedding import LoadShedding
from app.http.middleware.plain_head import PlainHead
from app.http.middleware.tracing import Tracing, open_traces
from app.http.openapi import install_document
from app.http.unknown_path import UnknownPath
from app.requests.limits import Limits
from app.routers import (
    audit,
    calibrations,
    decode,
    health,
    index,
    models,
    next_token,
    pages,
    score,
)
from app.settings import Settings
from app.telemetry.metrics import Metrics
from model_runtime import Engine

if TYPE_CHECKING:  # it brings OpenTelemetry's SDK
    from app.telemetry.traces.traces import Traces

DESCRIPTION: Final = """\
Exact sequence log-probabilities from a causal language model:

    log P(y | x) = sum over t of log P(y_t | x, y_<t)

Logarithms are natural. A score depends on its own tokens and on nothing else: not on the other
candidates, not on what else the server does. Nothing is ever truncated; what does not fit is
refused, by the name of the field. Every failure has the same shape, `{"error": {"message",
"type", "param", "code"}}`.

    curl localhost:8000/v1/score -H 'Content-Type: application/json' -d '
      {"context": "The capital of France is", "candidates": [" Paris", " London", " banana"]}'
"""

TAGS: Final[list[dict[str, Any]]] = [
    {"name": "score", "description": "Candidates, given a context."},
    {"name": "next_token", "description": "The distribution of the token that comes next."},
    {"name": "decode", "description": "Completions: greedy, beam and exact search."},
    {"name": "audit", "description": "What scores are made of, and what decides between them."},
    {"name": "openai", "description": "Completions and chats in OpenAI's shape."},
    {"name": "decisions", "description": "Questions about an input: OpenAI's and System One's."},
    {"name": "calibrations", "description": "What turns decisions into calibrated ones."},
    {"name": "rerank", "description": "Documents for a query, in the shapes of Cohere, Jina, TEI."},
    {"name": "tokenizer", "description": "The model's tokenizer, in vLLM's shape."},
    {"name": "models", "description": "What is served."},
    {"name": "health", "description": "For probes and dashboards."},
]

NATIVE: Final = (score, next_token, decode, audit, calibrations, models, health, index, pages)
COMPATIBLE: Final = (
    *(completions, chat, rendering, tokenization),
    *(decisions, calibration, systemone),
    *(rerank, scoring),
)


def create_app(
    settings: Settings,
    engine: Engine | None = None,
    *,
    load: Callable[[], Engine] | None = None,
) -> FastAPI:
    """The app. ``app.state.lifecycle`` says what it is doing.

    Args:
        settings: limits, keys and what to load.
        engine: an engine that is loaded already. The app is ready as soon as it has started.
        load: makes the engine where none is given; called on a thread of its own while the app
            answers that it is alive and not ready. By default it loads what the settings name.
    """
    lifecycle = Lifecycle()
    cache = ScoreCache(int(settings.score_cache_bytes))
    metrics = Metrics(lifecycle.stats, cache.stats, lifecycle.model_info, settings.metrics_dialect)
    traces = open_traces() if settings.traces else None
    app = FastAPI(
        title="chainrule",
        version=version(),
        description=DESCRIPTION,
        openapi_tags=TAGS,
        # FastAPI's own pages take their scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        # A redirect would repeat the Host header, which a client may make up.
        redirect_slashes=False,
        # FastAPI's own telemetry records what failed validation, paths and queries: prompts.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        lifespan=_lifespan(lifecycle, engine, load or _loader(settings), traces),
        middleware=_middleware(settings, lifecycle, metrics, traces),
    )
    _keep_state(app, settings, lifecycle, metrics, cache)
    install_error_handlers(app)
    install_document(app)
    for source in NATIVE + COMPATIBLE:
        app.include_router(_strict(source.router))
    metrics.paths = frozenset(_paths_without_parameters(app))
    methods = _methods_by_path(_api_routes())
    documented = _methods_by_path(route for route in _api_routes() if route.include_in_schema)
    app.state.routes = [f"{method} {path}" for path in documented for method in documented[path]]
    app.router.default = UnknownPath(methods, app.router.default)
    return app


def _api_routes() -> Iterator[APIRoute]:
    for source in NATIVE + COMPATIBLE:
        yield from (route for route in source.router.routes if isinstance(route, APIRoute))


def _methods_by_path(routes: Iterable[APIRoute]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for route in routes:
        found.setdefault(route.path_format, []).extend(sorted(route.methods or ()))
    return found


def _keep_state(
    app: FastAPI, settings: Settings, lifecycle: Lifecycle, metrics: Metrics, cache: ScoreCache
) -> None:
    """What handlers ask for through ``app.dependencies``."""
    app.state.lifecycle = lifecycle
    app.state.metrics = metrics
    app.state.limits = Limits(
        max_candidates=settings.max_candidates,
        max_top_logprobs=settings.max_top_logprobs,
        max_body_bytes=int(settings.max_body_bytes),
        default_timeout_ms=settings.default_timeout_ms,
    )
    app.state.calibrations = CalibrationStore.read(settings.calibrations)
    app.state.has_keys = bool(settings.keys())
    app.state.open_paths = open_paths(open_metrics=not settings.metrics_key)
    app.state.has_playground = settings.playground
    app.state.keys_apart = len(settings.keys()) > 1 and not settings.share_cache_across_keys
    app.state.score_cache = cache
    app.state.served_names = settings.served_name
    app.state.rerank = RerankDefaults.read(settings)
    app.state.rerank_card = None
    app.state.decision_debias = settings.decision_debias
    app.state.service = None
    app.state.parser = Parser()
    app.state.full_collections = FullGcDeferral()


def _follow_recipe(app: FastAPI, engine: Engine) -> Engine:
    """Rerank as the model's own folder says, where the settings leave that to it."""
    rerank = app.state.rerank = app.state.rerank.for_model(engine.info, engine.tokenizer)
    app.state.rerank_card = rerank.card(engine.info)
    if rerank.notes:
        engine.info = replace(engine.info, warnings=(*engine.info.warnings, *rerank.notes))
    return engine


def _paths_without_parameters(app: FastAPI) -> Iterator[str]:
    for context in iter_route_contexts(app.routes):
        if context.path is not None and "{" not in context.path:
            yield context.path


def _lifespan(
    lifecycle: Lifecycle,
    engine: Engine | None,
    load: Callable[[], Engine],
    traces: Traces | None,
) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if engine is None:
            lifecycle.start_loading(lambda: _follow_recipe(app, load()))
        else:
            await lifecycle.attach(await to_thread.run_sync(_follow_recipe, app, engine))
        yield
        await lifecycle.stop(0.0)
        if traces is not None:
            await traces.close()

    return lifespan


def _loader(settings: Settings) -> Callable[[], Engine]:
    return lambda: Engine.load(settings.engine_config())


def _middleware(
    settings: Settings, lifecycle: Lifecycle, metrics: Metrics, traces: Traces | None
) -> list[Middleware]:
    bounds = BodyBounds(
        one=int(settings.max_body_bytes),
        together=settings.body_bytes_in_flight(),
        timeout_s=settings.body_timeout_s,
    )
    return [
        Middleware(AccessLog, metrics=metrics, lifecycle=lifecycle),
        *([] if traces is None else [Middleware(Tracing, traces=traces, metrics=metrics)]),
        Middleware(PlainHead),
        Middleware(HeadAsGet),
        Middleware(Authentication, keys=settings.keys(), open_metrics=not settings.metrics_key),
        Middleware(LoadShedding, lifecycle=lifecycle, routes=_queued_routes(settings)),
        Middleware(CancelOnDisconnect, lifecycle=lifecycle),
        Middleware(BodyLimit, bounds=bounds),
    ]


def _queued_routes(settings: Settings) -> list[QueuedRoute]:
    """Those that nothing but the engine can answer. Where scores are kept there are none."""
    if settings.score_cache_bytes:
        return []
    routes = [route for source in NATIVE + COMPATIBLE for route in source.router.routes]
    return [route for route in routes if isinstance(route, QueuedRoute)]


def _strict(router: APIRouter) -> APIRouter:
    for route in router.routes:
        if isinstance(route, APIRoute) and route.body_field and not isinstance(route, JsonRoute):
            raise RuntimeError(f"this is a bug: {route.path} takes a body and is no JsonRoute")
        if isinstance(route, APIRoute):
            # FastAPI looks up where a handler stands at its first request, on the event loop.
            linecache.getlines(inspect.getsourcefile(route.endpoint) or "")
    return router
