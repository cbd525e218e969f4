"""The route table: what there is, and that nothing of it administers the server or serves files."""

from __future__ import annotations

import threading

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import iter_route_contexts
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.types import ASGIApp

from app import version
from app.http.middleware.access_log import AccessLog
from app.http.middleware.authentication import Authentication
from app.http.middleware.body_limit import BodyLimit
from app.http.middleware.cancellation import CancelOnDisconnect
from app.http.middleware.head_as_get import HeadAsGet
from app.http.middleware.load_shedding import LoadShedding
from app.http.middleware.plain_head import PlainHead
from app.main import create_app
from app.settings import Settings
from tests.app.calibration.labelled_decisions import calibration, drawn
from tests.app.compat.decisions.decision_calls import chat_engine
from tests.app.conftest import client_of, shell_app

LOOK_UPS = (
    "/",
    *("/health", "/health/live", "/health/ready", "/metrics", "/version"),
    *("/v1/models", "/v1/models/{name:path}", "/tokenizer_info"),
    *("/v1/calibrations", "/v1/calibrations/{name}"),
    *("/docs", "/openapi.json", "/playground", "/static/{path:path}"),
)
QUESTIONS = (
    *("/v1/score", "/score", "/v1/next_token", "/v1/decode", "/v1/audit"),
    *("/v1/completions", "/v1/chat/completions", "/v1/decisions", "/v1/systemone"),
    *("/v1/completions/render", "/v1/chat/completions/render", "/tokenize", "/detokenize"),
    *("/generative_scoring", "/rerank", "/v1/rerank", "/v2/rerank", "/v1/calibrations"),
)
"""A new route is for clients, and changes nothing that outlives its answer, or it does not belong
here. A calibration may be kept and removed: by a client that has shown a key, under a name that is
free or its own."""

ROUTES = [*(("GET", path) for path in LOOK_UPS), *(("POST", path) for path in QUESTIONS)]
ROUTES.append(("DELETE", "/v1/calibrations/{name}"))

KEPT = calibration(drawn(1, 40))

RANGES = "bytes=" + ",".join(f"{start}-" for start in range(1_000))


def test_there_are_these_routes_and_no_others() -> None:
    """Nothing loads models, changes settings, resets or stops: whoever may ask may do no more."""
    found = {
        (method, context.path)
        for context in iter_route_contexts(create_app(Settings()).routes)
        for method in context.methods or {"any"}
    }
    assert found - {("HEAD", path) for path in LOOK_UPS} == set(ROUTES)


def whole_app() -> FastAPI:
    """With something at every path."""
    app = shell_app(chat_engine())
    app.state.calibrations.keep("mine", KEPT)
    return app


def place_of(path: str) -> str:
    """A path that leads to something."""
    names = {"{name:path}": "org/toy", "{name}": "mine", "{path:path}": "main.js"}
    for parameter, name in names.items():
        path = path.replace(parameter, name)
    return path


@pytest.mark.anyio
async def test_head_answers_wherever_get_does() -> None:
    """The same status and headers, and no body; nowhere else, and what GET is refused, it is."""
    changing = ("x-request-id", "x-typesafe-request-id", "content-length")
    async with client_of(whole_app()) as client:
        for path in (*LOOK_UPS, "/nowhere", *QUESTIONS):
            place = place_of(path)
            got, head = await client.get(place), await client.head(place)
            assert head.status_code == got.status_code, path
            assert head.content == b"" != got.content
            for headers in (got.headers, head.headers):
                for name in changing:
                    headers.pop(name, None)
            assert head.headers == got.headers


@pytest.mark.anyio
async def test_the_version_is_told_before_a_model_is_there() -> None:
    """Who routes to several releases asks for it."""
    app = shell_app(load=threading.Event().wait)
    async with client_of(app) as client:
        assert (await client.get("/version")).json() == {"version": version()}


@pytest.mark.anyio
@pytest.mark.parametrize("path", LOOK_UPS)
async def test_ranges_are_ignored(path: str) -> None:
    """A thousand ranges that overlap are answered by the whole, once: no route serves files."""
    async with client_of(whole_app()) as client:
        place = place_of(path)
        whole = await client.get(place)
        asked = await client.get(place, headers={"Range": RANGES})
    assert asked.status_code == whole.status_code == 200
    assert "Content-Range" not in asked.headers
    assert "Accept-Ranges" not in asked.headers
    assert len(asked.content) <= 2 * len(whole.content)


def layers(app: ASGIApp) -> list[object]:
    """What a request goes through, outermost first, down to the router."""
    found: list[object] = []
    inner: object = app
    while not isinstance(inner, APIRouter):
        found.append(inner)
        inner = vars(inner).get("app") or vars(inner)["_app"]
    return found


def test_all_middleware_is_plain_asgi() -> None:
    """Starlette's base class for functions hides disconnects from what is inside it."""
    stack = layers(create_app(Settings()).build_middleware_stack())
    assert not [layer for layer in stack if isinstance(layer, BaseHTTPMiddleware)]
    ours = [type(layer) for layer in stack if type(layer).__module__.startswith("app.")]
    assert ours == [
        AccessLog,
        PlainHead,
        HeadAsGet,
        Authentication,
        LoadShedding,
        CancelOnDisconnect,
        BodyLimit,
    ]
