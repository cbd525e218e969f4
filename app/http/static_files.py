"""Files of the pages for people, read once and answered from memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Final

from fastapi import Request, Response

MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
"""Files of other kinds, licences say, are not served."""


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file.

    Attributes:
        content: its bytes.
        media_type: as the Content-Type header has it.
        etag: of its bytes, in quotes.
    """

    content: bytes
    media_type: str
    etag: str

    def answer(self, request: Request, headers: Mapping[str, str] | None = None) -> Response:
        """The file, or 304 to a client that has it already.

        A browser asks each time whether it still has the right one, so a page and its modules are
        always of one release.
        """
        fields = {
            "ETag": self.etag,
            "Cache-Control": "no-cache",
            "X-Content-Type-Options": "nosniff",
            **(headers or {}),
        }
        known = [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]
        if self.etag in known or f"W/{self.etag}" in known or "*" in known:
            return Response(status_code=304, headers=fields)
        return Response(self.content, media_type=self.media_type, headers=fields)


def read_static_files(folder: Traversable) -> dict[str, StaticFile]:
    """The files of a folder and of those in it, by their path from there. Reads all of them."""
    return {path: _read(file) for path, file in _files(folder, "")}


def _files(folder: Traversable, above: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files(entry, f"{above}{entry.name}/")
        elif _suffix(entry.name) in MEDIA_TYPES:
            yield f"{above}{entry.name}", entry


def _read(file: Traversable) -> StaticFile:
    content = file.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return StaticFile(content, MEDIA_TYPES[_suffix(file.name)], etag)


def _suffix(name: str) -> str:
    return name[name.rfind(".") :]
