"""The view Next: the numbers are the API's, and sliders ask for one thing at a time."""

from __future__ import annotations

import math

import pytest
from playwright.sync_api import Page, Request, expect

from tests.browser.conftest import Open
from tests.end_to_end.live_server import LiveServer

pytestmark = [pytest.mark.browser, pytest.mark.real_model, pytest.mark.process]

CONTEXT = "The capital of France is"
MINUS = "\N{MINUS SIGN}"


def rows(page: Page) -> list[list[str]]:
    """Rank, token, model's share, share at the temperature and log-prob of each token."""
    texts = page.locator(".next-list").first.locator("li").all()
    parts = (".rank", ".token-button", ".own", ".at-temperature", ".logprob")
    return [[row.locator(part).inner_text() for part in parts] for row in texts]


def move(page: Page, label: str, keys: str, times: int) -> None:
    """Move a slider by keys."""
    page.get_by_role("slider", name=label).focus()
    for _ in range(times):
        page.keyboard.press(keys)


def test_the_numbers_are_those_of_the_api(visit: Open, real_server: LiveServer) -> None:
    """Log-probabilities, ranks, the entropy and what is left."""
    page = visit("/playground#next").page
    answer = real_server.post("/v1/next_token", {"context": CONTEXT, "top_k": 10})
    expect(page.locator(".entropy")).to_have_text(f"{answer['entropy']:.4f}")
    shown = rows(page)
    for row, token in zip(shown, answer["tokens"], strict=True):
        assert row[0] == f"#{token['rank']}"
        assert row[1] == token["text"].replace(" ", "·")
        assert row[4] == f"{token['logprob']:.4f}".replace("-", MINUS)
        assert float(row[2].split(" ")[0]) == pytest.approx(100 * token["probability"], abs=0.06)
    left = page.locator(".remaining").inner_text().split(" ")[0]
    assert float(left) == pytest.approx(100 * answer["remaining_probability"], abs=0.06)


def test_the_models_own_numbers_stay(visit: Open, real_server: LiveServer) -> None:
    """A temperature changes what stands beside them, and top-p what is struck out."""
    page = visit("/playground#next").page
    expect(page.locator(".entropy")).to_be_visible()
    before = rows(page)
    move(page, "Temperature", "ArrowRight", 10)
    body = {"context": CONTEXT, "top_k": 10, "temperature": 1.5}
    want = real_server.post("/v1/next_token", body)["tokens"][0]["probability"]
    expect(page.locator(".at-temperature").first).to_have_text(f"{100 * want:.1f} %")
    after = rows(page)
    assert [(row[0], row[1], row[2], row[4]) for row in before] == [
        (row[0], row[1], row[2], row[4]) for row in after
    ]
    move(page, "Temperature", "ArrowLeft", 10)
    move(page, "Top-p", "ArrowLeft", 20)
    kept = real_server.post("/v1/next_token", {**body, "temperature": 1, "top_p": 0.8})["tokens"]
    expect(page.locator(".top-p-note")).to_contain_text(f"keeps {len(kept)} token")
    expect(page.locator(".next-list").first.locator("li:not(.is-cut)")).to_have_count(len(kept))


def test_a_slider_asks_for_one_thing_at_a_time(visit: Open) -> None:
    """However fast it moves; where it stops is what is shown in the end."""
    page = visit("/playground#next").page
    expect(page.locator(".entropy")).to_be_visible()
    flying, most, count = 0, 0, 0

    def begin(request: Request) -> None:
        nonlocal flying, most, count
        if request.url.endswith("/v1/next_token"):
            flying, count = flying + 1, count + 1
            most = max(most, flying)

    def end(request: Request) -> None:
        nonlocal flying
        if request.url.endswith("/v1/next_token"):
            flying -= 1

    page.on("request", begin)
    page.on("requestfinished", end)
    page.on("requestfailed", end)
    move(page, "Temperature", "ArrowRight", 30)
    expect(page.locator("output").first).to_have_text("2.50")
    expect(page.locator(".help", has_text="temperature 2.5")).to_be_visible()
    assert most == 1
    assert 1 <= count <= 31


def test_labels_are_told_whatever_their_rank(visit: Open, real_server: LiveServer) -> None:
    """One that is no token is refused at its field; the numbers before stay, faded."""
    found = visit("/playground#next")
    found.expect_complaint("status of 422")
    page = found.page
    page.get_by_label("Labels, one a line").fill(" London\n Paris")
    expect(page.get_by_role("list", name="Labels").locator("li")).to_have_count(2)
    body = {"context": CONTEXT, "labels": [" London", " Paris"]}
    chosen = real_server.post("/v1/next_token", body)["chosen"]
    ranks = page.get_by_role("list", name="Labels").locator(".rank").all_inner_texts()
    assert ranks == [f"#{token['rank']}" for token in chosen]
    page.get_by_label("Labels, one a line").fill(" London and Paris")
    expect(page.get_by_role("alert").filter(has_text="labels.0")).to_be_visible()
    expect(page.get_by_label("Labels, one a line")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Labels, one a line").fill("")
    expect(page.get_by_role("alert").filter(has_text="labels.0")).to_have_count(0)


def test_a_text_is_walked_through_by_keys(visit: Open) -> None:
    """A token is appended by Enter, and taken back."""
    page = visit("/playground#next").page
    first = page.locator(".next-list").first.get_by_role("button").first
    first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Context")).to_have_value(f"{CONTEXT} Paris")
    expect(page.locator(".next-list").first.get_by_role("button").first).to_have_text(".")
    back = page.get_by_role("button", name="Take the last token back")
    back.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Context")).to_have_value(CONTEXT)
    expect(back).to_be_hidden()


def test_the_entropy_is_said_in_bits_as_well(visit: Open, real_server: LiveServer) -> None:
    """Nats divided by the logarithm of 2."""
    page = visit("/playground#next").page
    entropy = real_server.post("/v1/next_token", {"context": CONTEXT})["entropy"]
    text = page.locator(".card", has_text="Entropy")
    expect(text).to_contain_text(f"{entropy / math.log(2):.2f} bits")
    expect(text).to_contain_text(f"{math.exp(entropy):.1f}")
