"""Compressed request bodies: read as if they had come plain, or refused, and never unbounded."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import httpx
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors.table import BodyTooLarge, MalformedEncoding, RequestRefused
from app.http import content_coding
from app.http.content_coding import CODINGS, MAX_ZSTD_WINDOW, ON_LOOP_BYTES, Decompressor
from app.http.json_body import LARGE_BODY
from tests.app.conftest import client_of, shell_app
from tests.app.http.middleware.test_middleware import until
from tests.app.stub_engine import StubEngine

pytestmark = pytest.mark.anyio

Compress = Callable[[bytes], bytes]
LIMIT = 3 * LARGE_BODY


def zstd_of_unknown_size(body: bytes) -> bytes:
    """As a client sends it that compresses while it writes."""
    compressor = zstandard.ZstdCompressor().compressobj()
    return compressor.compress(body) + compressor.flush()


def zstd_with_checksum(body: bytes) -> bytes:
    """Four bytes behind the frame's last block."""
    return zstandard.ZstdCompressor(level=19, write_checksum=True).compress(body)


COMPRESSED: dict[str, tuple[str, Compress]] = {
    "gzip": ("gzip", gzip.compress),
    "gzip, stored": ("GZIP", lambda body: gzip.compress(body, compresslevel=0)),
    "gzip, old name": ("x-gzip", gzip.compress),
    "zstd": ("zstd", zstandard.compress),
    "zstd, unknown size": ("zstd", zstd_of_unknown_size),
    "zstd, checksum": (" Zstd ", zstd_with_checksum),
}
"""Value of Content-Encoding, and what makes a body of it."""


def headers(coding: str) -> dict[str, str]:
    """Of a compressed body."""
    return {"Content-Type": "application/json", "Content-Encoding": coding}


async def in_parts(body: bytes, size: int) -> AsyncIterator[bytes]:
    """A body whose length is not declared."""
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def send(
    client: httpx.AsyncClient, way: str, body: bytes, path: str = "/work/x"
) -> httpx.Response:
    """Post a body, compressed."""
    coding, compress = COMPRESSED[way]
    return await client.post(path, content=compress(body), headers=headers(coding))


def body_of(length: int) -> bytes:
    """A body of so many bytes that hardly repeat."""
    text = "".join(f"{number} " for number in range(length // 4))
    return json.dumps({"candidates": [text[: length - 50]]}).encode().ljust(length)


async def test_a_compressed_body_is_what_it_was(engine: StubEngine) -> None:
    """Small and large, in one piece and in many, the answer is that to the plain body."""
    async with client_of(shell_app(engine, max_body_bytes=LIMIT + 1_000)) as client:
        for length in (100, 2_000, LARGE_BODY + 1, LIMIT):
            body = body_of(length)
            plain = await client.post("/work/x", content=body, headers=headers("identity"))
            assert plain.status_code == 200
            for way, (coding, compress) in COMPRESSED.items():
                whole = await send(client, way, body)
                parts = in_parts(compress(body), 5_000)
                piecewise = await client.post("/work/x", content=parts, headers=headers(coding))
                assert whole.content == piecewise.content == plain.content, (way, length)


@pytest.mark.parametrize("limit", [1_000, LARGE_BODY, LIMIT])
async def test_the_limit_is_exact_once_decompressed(engine: StubEngine, limit: int) -> None:
    """At the limit 200, one byte more 413, however little it was compressed."""
    async with client_of(shell_app(engine, max_body_bytes=limit)) as client:
        for way in COMPRESSED:
            fits = await send(client, way, b"{}".ljust(limit))
            longer = await send(client, way, b"{}".ljust(limit + 1))
            # What is stored is longer than what it becomes, and that is bounded as well.
            assert fits.status_code == (413 if way == "gzip, stored" else 200), way
            assert longer.status_code == 413, way
            assert longer.json()["error"]["code"] == "body_too_large"


@pytest.mark.parametrize("way", ["gzip", "zstd", "zstd, unknown size"])
async def test_a_bomb_takes_no_more_than_the_limit(way: str) -> None:
    """64 MiB that came as some kilobytes are given up at the limit."""
    coding, compress = COMPRESSED[way]
    bomb = compress(bytes(64 << 20))
    decompressor = Decompressor(LIMIT)
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge):
            await decompressor.run(CODINGS[coding.encode()], bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * LIMIT


@pytest.mark.parametrize("way", ["gzip", "zstd", "zstd, unknown size", "zstd, checksum"])
def test_what_is_cut_off_anywhere_is_refused(way: str) -> None:
    """A body that ends early is never taken for a shorter one."""
    coding, compress = COMPRESSED[way]
    decode = CODINGS[coding.strip().lower().encode()]
    whole = compress(body_of(500))
    assert decode(whole, LIMIT) == body_of(500)
    for length in range(len(whole)):
        with pytest.raises(MalformedEncoding):
            decode(whole[:length], LIMIT)


@settings(max_examples=60)
@given(st.sampled_from(sorted(CODINGS)), st.binary(max_size=200), st.integers(0, 300))
def test_garbage_is_refused_in_words(coding: bytes, garbage: bytes, place: int) -> None:
    """Bytes of no coding, and a body with some of them changed: its own content, or a refusal."""
    decode = CODINGS[coding]
    whole = bytearray((zstd_with_checksum if coding == b"zstd" else gzip.compress)(body_of(500)))
    whole[place : place + len(garbage)] = garbage
    for body in (garbage, bytes(whole)):
        with suppress(RequestRefused):
            assert decode(body, LIMIT) == body_of(500)


def bad_bodies() -> dict[str, tuple[str, bytes, int]]:
    """What is refused: its Content-Encoding, its bytes and the status."""
    plain = body_of(500)
    zipped, framed = gzip.compress(plain), zstandard.compress(plain)
    dictionary = b"\x28\xb5\x2f\xfd\x21\x05\x02\x11\0\0{}"  # its id is 5; then 2 bytes as they are
    wide = zstandard.ZstdCompressionParameters(window_log=24)
    compressor = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    broken = bytearray(zstd_with_checksum(plain))
    broken[-1] ^= 1
    return {
        "plain": ("gzip", plain, 400),
        "plain as zstd": ("zstd", plain, 400),
        "the other one": ("gzip", framed, 400),
        "nothing": ("gzip", b"", 400),
        "nothing as zstd": ("zstd", b"", 400),
        "of nothing": ("zstd", zstandard.compress(b""), 400),
        "of nothing, and more": ("zstd", zstandard.compress(b"") + framed, 400),
        "more behind": ("gzip", zipped + b"\n", 400),
        "more behind as zstd": ("zstd", framed + b"\n", 400),
        "more behind an unknown size": ("zstd", zstd_of_unknown_size(plain) + b"\n", 400),
        "two members": ("gzip", zipped + zipped, 400),
        "two frames": ("zstd", framed + framed, 400),
        "a frame to be skipped": ("zstd", b"\x50\x2a\x4d\x18\4\0\0\0null" + framed, 400),
        "raw deflate": ("gzip", zlib.compress(plain), 400),
        "a wrong checksum": ("zstd", bytes(broken), 400),
        "a wrong length": ("gzip", zipped[:-1] + b"\1", 400),
        "a window": ("zstd", compressor.compress(bytes(100)) + compressor.flush(), 415),
        "a dictionary": ("zstd", dictionary, 415),
        "deflate": ("deflate", zlib.compress(plain), 415),
        "brotli": ("br", plain, 415),
        "unheard of": ("aws-chunked", plain, 415),
        "twice": ("gzip, gzip", gzip.compress(zipped), 415),
        "gzip in zstd": ("gzip, zstd", zstandard.compress(zipped), 415),
    }


async def test_what_is_not_one_whole_body_is_refused(client: httpx.AsyncClient) -> None:
    """400 for what is not what it says, 415 for what is not read, with what would be."""
    for name, (coding, body, status) in bad_bodies().items():
        response = await client.post("/work/x", content=body, headers=headers(coding))
        assert response.status_code == status, (name, response.text)
        code = response.json()["error"]["code"]
        assert code == ("malformed_encoding" if status == 400 else "unsupported_media_type")
        accepted = None if status == 400 else "gzip, zstd"
        assert response.headers.get("Accept-Encoding") == accepted
    assert (await send(client, "zstd", b"{}")).status_code == 200


async def test_a_coding_that_is_named_twice_is_refused(client: httpx.AsyncClient) -> None:
    """Two headers are a list of two codings, whichever comes first."""
    given = [("Content-Type", "application/json"), *[("Content-Encoding", "gzip")] * 2]
    response = await client.post("/work/x", content=gzip.compress(b"{}"), headers=given)
    assert response.status_code == 415


def test_a_window_of_eight_mebibytes_is_read() -> None:
    """The widest that HTTP has."""
    wide = zstandard.ZstdCompressionParameters(window_log=23)
    assert MAX_ZSTD_WINDOW == 1 << 23
    compressor = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    body = compressor.compress(body_of(500)) + compressor.flush()
    assert CODINGS[b"zstd"](body, LIMIT) == body_of(500)


SHAPES = {
    "/v1/score": {"error"},
    "/v1/completions": {"error"},
    "/v1/decisions": {"error"},
    "/v1/systemone": {"error"},
    "/tokenize": {"error"},
    "/rerank": {"error", "error_type"},
    "/v1/rerank": {"message", "detail"},
    "/v2/rerank": {"message"},
}


async def test_every_route_reads_and_refuses_them(client: httpx.AsyncClient) -> None:
    """A body that says nothing known is refused by its content, and a broken one in that shape."""
    for path, keys in SHAPES.items():
        read = await send(client, "zstd", b'{"model": 5}', path)
        broken = await client.post(path, content=b"{}", headers=headers("zstd"))
        assert (read.status_code, broken.status_code) == (422, 400), path
        assert set(read.json()) == set(broken.json()) == keys


async def test_what_bodies_become_is_counted_among_those_in_flight(engine: StubEngine) -> None:
    """A few hundred bytes that become a large body need the room of a large one."""
    large = json.dumps({"seconds": 60}).encode().ljust(LIMIT)
    app = shell_app(engine, max_body_bytes=LIMIT, max_body_bytes_in_flight=LIMIT + 1_000)
    async with client_of(app) as client:
        running = asyncio.create_task(send(client, "zstd", large))
        await until(lambda: engine.working)
        full = await send(client, "gzip", b"{}".ljust(LIMIT))
        small = await send(client, "gzip", b"{}".ljust(LARGE_BODY))
        running.cancel()
        await asyncio.wait([running])
        free = await send(client, "gzip", b"{}".ljust(LIMIT))
    assert (full.status_code, small.status_code, free.status_code) == (429, 200, 200)
    assert full.json()["error"]["code"] == "too_many_body_bytes"


async def test_large_bodies_are_decompressed_beside_the_event_loop(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stays small is done at once; what grows, or may, on one of two threads."""
    threads: list[str] = []
    decode = CODINGS[b"gzip"]

    def watch(body: bytes, limit: int) -> bytes:
        threads.append(threading.current_thread().name)
        return decode(body, limit)

    monkeypatch.setitem(content_coding.CODINGS, b"gzip", watch)
    await send(client, "gzip", b"{}".ljust(ON_LOOP_BYTES))
    assert threads == ["MainThread"]
    threads.clear()
    await send(client, "gzip", b"{}".ljust(ON_LOOP_BYTES + 1))
    assert threads[0] == "MainThread" and threads[1].startswith("decompress")
    threads.clear()
    await send(client, "gzip", body_of(LIMIT))
    assert len(threads) == 1 and threads[0].startswith("decompress")
