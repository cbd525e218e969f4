"""The view Decide: probabilities, what order does to them, and errors at their question."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open
from tests.end_to_end.live_server import LiveServer

pytestmark = [pytest.mark.browser, pytest.mark.real_model, pytest.mark.process]

INPUT = "The package came two weeks late and the box was torn."
QUESTIONS: list[dict[str, Any]] = [
    {"type": "predicate", "instructions": "The delivery was late."},
    {
        "type": "choice",
        "instructions": "Which team should take this?",
        "choices": [{"value": "shipping"}, {"value": "billing"}, {"value": "support"}],
    },
    {
        "type": "score",
        "instructions": "How angry is the customer?",
        "levels": [{"label": "calm"}, {"label": "annoyed"}, {"label": "furious"}],
    },
]


def percents(page: Page, place: int) -> list[float]:
    """The shares that a question's bars show."""
    shown = page.locator(".decision").nth(place).locator(".share").all_inner_texts()
    return [float(text.split(" ")[0]) for text in shown]


def test_the_numbers_are_those_of_the_api(visit: Open, real_server: LiveServer) -> None:
    """Of every kind of question, with its range over the orders."""
    page = visit("/playground#decide").page
    expect(page.locator(".decision")).to_have_count(3)
    body = {"input": INPUT, "questions": QUESTIONS, "debias": "cyclic"}
    late, team, anger = real_server.post("/v1/decisions", body)["answers"]
    assert percents(page, 0) == pytest.approx([100 * late["probability"]], abs=0.06)
    for place, answer in ((1, team), (2, anger)):
        want = [100 * one["probability"] for one in answer["probabilities"]]
        assert percents(page, place) == pytest.approx(want, abs=0.06)
    expect(page.locator(".decision").nth(1).locator(".is-chosen .option")).to_have_text(
        team["choice"]
    )
    assert team["orders"]["flipped"] is True
    expect(page.locator(".decision").nth(1)).to_contain_text("flips when options trade places")
    lowest = team["orders"]["ranges"][0]["lowest"]
    bar = page.locator(".decision").nth(1).get_by_role("img").first
    expect(bar).to_have_attribute(
        "aria-label",
        f"shipping: {percents(page, 1)[0]:.1f} %, from {100 * lowest:.2f} % to 58.2 % by order",
    )


def test_without_orders_none_are_drawn(visit: Open, real_server: LiveServer) -> None:
    """The choice as it is asked once."""
    page = visit("/playground#decide").page
    expect(page.locator(".orders").first).to_be_visible()
    page.get_by_label("Option orders").select_option("none")
    expect(page.locator(".orders")).to_have_count(0)
    _, team, _ = real_server.post("/v1/decisions", {"input": INPUT, "questions": QUESTIONS})[
        "answers"
    ]
    expect(page.locator(".is-chosen .option")).to_have_text(team["choice"])


def test_questions_are_written_by_keys(visit: Open) -> None:
    """Added, of another type, and removed."""
    page = visit("/playground#decide").page
    expect(page.locator(".decision")).to_have_count(3)
    add = page.get_by_role("button", name="Add a question")
    add.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Question 4").first).to_be_focused()
    expect(page.locator(".decision")).to_have_count(4)
    remove = page.get_by_role("button", name="Remove question 4")
    remove.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".decision")).to_have_count(3)


def test_an_error_is_shown_at_its_question(visit: Open) -> None:
    """And gone when it is mended."""
    found = visit("/playground#decide")
    found.expect_complaint("status of 422")
    page = found.page
    options = page.locator("[data-name='questions.1'] textarea").nth(1)
    options.fill("same\nsame")
    error = page.locator("[data-name='questions.1'] .error")
    expect(error).to_contain_text("questions.1")
    options.fill("same\nother")
    expect(error).to_have_count(0)
    expect(page.locator(".decision").nth(1).locator(".option").last).to_have_text("other")
