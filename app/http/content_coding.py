"""Content codings of request bodies: which are read, and how they are undone within bounds.

A body is one gzip member or one zstd frame, and ends with it. Some readers stop at the end of the
first and some go on to the next; here both see the same, because what follows is refused.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

import zstandard
from starlette.types import Scope

from app.errors.table import BodyTooLarge, MalformedEncoding, UnsupportedEncoding
from app.requests.bounded_threads import BoundedThreads

MAX_ZSTD_WINDOW: Final = 8 << 20
"""Bytes that a frame may refer back to, which a reader holds: as RFC 9659 has it for HTTP."""

DECOMPRESSING_THREADS: Final = 2
"""Bodies that are decompressed at once beside the event loop. What they become is counted among the
bodies in flight when it is there, so these may exceed that bound, and only these."""

ON_LOOP_BYTES: Final = 65_536
"""What a body may be decompressed to on the event loop, which takes less than changing threads."""
ON_LOOP_RATIO: Final = 4
"""JSON is rarely compressed to less than that part of it. A body that is longer than it would be
then is not tried on the event loop, as it would have to be decompressed twice."""

Decode = Callable[[bytes, int], bytes]


def take_coding(scope: Scope) -> Decode | None:
    """How a request's body is undone. The header that says so is taken out of ``scope``: what is
    read there is not compressed any more.

    None where nothing is to be undone, and where the coding is not one of ``CODINGS`` alone: that
    header stays, for whoever reads the body to refuse it.
    """
    given = [value for name, value in scope["headers"] if name == b"content-encoding"]
    decode = CODINGS.get(given[0].strip().lower()) if len(given) == 1 else None
    if decode is not None:
        scope["headers"] = [one for one in scope["headers"] if one[0] != b"content-encoding"]
    return decode


class Decompressor:
    """Decompresses bodies, small ones at once and large ones beside the event loop.

    Args:
        limit: bytes that a body may become.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._threads = BoundedThreads(DECOMPRESSING_THREADS, "decompress")

    async def run(self, decode: Decode, body: bytes) -> bytes:
        """The body as its sender had it.

        Raises:
            BodyTooLarge: it becomes more than the limit.
            MalformedEncoding: it is not one whole body of that coding.
            UnsupportedEncoding: reading it takes more than there is: a window, a dictionary.
        """
        small = min(self._limit, ON_LOOP_BYTES)
        if len(body) <= small // ON_LOOP_RATIO:
            try:
                return decode(body, small)
            except BodyTooLarge:
                if small == self._limit:
                    raise
        return await self._threads.run(decode, body, self._limit)


def _gunzip(body: bytes, limit: int) -> bytes:
    member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        plain = member.decompress(body, limit + 1)
    except zlib.error:
        raise _not_one("gzip member") from None
    if len(plain) > limit:
        raise _too_large(limit)
    if not plain or not member.eof or member.unused_data:
        raise _not_one("gzip member")
    return plain


def _unzstd(body: bytes, limit: int) -> bytes:
    try:
        frame = zstandard.get_frame_parameters(body)
    except zstandard.ZstdError:
        raise _not_one("zstd frame") from None
    says_size = frame.content_size != zstandard.CONTENTSIZE_UNKNOWN
    if says_size and frame.content_size > limit:
        raise _too_large(limit)
    _require_little(frame)
    try:
        plain = (_unzstd_known if says_size else _unzstd_unknown)(body, limit)
    except zstandard.ZstdError:
        raise _not_one("zstd frame") from None
    if not plain:
        raise _not_one("zstd frame")
    return plain


def _unzstd_known(body: bytes, limit: int) -> bytes:
    """Of a size that the frame declares, beyond which nothing is read."""
    return _decompressor().decompress(body, max_output_size=limit, allow_extra_data=False)


def _unzstd_unknown(body: bytes, limit: int) -> bytes:
    """Of a size that shows when it is decompressed: once to measure it, then for good."""
    if len(_decompressor().stream_reader(body).read(limit + 1)) > limit:
        raise _too_large(limit)
    frame = _decompressor().decompressobj()
    plain = frame.decompress(body)
    if not frame.eof or frame.unused_data:
        raise _not_one("zstd frame")
    return plain


def _decompressor() -> zstandard.ZstdDecompressor:
    return zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW)


def _require_little(frame: zstandard.FrameParameters) -> None:
    if frame.dict_id:
        raise UnsupportedEncoding("The zstd body needs a dictionary; send it without one.")
    if frame.window_size > MAX_ZSTD_WINDOW:
        raise UnsupportedEncoding(
            f"The zstd body needs a window of {frame.window_size} bytes; "
            f"{MAX_ZSTD_WINDOW} are the most."
        )


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body is larger than {limit} bytes once decompressed.")


def _not_one(kind: str) -> MalformedEncoding:
    return MalformedEncoding(f"The request body is not one whole {kind} with something in it.")


CODINGS: Final[dict[bytes, Decode]] = {b"gzip": _gunzip, b"x-gzip": _gunzip, b"zstd": _unzstd}
"""What is read, by the names that ``Content-Encoding`` has for it."""
