"""`make screenshots`: the pictures of the documentation, of the default model's server."""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.browser.conftest import PROGRAMS
from tests.browser.visit import Visit
from tests.end_to_end.live_server import live_server

DOCS = Path(__file__).parents[2] / "docs"
PICTURES = {
    "playground.png": ("#score", ".normalizations", 1240),
    "playground-next.png": ("#next", ".next-list", 620),
    "playground-decode.png": ("#decode", ".certificate", 1000),
    "playground-decide.png": ("#decide", ".orders", 900),
}
"""The view of each, what shows that it has an answer, and the height in CSS pixels."""

WIDTH = 1100
COLOURS = 64


def main() -> int:
    """Draw all of them."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        sys.stderr.write("no Chromium is installed: apt-get install chromium\n")
        return 1
    with live_server(kv_cache_bytes="512MiB") as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for name, (link, shown, height) in PICTURES.items():
            page = browser.new_page(**Visit.context_options(WIDTH, height))
            page.goto(f"{server.url}/playground{link}")
            page.locator(shown).first.wait_for()
            page.wait_for_timeout(1000)
            picture = Image.open(io.BytesIO(page.screenshot()))
            few = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
            few.save(DOCS / name, optimize=True)
            sys.stdout.write(f"{name}: {(DOCS / name).stat().st_size} bytes\n")
            page.close()
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
