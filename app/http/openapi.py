"""The OpenAPI document, with what FastAPI makes of it undone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from fastapi import FastAPI, Request, Response

from app.http.json_response import write_on_thread
from app.schemas.response import ResponseModel

_BOUNDS: Final = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}


def install_document(app: FastAPI) -> None:
    """Show the examples of answers whole, and whole numbers as such.

    FastAPI drops every null from its document, and a field that holds one with it; and it turns all
    bounds to floats, which some readers take for less exact than they are.
    """
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        _restore_integers(document["components"])
        _declare_keys(document, app.state.open_paths, wanted=app.state.has_keys)
        for model in _parts(ResponseModel):
            extra = model.model_config.get("json_schema_extra")
            shown = document["components"]["schemas"].get(model.__name__, {})
            if isinstance(extra, dict) and "examples" in shown:
                shown["examples"] = extra["examples"]
        return document

    app.openapi = openapi  # type: ignore[method-assign]
    _show_off_loop(app)


def _declare_keys(document: dict[str, Any], open_paths: frozenset[str], *, wanted: bool) -> None:
    """Say how a key is shown, and where it must be, on a server that has any."""
    scheme = {"type": "http", "scheme": "bearer", "description": "An API key of this server."}
    document["components"]["securitySchemes"] = {"bearer": scheme}
    if wanted:
        document["security"] = [{"bearer": []}]
        for path in open_paths & document["paths"].keys():
            for operation in document["paths"][path].values():
                operation["security"] = []


def _show_off_loop(app: FastAPI) -> None:
    """Make and write the document on a thread, once: it takes half a second."""

    @cache
    def written() -> bytes:
        return json.dumps(app.openapi(), ensure_ascii=False, separators=(",", ":")).encode()

    async def show(_request: Request) -> Response:
        return Response(await write_on_thread(written), media_type="application/json")

    routes = app.router.routes
    routes[:] = [one for one in routes if getattr(one, "path", None) != app.openapi_url]
    app.add_route(str(app.openapi_url), show, include_in_schema=False)


def _restore_integers(part: Any) -> None:
    if isinstance(part, list):
        for one in part:
            _restore_integers(one)
    if not isinstance(part, dict):
        return
    for key, value in part.items():
        if key in _BOUNDS and isinstance(value, float) and value.is_integer():
            part[key] = int(value)
        else:
            _restore_integers(value)


def _parts(base: type[ResponseModel]) -> Iterator[type[ResponseModel]]:
    for model in base.__subclasses__():
        yield model
        yield from _parts(model)
