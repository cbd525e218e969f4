"""GET /: what there is."""

from __future__ import annotations

import re
from typing import Any, Final, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ConfigDict

from app import version
from app.errors.table import ERROR_RESPONSES
from app.http.json_response import dump_json_chunked
from app.routers.pages import DOCS_PATH, PLAYGROUND_PATH
from app.schemas.response import OmitNone, ResponseModel

_NEVER: Final = re.compile(r"q\s*=\s*0(\.0*)?")
"""How a client says that it does not take a kind (RFC 9110, section 12.4.2)."""

router = APIRouter(tags=["health"])

_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    307: {"description": "To a browser: where the page is"},
    **{status: ERROR_RESPONSES[status] for status in (401, 413, 500)},
}


class Index(ResponseModel):
    """The server's name and its routes."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "chainrule",
                    "version": "0.2.0",
                    "playground": PLAYGROUND_PATH,
                    "docs": DOCS_PATH,
                    "openapi": "/openapi.json",
                    "routes": ["POST /v1/score", "GET /v1/models"],
                }
            ]
        }
    )

    name: Literal["chainrule"] = "chainrule"
    version: str
    playground: OmitNone[str] = None
    """Where the page for people is; absent where the settings have none."""
    docs: str
    """Where the routes are documented, for people."""
    openapi: str
    """Where the document for programs is."""
    routes: list[str]
    """The method and path of each."""


@router.get("/", response_model=Index, summary="What there is", responses=_RESPONSES)
async def index(request: Request) -> Response:
    """The routes, as JSON; a browser, which takes ``text/html``, is sent to the playground, or to
    the documentation where there is none, behind the prefix that the server is told of, if any."""
    headers = {"Vary": "Accept"}
    app = request.app
    playground = PLAYGROUND_PATH if app.state.has_playground else None
    if _takes_html(request.headers.get("accept", "")):
        prefix = request.scope.get("root_path", "").rstrip("/")
        return RedirectResponse(f"{prefix}{playground or DOCS_PATH}", headers=headers)
    found = Index(
        version=version(),
        playground=playground,
        docs=DOCS_PATH,
        openapi=app.openapi_url,
        routes=app.state.routes,
    )
    return Response(dump_json_chunked(found), headers=headers, media_type="application/json")


def _takes_html(accept: str) -> bool:
    for part in accept.lower().split(","):
        kind, *parameters = (text.strip() for text in part.split(";"))
        if kind == "text/html" and not any(map(_NEVER.fullmatch, parameters)):
            return True
    return False
