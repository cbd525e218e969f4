"""The view Decode: three searches side by side, what they missed, what they looked at."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Open
from tests.end_to_end.live_server import LiveServer

pytestmark = [pytest.mark.browser, pytest.mark.real_model, pytest.mark.process]

BODY = {
    "context": "The capital of France is",
    "compare": ["greedy", "beam", "exact"],
    "max_tokens": 6,
    "num_beams": 3,
}


def test_the_numbers_are_those_of_the_api(visit: Open, real_server: LiveServer) -> None:
    """Totals and search errors, and the certificate in words."""
    page = visit("/playground#decode").page
    answer = real_server.post("/v1/decode", BODY)
    expect(page.locator(".found")).to_have_count(3)
    for place, one in enumerate(answer["compared"]):
        found = page.locator(".found").nth(place)
        expect(found).to_contain_text(one["strategy"])
        expect(found).to_contain_text(f"{one['total']:.4f}".replace("-", "\N{MINUS SIGN}"))
        expect(found).to_contain_text(f"search error {one['search_error']:.4f}")
        expect(found.locator(".token")).to_have_count(len(one["sequence"]["token_ids"]))
    assert answer["certificate"]["optimal"] is True
    expect(page.locator(".certificate")).to_contain_text("Proven")
    missed = answer["compared"][0]["search_error"]
    expect(page.get_by_text(f"greedy missed {missed:.4f} nats")).to_be_visible()


def test_what_is_not_proven_is_said(visit: Open) -> None:
    """With the gap that is left."""
    page = visit("/playground#decode").page
    expect(page.locator(".certificate")).to_contain_text("Proven")
    page.get_by_label("Context").fill("Once upon a time, there was a")
    page.get_by_label("Tokens at most").fill("16")
    page.get_by_label("Expansions").fill("60")
    expect(page.locator(".certificate")).to_contain_text("Not proven")


def test_the_tree_is_walked_by_keys(visit: Open) -> None:
    """What was found is open; what was cut says why."""
    page = visit("/playground#decode").page
    tree = page.get_by_role("tree", name="Search tree of exact")
    items = tree.get_by_role("treeitem")
    items.first.focus()
    expect(items.first).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("ArrowLeft")
    expect(items.first).to_have_attribute("aria-expanded", "false")
    page.keyboard.press("ArrowRight")
    expect(items.first).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("ArrowRight")
    expect(items.nth(1)).to_be_focused()
    page.keyboard.press("End")
    expect(page.locator("[role=treeitem]:focus")).to_contain_text(
        "cut: could no longer be the best"
    )
    page.keyboard.press("Home")
    expect(items.first).to_be_focused()


def test_a_stream_shows_tokens_as_they_come(visit: Open, real_server: LiveServer) -> None:
    """And Stop ends it on the server, too."""
    found = visit("/playground#decode")
    # What is compared beside it may run out of its time before anything is found.
    found.expect_complaint("504")
    page = found.page
    expect(page.locator(".found")).to_have_count(3)
    # Exact search of thousands of tokens is not what is asked about here.
    page.get_by_label("Expansions").fill("1")
    page.get_by_label("Seconds").fill("0.2")
    page.get_by_label("Tokens at most").fill("2000")
    page.get_by_role("button", name="Stream greedy").click()
    tokens = page.locator(".streamed .token")
    expect(tokens.nth(3)).to_be_visible()
    expect(page.locator(".stream-state")).to_contain_text("Streaming")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".stream-state")).to_contain_text("Stopped")
    count = tokens.count()
    assert 4 <= count < 2000
    page.wait_for_function(
        "fetch('health').then((answer) => answer.json()).then(({queue}) => !queue.queued_requests)"
    )
    assert tokens.count() == count
