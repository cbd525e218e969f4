"""Files of pages: read once, of known kinds, asked for again only when they have changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.requests import Request

from app.http.static_files import StaticFile, read_static_files


@pytest.fixture
def found(tmp_path: Path) -> dict[str, StaticFile]:
    """Those of a folder with one below it."""
    (tmp_path / "views").mkdir()
    (tmp_path / "page.html").write_text("<p>ä</p>")
    (tmp_path / "views" / "one.js").write_text("export {};")
    (tmp_path / "views" / "LICENSE").write_text("free")
    return read_static_files(tmp_path)


def asked(**headers: str) -> Request:
    """A request with these headers."""
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw})


def test_files_of_known_kinds_are_found(found: dict[str, StaticFile]) -> None:
    """By their paths; what is no part of a page is not."""
    assert set(found) == {"page.html", "views/one.js"}
    assert found["page.html"].content == "<p>ä</p>".encode()
    assert found["page.html"].media_type == "text/html; charset=utf-8"
    assert found["views/one.js"].media_type == "text/javascript; charset=utf-8"


def test_a_file_is_answered_whole(found: dict[str, StaticFile]) -> None:
    """With what a browser needs to keep it."""
    response = found["page.html"].answer(asked(), {"X-More": "yes"})
    assert (response.status_code, response.body) == (200, "<p>ä</p>".encode())
    assert response.headers["ETag"] == found["page.html"].etag
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["X-More"] == "yes"


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
def test_a_client_that_has_it_gets_no_body(found: dict[str, StaticFile], form: str) -> None:
    """A weak tag counts: proxies that compress make it weak (RFC 9110, section 13.1.2)."""
    file = found["page.html"]
    response = file.answer(asked(if_none_match=form.format(file.etag)))
    assert (response.status_code, response.body) == (304, b"")
    assert response.headers["ETag"] == file.etag


def test_other_files_have_other_tags(found: dict[str, StaticFile]) -> None:
    """And a client that has another one gets this one."""
    page, script = found["page.html"], found["views/one.js"]
    assert page.etag != script.etag
    assert page.answer(asked(if_none_match=script.etag)).status_code == 200
