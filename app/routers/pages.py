"""GET /playground and the files of pages: for people, in a browser."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from app.http.static_files import read_static_files

PLAYGROUND_PATH: Final = "/playground"
STATIC_PATH: Final = "/static"

FILES: Final = read_static_files(files("app") / "static")

_HEADERS: Final = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data:",
            "font-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "Referrer-Policy": "no-referrer",
}
"""Nothing but this server's own files runs on the page or is asked by it."""

router = APIRouter(include_in_schema=False)


@router.get(PLAYGROUND_PATH)
async def playground(request: Request) -> Response:
    """The page, where the settings have it."""
    if not request.app.state.has_playground:
        raise HTTPException(404, "There is no page here: CHAINRULE_PLAYGROUND turns it on.")
    return FILES["playground.html"].answer(request, _HEADERS)


@router.get(STATIC_PATH + "/{path:path}")
async def static_file(request: Request, path: str) -> Response:
    """A script, a style sheet or a picture of a page."""
    found = FILES.get(path)
    if found is None or path.endswith(".html"):
        raise HTTPException(404, "There is no such file.")
    return found.answer(request)
