"""Overload: what would find the queue full is refused before anything is made of it."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors.table import error_response
from app.http.lifecycle import Lifecycle
from model_runtime import EngineOverloaded


class LoadShedding:
    """Refuses requests unread while the engine's queue is nearly full.

    Args:
        lifecycle: knows the engine; while draining all is refused elsewhere.
        routes: those whose requests need a place in the queue.
    """

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle, routes: Iterable[APIRoute]) -> None:
        self._app = app
        self._lifecycle = lifecycle
        self._routes = {route.path: route for route in routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get(scope["path"]) if scope["type"] == "http" else None
        if route is not None and scope["method"] in (route.methods or ()):
            try:
                self._lifecycle.check_room()
            except EngineOverloaded as refusal:
                scope["route"] = route  # as FastAPI does, for metrics
                await error_response(refusal, scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)
