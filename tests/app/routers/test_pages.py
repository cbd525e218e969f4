"""GET /playground and /static/...: the page and its files, for everybody, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

import app
from app.routers.pages import FILES
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio

FOLDER = Path(app.__file__).with_name("static")
MAX_BYTES = 250_000
OWN = sorted(path for path in FILES if not path.startswith("vendor/"))
OF_THE_PLAYGROUND = [path for path in FILES if not path.startswith(("vendor/swagger-ui", "docs."))]
IMPORT = re.compile(r"""(?:from|import)\s*\(?\s*["'](\.[^"']+)["']""")


async def test_the_page_is_answered_with_its_policy(client: httpx.AsyncClient) -> None:
    """No script, style or address of another place, and none inside the page."""
    response = await client.get("/playground")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", response.text)


@pytest.mark.parametrize("path", sorted(path for path in FILES if not path.endswith(".html")))
async def test_each_file_is_answered(client: httpx.AsyncClient, path: str) -> None:
    """As it lies in the package, and not again to who has it."""
    response = await client.get(f"/static/{path}")
    assert (response.status_code, response.content) == (200, (FOLDER / path).read_bytes())
    tag = {"If-None-Match": response.headers["ETag"]}
    assert (await client.get(f"/static/{path}", headers=tag)).status_code == 304


@pytest.mark.parametrize(
    "path",
    ["", "nothing.js", "playground.html", "../main.py", "%2e%2e/main.py", "views", "vendor/"],
)
async def test_nothing_else_is(client: httpx.AsyncClient, path: str) -> None:
    """No file beside them, and a page without its policy neither."""
    assert (await client.get(f"/static/{path}")).status_code == 404


async def test_a_key_is_needed_for_what_the_page_asks_alone() -> None:
    """The page asks for the key itself."""
    async with client_of(shell_app(FakeEngine(), api_keys=("k",))) as client:
        assert (await client.get("/playground")).status_code == 200
        assert (await client.get("/static/main.js")).status_code == 200
        assert (await client.get("/docs")).status_code == 200
        for path in ("/v1/models", "/playground/", "/static", "/Static/main.js", "/openapi.json"):
            assert (await client.get(path)).status_code == 401, path


async def test_the_documentation_has_a_policy_too(client: httpx.AsyncClient) -> None:
    """No script of another place or inside the page; Swagger UI writes style attributes."""
    response = await client.get("/docs")
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy
    assert "connect-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", response.text)


async def test_a_setting_turns_it_off() -> None:
    """And says so."""
    async with client_of(shell_app(FakeEngine(), playground=False)) as client:
        response = await client.get("/playground")
        assert (await client.get("/docs")).status_code == 200
    assert response.status_code == 404
    assert "CHAINRULE_PLAYGROUND" in response.json()["error"]["message"]


def test_all_of_the_page_is_small() -> None:
    """Uncompressed, what is fetched at the first plot included."""
    assert sum(len(FILES[path].content) for path in OF_THE_PLAYGROUND) <= MAX_BYTES


@pytest.mark.parametrize("path", [path for path in OWN if path.endswith(".js")])
def test_every_import_leads_to_a_file(path: str) -> None:
    """Modules find each other by relative addresses."""
    text = FILES[path].content.decode()
    for address in IMPORT.findall(text):
        found = (FOLDER / path).parent.joinpath(address).resolve()
        assert found.relative_to(FOLDER.resolve()).as_posix() in FILES, address


FIRST_VIEW = ("main.js", "views/score.js", "views/score_results.js")
"""What the page imports, and what its first view does behind its form."""


def test_all_of_the_first_view_is_fetched_at_once() -> None:
    """The page names each module that will be imported, and no other, so that none waits for one
    that imports it."""
    found: set[str] = set()

    def follow(path: str) -> None:
        if path not in found:
            found.add(path)
            text = FILES[path].content.decode()
            for address in re.findall(
                r"""^(?:import|\}) [^;]*?from ["'](\.[^"']+)["']""", text, re.M
            ):
                place = (FOLDER / path).parent.joinpath(address).resolve()
                follow(place.relative_to(FOLDER.resolve()).as_posix())

    for path in FIRST_VIEW:
        follow(path)
    page = FILES["playground.html"].content.decode()
    named = re.findall(r'rel="modulepreload" href="static/([^"]+)"', page)
    assert sorted(["main.js", *named]) == sorted(found)


@pytest.mark.parametrize("path", OWN)
def test_no_file_names_another_host(path: str) -> None:
    """But for the names of XML's vocabularies, which nobody fetches."""
    text = FILES[path].content.decode() if not path.endswith(".png") else ""
    hosts = set(re.findall(r"https?://([\w.-]+)", text))
    assert hosts <= {"www.w3.org", "localhost", "127.0.0.1"}


@pytest.mark.parametrize("path", OWN)
def test_every_file_can_be_read_at_a_sitting(path: str) -> None:
    """As those in Python."""
    assert path.endswith(".png") or FILES[path].content.count(b"\n") <= 400
