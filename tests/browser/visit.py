"""A page in a browser, watched: what it says on its console, whom it asks, whom it keeps out."""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ConsoleMessage, Page, Request

SERIOUS = ("serious", "critical")


class Visit:
    """One window.

    Attributes:
        page: Playwright's, for all that is done in it.
        requests: (method, path) of every request to the server so far.
    """

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.requests: list[tuple[str, str]] = []
        self._url = url
        self._complaints: list[str] = []
        self._expected: list[re.Pattern[str]] = []
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self._complaints.append(f"exception: {error}"))
        page.on("request", self._on_request)

    @staticmethod
    def context_options(
        width: int = 1200, height: int = 900, theme: Literal["light", "dark"] = "light"
    ) -> dict[str, Any]:
        """Of a browser's context: its size in CSS pixels and the system's theme."""
        return {"viewport": {"width": width, "height": height}, "color_scheme": theme}

    def open(self, path: str) -> None:
        """Go to a path of the server, fragment and all."""
        self.page.goto(self._url + path)

    def expect_complaint(self, pattern: str) -> None:
        """The browser itself complains of a refused request: of this one it may."""
        self._expected.append(re.compile(pattern))

    def complaints(self) -> list[str]:
        """Errors and warnings that nobody expected, and requests to other hosts."""
        return [
            one for one in self._complaints if not any(want.search(one) for want in self._expected)
        ]

    def serious_faults(self) -> list[str]:
        """What axe-core finds that keeps people out, a line each."""
        found = Axe().run(self.page).response["violations"]
        return [
            f"{fault['id']}: {fault['help']}: {node['html'][:200]}"
            for fault in found
            if fault["impact"] in SERIOUS
            for node in fault["nodes"]
        ]

    def overflow(self) -> int:
        """By how many CSS pixels the page is wider than its window."""
        width = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.page.evaluate(width))

    def clipboard(self) -> str:
        """What was copied last."""
        return str(self.page.evaluate("navigator.clipboard.readText()"))

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._complaints.append(f"{message.type}: {message.text}")

    def _on_request(self, request: Request) -> None:
        where = urlsplit(request.url)
        if where.scheme in ("data", "blob"):
            return
        if f"{where.scheme}://{where.netloc}" != self._url:
            self._complaints.append(f"another host was asked: {request.url}")
        self.requests.append((request.method, where.path))
