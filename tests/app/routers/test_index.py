"""GET /: a page for browsers, a list for everybody else."""

from __future__ import annotations

import threading

import httpx
import pytest

from app import version
from app.main import create_app
from app.settings import Settings
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "*/*",
        "application/json",
        "text/plain, */*;q=0.1",
        "text/html;q=0",
        "application/json, TEXT/HTML; level=1; Q=0.000",
    ],
)
async def test_programs_get_a_list_of_routes(client: httpx.AsyncClient, accept: str | None) -> None:
    """Each of them with its method."""
    response = await client.get("/", headers={} if accept is None else {"Accept": accept})
    assert response.status_code == 200
    assert response.headers["Vary"] == "Accept"
    body = response.json()
    routes = body.pop("routes")
    assert body == {
        "name": "chainrule",
        "version": version(),
        "playground": "/playground",
        "docs": "/docs",
        "openapi": "/openapi.json",
    }
    assert {"POST /v1/score", "GET /v1/models/{name}", "POST /v2/rerank", "GET /"} <= set(routes)
    assert len(set(routes)) == len(routes)


async def test_every_route_that_is_listed_is_there(client: httpx.AsyncClient) -> None:
    """None of them is a 404 for want of a route."""
    document = create_app(Settings()).openapi()["paths"]
    listed = {tuple(one.split(" ", 1)) for one in (await client.get("/")).json()["routes"]}
    written = {(method.upper(), path) for path, item in document.items() for method in item}
    assert listed == written


@pytest.mark.parametrize("accept", [BROWSER, "text/html", "TEXT/HTML;q=0.9", "text/html;q=0.01"])
async def test_browsers_are_led_to_the_page(client: httpx.AsyncClient, accept: str) -> None:
    """By a relative address, whatever host the request names."""
    headers = {"Accept": accept, "Host": "elsewhere.test"}
    response = await client.get("/", headers=headers)
    assert (response.status_code, response.headers["Location"]) == (307, "/playground")
    assert response.headers["Vary"] == "Accept"
    page = await client.get(response.headers["Location"])
    assert page.headers["Content-Type"].startswith("text/html")


async def test_browsers_are_led_there_behind_a_prefix() -> None:
    """As where a proxy gives the server a part of its addresses."""
    transport = httpx.ASGITransport(shell_app(FakeEngine()), root_path="/models/small/")
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.get("/", headers={"Accept": BROWSER})
    assert response.headers["Location"] == "/models/small/playground"


async def test_without_a_page_they_are_led_to_the_documentation() -> None:
    """And programs are told of no page."""
    async with client_of(shell_app(FakeEngine(), playground=False)) as client:
        response = await client.get("/", headers={"Accept": BROWSER})
        assert response.headers["Location"] == "/docs"
        assert "playground" not in (await client.get("/")).json()


async def test_it_is_there_before_the_model_is() -> None:
    """As the documentation is."""
    async with client_of(shell_app(load=threading.Event().wait)) as client:
        assert (await client.get("/")).status_code == 200


async def test_it_wants_a_key_where_there_is_one() -> None:
    """It is no probe."""
    async with client_of(shell_app(FakeEngine(), api_keys=("k",))) as client:
        assert (await client.get("/")).status_code == 401
        headers = {"Authorization": "Bearer k"}
        assert (await client.get("/", headers=headers)).status_code == 200
