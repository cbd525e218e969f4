"""What all views of the page share: tabs, links, copies, the key, a server that comes and goes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Literal

import pytest
from playwright.sync_api import Page, expect

from tests.app.stub_server import ServerProcess
from tests.browser.conftest import Open
from tests.conftest import TinyFolder
from tests.end_to_end.live_server import LiveServer

pytestmark = [pytest.mark.browser, pytest.mark.real_model, pytest.mark.process]

VIEWS = ("Score", "Next", "Decode", "Decide")
ANSWERED = {
    "Score": ".ranking-row:not(.ranking-head)",
    "Next": ".next-list li",
    "Decode": ".found",
    "Decide": ".decision",
}
"""What each view shows once it has an answer."""


def tab(page: Page, title: str) -> None:
    """Choose a view and wait for its first answer."""
    page.get_by_role("tab", name=title).click()
    expect(page.locator(ANSWERED[title]).first).to_be_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nobody_is_kept_out(visit: Open, theme: Literal["light", "dark"]) -> None:
    """axe-core finds no serious fault in any view, in the colours of either theme."""
    found = visit(theme=theme)
    for title in VIEWS:
        tab(found.page, title)
        assert found.serious_faults() == [], title


def test_a_telephone_is_wide_enough(visit: Open) -> None:
    """No view is wider than 360 pixels."""
    found = visit(width=360, height=740)
    for title in VIEWS:
        tab(found.page, title)
        assert found.overflow() == 0, title


def test_the_header_tells_the_model(visit: Open, real_server: LiveServer) -> None:
    """Its name, precision and fingerprint."""
    (card,) = real_server.client.get("/v1/models").json()["data"]
    model = visit().page.locator("#model")
    expect(model).to_contain_text(card["id"])
    expect(model).to_contain_text(card["dtype"])
    expect(model).to_contain_text(card["fingerprint"][:8])


def test_keys_reach_every_view(visit: Open) -> None:
    """Arrow keys go from tab to tab, around the end, and Tab leads into the view."""
    page = visit().page
    page.get_by_role("tab", name="Score").focus()
    for title in ("Next", "Decode", "Decide", "Score"):
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("tab", name=title)).to_be_focused()
        expect(page.get_by_role("tabpanel", name=title)).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("tab", name="Score")).not_to_be_focused()
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


def test_back_leads_to_the_view_before(visit: Open) -> None:
    """Views are entries of the browser's history."""
    page = visit().page
    tab(page, "Next")
    tab(page, "Decide")
    page.go_back()
    expect(page.get_by_role("tabpanel", name="Next")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("tabpanel", name="Score")).to_be_visible()
    page.go_forward()
    expect(page.get_by_role("tabpanel", name="Next")).to_be_visible()


def test_a_link_holds_all_of_it(visit: Open) -> None:
    """Whoever opens it sees what its sender saw, whatever script the texts are in."""
    found = visit("/playground#next")
    page = found.page
    page.get_by_label("Context").fill("Die Straße 日本語 \"'\\ is")
    expect(page.locator(".entropy")).not_to_have_text("1.4962")
    page.get_by_label("Tokens shown").fill("3")
    expect(page.locator(".next-list").first.locator("li")).to_have_count(3)
    texts = page.locator(".next-list").first.inner_text()
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator("#status")).to_contain_text("copied")
    other = visit(f"/playground{found.clipboard().split('/playground')[1]}").page
    expect(other.get_by_label("Context")).to_have_value("Die Straße 日本語 \"'\\ is")
    expect(other.locator(".next-list").first.locator("li")).to_have_count(3)
    assert other.locator(".next-list").first.inner_text() == texts


@pytest.mark.parametrize("link", ["#next=%%%", "#next=bm8", "#next=eyJ0b3Bfa", "#nothing"])
def test_a_damaged_link_says_so(visit: Open, link: str) -> None:
    """And the page is there all the same."""
    page = visit(f"/playground{link}").page
    expect(page.get_by_role("tab", selected=True)).to_be_visible()
    expect(page.locator("#model")).to_contain_text("smollm2")


def test_both_copies_ask_for_the_same(visit: Open, real_server: LiveServer) -> None:
    """As curl in a shell and as Python, whatever quotes the texts have."""
    found = visit("/playground#score")
    page = found.page
    context = 'It\'s "so" \\ $HOME `x` 日本 is'
    page.get_by_label("Context").fill(context)
    page.get_by_role("button", name="Score", exact=True).click()
    expect(page.locator("#status")).to_contain_text("scored")
    totals = []
    for name in ("Copy as curl", "Copy as Python"):
        page.get_by_role("button", name=name).click()
        expect(page.locator("#status")).to_contain_text("copied")
        command = ["sh", "-c"] if name.endswith("curl") else [sys.executable, "-c"]
        ran = subprocess.run([*command, found.clipboard()], capture_output=True, check=True)
        results = json.loads(ran.stdout)["results"]
        totals.append([one["logprob"] for one in results])
    candidates = page.evaluate("[...document.querySelectorAll('.candidate-text')].length")
    assert totals[0] == totals[1] and len(totals[0]) >= 3, candidates


Start = Callable[..., ServerProcess]


@pytest.fixture
def start(tiny_folder: TinyFolder) -> Iterator[Start]:
    """Starts servers of a tiny model, all of which are ended with the test."""
    started: list[ServerProcess] = []

    def start(load: str = "model", **settings: object) -> ServerProcess:
        model = {"model": str(tiny_folder("llama")), "kv_cache_bytes": "64MiB"}
        started.append(ServerProcess(load, **(model if load == "model" else {}), **settings))
        if load == "model":
            started[-1].await_line("ready")
        return started[-1]

    yield start
    for process in started:
        process.kill()


def test_a_key_is_asked_for_once(visit_of: Open, start: Start) -> None:
    """Kept in memory alone: in no link, no storage, no cookie; a wrong one is refused in words."""
    found = visit_of(start(api_keys="s3cret-key").url, "/playground#next")
    found.expect_complaint("status of 401")
    page = found.page
    dialog = page.get_by_role("dialog")
    for key in ("wrong", "s3cret-key"):
        dialog.get_by_label("API key").fill(key)
        dialog.get_by_role("button", name="Continue").click()
        if key == "wrong":
            expect(dialog).to_contain_text("refuses this key")
    expect(page.locator(".next-list li").first).to_be_visible()
    expect(dialog).to_have_count(0)
    tab(page, "Score")
    expect(dialog).to_have_count(0)
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.locator("#status")).to_contain_text("copied")
    assert "$CHAINRULE_API_KEY" in found.clipboard()
    kept = page.evaluate(
        "JSON.stringify([location.href, document.cookie, {...localStorage}, {...sessionStorage}])"
    )
    assert "s3cret" not in kept + found.clipboard()


def test_a_server_that_is_gone_is_waited_for(visit_of: Open, start: Start) -> None:
    """The page says so, and goes on by itself when one answers at the same address."""
    process = start()
    found = visit_of(process.url, "/playground#next")
    found.expect_complaint("ERR_|Failed to load resource")
    page = found.page
    expect(page.locator(".next-list li").first).to_be_visible()
    process.signal(signal.SIGKILL)
    process.exit_code()
    page.get_by_label("Context").fill("the end of it")
    expect(page.locator("#server")).to_contain_text("cannot be reached")
    start(port=process.address[1])
    expect(page.locator("#server")).to_be_hidden(timeout=20_000)
    expect(page.locator("#status")).to_contain_text("tokens in")


def test_a_server_that_loads_is_waited_for(visit_of: Open, start: Start) -> None:
    """In words."""
    found = visit_of(start("slow").url, "/playground#next")
    found.expect_complaint("status of 503")
    expect(found.page.locator("#server")).to_contain_text("being loaded")


def test_a_full_server_is_asked_again(visit: Open) -> None:
    """After the seconds that it has named."""
    found = visit("/playground#next")
    found.expect_complaint("status of 429")
    page = found.page
    expect(page.locator(".next-list li").first).to_be_visible()
    refusal = {"error": {"message": "full", "type": "x", "param": None, "code": "queue_full"}}
    page.route(
        "**/v1/next_token",
        lambda route: route.fulfill(
            status=429, headers={"Retry-After": "1"}, body=json.dumps(refusal)
        ),
        times=1,
    )
    page.get_by_label("Context").fill("Paris is")
    expect(page.locator("#server")).to_contain_text("again in 1 second")
    expect(page.locator("#server")).to_be_hidden()
    expect(page.locator("#status")).to_contain_text("tokens in")


def test_the_theme_can_be_chosen(visit: Open) -> None:
    """Whatever the system's is; the choice is kept."""
    page = visit(theme="light").page
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    button = page.get_by_role("button", name="Theme")
    button.click()
    assert page.evaluate(ground) == light
    button.click()
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == dark
