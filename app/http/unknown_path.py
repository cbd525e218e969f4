"""What is said of a path at which there is nothing: the one that was meant, where that is clear."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

_NOTHING: Final = "There is nothing at this path"
_BASES: Final = ("/v1", "/v2")


class UnknownPath:
    """Answers 404 for what no route takes; what asks is never repeated.

    Args:
        methods: of each path that is written as it stands, without parameters and in lower case.
        inner: what answers where it is no request.
    """

    def __init__(self, methods: Mapping[str, Sequence[str]], inner: ASGIApp) -> None:
        self._methods = methods
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        raise HTTPException(404, self._advice(scope["path"]))

    def _advice(self, path: str) -> str:
        for near in _near(path):
            if near in self._methods:
                return unknown_path_message("/".join(self._methods[near]), near)
            if near in _BASES:
                return (
                    f"{_NOTHING} itself: it is where others begin, as in POST /v1/score and "
                    "POST /v2/rerank; GET / lists them."
                )
        return f"{_NOTHING}; see /docs."


def unknown_path_message(method: str, path: str) -> str:
    """What to do instead."""
    return f"{_NOTHING}; you may mean {method} {path}."


def _near(path: str) -> Iterator[str]:
    """Paths that this may be a slip for, the nearest first: slashes that are too many, capitals,
    the ``/v1`` of a client's base address twice, missing, or where there is none, and what another
    server has before it, as in ``/openai/v1``."""
    plain = re.sub("/+", "/", path).rstrip("/").lower()
    yield plain
    yield plain.removeprefix("/v1")
    yield f"/v1{plain}"
    for version in _BASES:
        before, found, behind = f"{plain}/".rpartition(f"{version}/")
        if before and found:
            yield f"{version}/{behind}".rstrip("/")
    bare = plain.removeprefix("/openai")
    yield bare
    yield f"/v1{bare}"
