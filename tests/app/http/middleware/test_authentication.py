"""Deny by default: what opens a server with keys, and what does not."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator
from types import SimpleNamespace

import httpx
import pytest

from app.http.middleware import authentication as auth
from tests.app.conftest import client_of, shell_app
from tests.app.routers.test_routes import ROUTES
from tests.app.stub_engine import StubEngine

pytestmark = pytest.mark.anyio

KEYS = "first-key, sécond-key"
OPEN = ("/health", "/health/live", "/health/ready", "/playground", "/docs", "/static/{path:path}")


def bearer(key: bytes) -> dict[bytes, bytes]:
    """The header that carries a key."""
    return {b"Authorization": b"Bearer " + key}


@pytest.fixture
async def guarded(engine: StubEngine, anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app with two keys."""
    async with client_of(shell_app(engine, api_keys=KEYS)) as client:
        yield client


@pytest.mark.parametrize("key", [b"first-key", "sécond-key".encode()])
async def test_any_of_the_keys_opens(guarded: httpx.AsyncClient, key: bytes) -> None:
    """Several keys hold at once, so that one can be replaced while both are in use."""
    assert (await guarded.post("/work/x", json={}, headers=bearer(key))).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer(b""),
        bearer(b"wrong-key"),
        bearer(b"first-ke"),
        bearer(b"first-key1"),
        bearer(b"FIRST-KEY"),
        bearer(b"first-key, first-key"),
        bearer(b"k" * 60_000),
        bearer("ключ".encode()),
        bearer(b"\xff\xfe\x00"),
        {b"Authorization": b"first-key"},
        {b"Authorization": b"Basic first-key"},
        {b"Authorization": b"Bearerfirst-key"},
        {b"X-Api-Key": b"first-key"},
    ],
    ids=lambda headers: repr(headers)[:40],
)
async def test_any_other_key_is_401(
    guarded: httpx.AsyncClient, headers: dict[bytes, bytes]
) -> None:
    """Missing, wrong, cut short, very long, not ASCII: the same 401, in the one shape."""
    response = await guarded.post("/work/x", json={}, headers=list(headers.items()))
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.json()["error"]["code"] == "invalid_api_key"


async def test_two_keys_in_one_request_are_401(guarded: httpx.AsyncClient) -> None:
    """Which header counts is not left to whoever reads first."""
    twice = [*bearer(b"first-key").items(), *bearer(b"wrong").items()]
    assert (await guarded.post("/work/x", json={}, headers=twice)).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer(b"wrong-key"),
        bearer(b"first-ke"),
        bearer(b"k" * 60_000),
        bearer("ключ".encode()),
    ],
    ids=["none", "wrong", "a prefix", "very long", "not ASCII"],
)
async def test_everything_but_health_needs_the_key(
    guarded: httpx.AsyncClient, headers: dict[bytes, bytes]
) -> None:
    """The whole route table is shut, the documentation, metrics and unknown paths too."""
    for method, path in [*ROUTES, ("GET", "/no"), ("POST", "/no")]:
        response = await guarded.request(method, path, headers=list(headers.items()))
        assert (response.status_code == 401) is (path not in OPEN), path


async def test_every_key_is_compared_in_constant_time(
    guarded: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever key is right, or none: all are compared, as digests of one length."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(auth, "hmac", SimpleNamespace(compare_digest=compare))
    for key in (b"first-key", "sécond-key".encode(), b"f", b"k" * 60_000):
        compared.clear()
        await guarded.post("/work/x", json={}, headers=bearer(key))
        assert len(compared) == 2
        assert {len(digest) for pair in compared for digest in pair} == {32}


@pytest.mark.parametrize(
    "path",
    ["//health", "/health/", "/health/../work/x", "/health/%2e%2e/work/x", "/Health", "/health%2f"],
)
async def test_no_other_spelling_of_health_opens(guarded: httpx.AsyncClient, path: str) -> None:
    """Only the three paths themselves are answered without a key."""
    request = guarded.build_request("GET", "http://test")
    request.url = httpx.URL("http://test").copy_with(raw_path=path.encode())
    assert (await guarded.send(request)).status_code == 401


async def test_without_keys_everybody_may_pass(client: httpx.AsyncClient) -> None:
    """On loopback the server works as it comes, and ignores a key it did not ask for."""
    assert (await client.post("/work/x", json={})).status_code == 200
    assert (await client.post("/work/x", json={}, headers=bearer(b"any"))).status_code == 200
