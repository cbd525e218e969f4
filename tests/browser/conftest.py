"""Chromium, driven through the pages of a real server.

Playwright's own loop runs on the thread of the tests as long as it is open, and other tests want to
run theirs there: so it is opened and closed for each file.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from tests.browser.visit import Visit
from tests.end_to_end.live_server import LiveServer

Open = Callable[..., Visit]

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT_MS = 30_000


def find_chromium() -> str:
    """The system's browser. Without one the test is skipped, or fails where one is required."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None and os.environ.get("REQUIRE_BROWSER") == "1":
        pytest.fail("REQUIRE_BROWSER is set, and no Chromium is installed")
    if found is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for the tests of a file."""
    program = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit_of(browser: Browser) -> Iterator[Open]:
    """Opens a page of a server in a window of its own: ``visit_of(url, path, width=..., ...)``.

    At the end of the test no page has complained on its console or asked another host.
    """
    contexts: list[tuple[BrowserContext, Visit]] = []

    def visit(url: str, path: str = "/playground", **options: object) -> Visit:
        context = browser.new_context(**Visit.context_options(**options))
        context.set_default_timeout(TIMEOUT_MS)
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url)
        found = Visit(context.new_page(), url)
        contexts.append((context, found))
        found.open(path)
        return found

    yield visit
    complaints = [complaint for _, found in contexts for complaint in found.complaints()]
    for context, _ in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def visit(visit_of: Open, real_server: LiveServer) -> Open:
    """The same on the server of the default model: ``visit("/playground#score")``."""

    def of_the_default_model(path: str = "/playground", **options: object) -> Visit:
        return visit_of(real_server.url, path, **options)

    return of_the_default_model
