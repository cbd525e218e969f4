"""No request whose head a proxy in front of us may have read in another way."""

from __future__ import annotations

import re
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors.table import MalformedHttp, error_response

_HOST: Final = re.compile(rb"(\[[0-9A-Fa-f:.]+(%25[\w.~-]+)?\]|[\w.~%!$&'()*+,;=-]*)(:[0-9]*)?")
"""A name or an address, with or without a port (RFC 9110, section 7.2), or a zone (RFC 6874)."""


class PlainHead:
    """Answers 400 and ends the connection where two readers could disagree.

    The HTTP parser has refused most of it: two lengths, a length that is no number, two hosts,
    unknown transfer codings. It lets pass a body that is framed in two ways, of which two readers
    may take a different one (RFC 9112, section 6.1), and a host that is none.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = _fault(scope) if scope["type"] == "http" else None
        if fault is None:
            await self._app(scope, receive, send)
        else:
            await error_response(MalformedHttp(fault), scope["path"])(scope, receive, send)


def _fault(scope: Scope) -> str | None:
    headers = dict(scope["headers"])
    if b"transfer-encoding" in headers:
        if b"content-length" in headers:
            return "Send either Content-Length or Transfer-Encoding."
        if scope["http_version"] == "1.0":
            return "HTTP/1.0 has no Transfer-Encoding."
    if not _HOST.fullmatch(headers.get(b"host", b"")):
        return "The Host header names no host."
    return None
