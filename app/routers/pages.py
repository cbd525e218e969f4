"""GET /playground, GET /docs and the files of both: for people, in a browser."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from app.http.static_files import read_static_files

PLAYGROUND_PATH: Final = "/playground"
DOCS_PATH: Final = "/docs"
STATIC_PATH: Final = "/static"

FILES: Final = read_static_files(files("app") / "static")


def _headers(*more: str) -> dict[str, str]:
    """Nothing but this server's own files runs on a page or is asked by it."""
    policy = (
        "default-src 'none'",
        "script-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        *more,
    )
    return {"Content-Security-Policy": "; ".join(policy), "Referrer-Policy": "no-referrer"}


_PLAYGROUND_HEADERS: Final = _headers("style-src 'self'")
# Swagger UI writes style attributes.
_DOCS_HEADERS: Final = _headers("style-src 'self' 'unsafe-inline'")

router = APIRouter(include_in_schema=False)


@router.get(PLAYGROUND_PATH)
async def playground(request: Request) -> Response:
    """The page, where the settings have it."""
    if not request.app.state.has_playground:
        raise HTTPException(404, "There is no page here: CHAINRULE_PLAYGROUND turns it on.")
    return FILES["playground.html"].answer(request, _PLAYGROUND_HEADERS)


@router.get(DOCS_PATH)
async def docs(request: Request) -> Response:
    """The page about the routes, which asks for the document with the key, if there is one."""
    return FILES["docs.html"].answer(request, _DOCS_HEADERS)


@router.get(STATIC_PATH + "/{path:path}")
async def static_file(request: Request, path: str) -> Response:
    """A script, a style sheet or a picture of a page."""
    found = FILES.get(path)
    if found is None or path.endswith(".html"):
        raise HTTPException(404, "There is no such file.")
    return found.answer(request)
