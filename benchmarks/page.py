"""`make bench`: how long the page takes in Chromium, from a cold cache, on loopback.

Ready is when the form of the first view can be typed into; the page's own request to the model,
whose answer it shows next, is timed apart. Beside it the least that a browser needs: a page of the
same server that is one line of JSON.
"""

from __future__ import annotations

import shutil

from playwright.sync_api import Browser, sync_playwright

from benchmarks.server_process import running_server
from benchmarks.table import Table
from benchmarks.timing import percentile

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
LOADS = 20
"""Of each page in a run, in turns."""
MOST_MS = 300

_WATCH = """
const seen = {};
const look = () => {
  for (const [name, selector] of [["ready", ".candidate-text"], ["answered", ".ranking-row"]])
    if (!(name in seen) && document.querySelector(selector)) seen[name] = performance.now();
  window.seen = seen;
  requestAnimationFrame(look);
};
look();
"""


def run(runs: int) -> None:
    """Print the table; needs Chromium."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        print("\nno page is timed: Chromium is not installed")
        return
    times: dict[str, list[float]] = {"ready": [], "answered": [], "one line of JSON": []}
    with running_server() as port, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        url = f"http://127.0.0.1:{port}"
        for _ in range(1 + LOADS * runs):
            seen = _load(browser, f"{url}/playground", ".ranking-row")
            for name in ("ready", "answered"):
                times[name].append(seen[name])
            bare = _load(browser, f"{url}/health/live", "body")
            times["one line of JSON"].append(bare["loaded"])
        browser.close()
    table = Table(
        f"/playground in Chromium, {LOADS * runs} loads from a cold cache after one",
        *("until", "p50, ms", "p90, ms", "must be"),
    )
    for name, found in times.items():
        counted = found[1:]
        most = f"at most {MOST_MS}" if name == "ready" else ""
        table.row(name, *(f"{percentile(counted, part):.0f}" for part in (0.5, 0.9)), most)


def _load(browser: Browser, url: str, shown: str) -> dict[str, float]:
    """Milliseconds from the start of the navigation, by the browser's own clock."""
    context = browser.new_context()
    try:
        page = context.new_page()
        page.add_init_script(_WATCH)
        page.goto(url)
        page.locator(shown).first.wait_for()
        # The watcher looks once a frame.
        page.wait_for_timeout(50)
        entry = "performance.getEntriesByType('navigation')[0].loadEventEnd"
        return {"loaded": float(page.evaluate(entry)), **page.evaluate("window.seen ?? {}")}
    finally:
        context.close()
