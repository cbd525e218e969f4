"""The view Score: its numbers are the API's, and it says why the winner changes."""

from __future__ import annotations

import base64
import json

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.conftest import Open
from tests.browser.visit import Visit
from tests.end_to_end.live_server import LiveServer

pytestmark = [pytest.mark.browser, pytest.mark.real_model, pytest.mark.process]

EXAMPLE = {
    "context": "The official name of Britain is",
    "candidates": [
        " England",
        " Britain",
        " the United Kingdom of Great Britain and Northern Ireland",
    ],
    "top_logprobs": 5,
}
LONG = 2
KINDS = {"sum": "logprob", "mean": "mean_logprob", "per_byte": "logprob_per_byte"}

COUNT_REQUESTS = """() => {
    const fetch = window.fetch;
    let running = 0;
    window.together = 0;
    window.fetch = async (...request) => {
        running += 1;
        window.together = Math.max(window.together, running);
        try { return await fetch(...request); } finally { running -= 1; }
    };
}"""
"""How many requests of the page have ever run at the same time."""


def link(**changed: object) -> str:
    """The page with what differs from the example."""
    content = base64.urlsafe_b64encode(json.dumps(changed).encode()).decode().rstrip("=")
    return f"/playground#score={content}"


def shown(value: float) -> str:
    """A log-probability as the page writes it."""
    return f"{value:.4f}".replace("-", "\N{MINUS SIGN}")


def exact(number: Locator) -> float:
    """All digits of a number of which the page shows a few."""
    return float((number.get_attribute("title") or "").split()[0])


def scored(visit: Visit, count: str) -> Page:
    """The page once an answer about so many candidates is shown."""
    expect(visit.page.locator("#status")).to_contain_text(f"{count} scored")
    return visit.page


def candidate(page: Page, number: int) -> Locator:
    """The field of a candidate, counted from 1."""
    return page.get_by_role("textbox", name=f"candidate {number}", exact=True)


def test_the_numbers_are_the_apis(visit: Open, real_server: LiveServer) -> None:
    page = scored(visit("/playground"), "3")
    answer = real_server.post("/v1/score", EXAMPLE)
    for one in answer["results"]:
        row = page.locator(f".ranking-row[data-index='{one['index']}']")
        assert exact(row.locator(".score")) == one["score"]
        assert exact(row.locator(".share")) == one["probability"]
        expect(row.get_by_role("button")).to_have_text(str(one["rank"]))
        for kind, name in KINDS.items():
            standing = page.locator(f"[data-kind={kind}] li[data-index='{one['index']}']")
            assert exact(standing.locator(".number")) == one[name]
        tokens = page.locator(f".token-card[data-index='{one['index']}'] .token-value")
        expect(tokens).to_have_text([shown(token["logprob"]) for token in one["tokens"]])
    assert exact(page.locator(".off-candidate-mass")) == answer["off_candidate_mass"]
    expect(page.locator(".boundary")).to_contain_text("nothing of the context is scored")


def test_a_longer_candidate_loses_on_the_sum_and_wins_on_the_mean(
    visit: Open, real_server: LiveServer
) -> None:
    page = scored(visit("/playground"), "3")
    results = real_server.post("/v1/score", EXAMPLE)["results"]
    winners = {}
    for kind, name in KINDS.items():
        best = max(results, key=lambda one: one[name])["index"]
        expect(page.locator(f"[data-kind={kind}] li.wins")).to_have_attribute(
            "data-index", str(best)
        )
        expect(page.locator(f"[data-kind={kind}] li").first).to_contain_text("wins")
        winners[kind] = best
    assert winners["sum"] != LONG == winners["mean"]
    said = page.locator(".explanation .changes")
    expect(said).to_contain_text("The winner changes with the normalization")
    expect(said).to_contain_text("has 9 tokens")
    expect(said).to_contain_text("each further token costs")
    for name in ("logprob", "mean_logprob"):
        expect(said).to_contain_text(shown(results[LONG][name]))
    blocks = page.locator(f"[data-kind=sum] li[data-index='{LONG}'] .bar-fill")
    expect(blocks).to_have_count(results[LONG]["token_count"])


def test_the_running_sums_are_plotted_and_are_a_table(visit: Open, real_server: LiveServer) -> None:
    page = scored(visit("/playground"), "3")
    expect(page.locator(".plot canvas")).to_be_visible()
    expect(page.locator(".cumulative")).to_contain_text("part at token 1")
    page.get_by_text("The same as a table").click()
    audit = real_server.post("/v1/audit", {k: EXAMPLE[k] for k in ("context", "candidates")})
    sums = [token["cumulative"] for token in audit["candidates"][LONG]["tokens"]]
    cells = page.locator(f".cumulative tbody td:nth-child({1 + 3 * (LONG + 1)})")
    expect(cells).to_have_text([shown(value) for value in sums])


def test_a_token_tells_all_of_itself_on_focus_and_hover(
    visit: Open, real_server: LiveServer
) -> None:
    page = scored(visit("/playground"), "3")
    audited = real_server.post("/v1/audit", {k: EXAMPLE[k] for k in ("context", "candidates")})
    token = audited["candidates"][LONG]["tokens"][1]
    detail = real_server.post("/v1/score", EXAMPLE)["results"][LONG]["tokens"][1]
    tokens = page.locator(f".token-card[data-index='{LONG}'] .token")
    page.get_by_role("radio", name="entropy").check()
    expect(tokens.nth(1)).to_contain_text(shown(token["entropy"]))
    tokens.first.focus()
    page.keyboard.press("ArrowRight")
    expect(tokens.nth(1)).to_be_focused()
    tip = page.get_by_role("tooltip")
    assert tokens.nth(1).get_attribute("aria-describedby") == tip.get_attribute("id")
    expect(tip).to_contain_text(f"rank{token['rank']}")
    for value in (token["logprob"], token["entropy"]):
        expect(tip).to_contain_text(f"{shown(value)} nats")
    for other in detail["top_logprobs"]:
        expect(tip.locator("ol")).to_contain_text(json.dumps(other["text"]))
        expect(tip.locator("ol")).to_contain_text(shown(other["logprob"]))
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    tokens.nth(3).hover()
    expect(tip).to_be_visible()
    expect(tip).to_contain_text('" of"')


def test_all_of_it_works_by_keyboard(visit: Open) -> None:
    page = scored(visit("/playground"), "3")
    page.get_by_role("tab", name="Score").focus()
    for _ in range(9):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "TEXTAREA":
            break
    expect(page.get_by_role("textbox", name="Context")).to_be_focused()
    page.keyboard.press("Tab")
    expect(candidate(page, 1)).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(candidate(page, 3)).to_be_focused()
    page.keyboard.type(" the UK")
    scored_four = page.locator("#status", has_text="4 scored")
    expect(scored_four).to_be_visible()
    expect(page.locator("[data-kind=sum]")).to_contain_text("·the UK")
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    page.keyboard.press("Backspace")
    expect(candidate(page, 2)).to_be_focused()
    expect(page.locator("#status")).to_contain_text("3 scored")
    first = page.locator(".open-tokens").first
    first.focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator(".open-tokens").nth(1)).to_be_focused()
    page.keyboard.press("Space")
    expect(page.locator(".open-tokens").nth(1)).to_have_attribute("aria-expanded", "false")
    expect(page.locator(".token-card")).to_have_count(2)


def test_a_link_holds_the_whole_state(visit: Open) -> None:
    one = visit("/playground")
    page = scored(one, "3")
    page.get_by_label("Normalization").select_option("pmi")
    page.get_by_label("Compared with", exact=True).fill("Answer:")
    page.get_by_role("radio", name="rank").check()
    candidate(page, 2).fill(" a\nb ")
    expect(page.locator("[data-kind=pmi]")).to_contain_text("·a↵b·")
    page.locator(".open-tokens").first.click()
    expect(page.locator(".token-card")).to_have_count(2)
    page.get_by_role("button", name="Copy link").click()
    copied = one.clipboard()
    other = scored(visit(copied[copied.index("/playground") :]), "3")
    expect(other.get_by_label("Normalization")).to_have_value("pmi")
    expect(candidate(other, 2)).to_have_value(" a\nb ")
    expect(other.get_by_role("radio", name="rank")).to_be_checked()
    expect(other.locator(".token-card")).to_have_count(2)
    for part in (".ranking", ".explanation", ".token-cards"):
        assert other.locator(part).inner_text() == page.locator(part).inner_text()


def test_a_thousand_candidates_are_rows_in_sight(visit: Open) -> None:
    one = visit(link(context="A number:", candidates=[" 1", " 2"]))
    page = scored(one, "2")
    lines = "\n".join(f" {number}" for number in range(1000))
    page.evaluate("(lines) => navigator.clipboard.writeText(lines)", lines)
    page.get_by_role("button", name="Remove all").click()
    page.keyboard.press("Control+V")
    scored(one, "1,000")
    rows = page.locator(".ranking").get_by_role("listitem")
    assert 10 <= rows.count() < 40
    assert page.locator(".candidate-editor").get_by_role("listitem").count() < 40
    expect(rows.first).to_have_attribute("aria-setsize", "1000")
    expect(page.locator(".token-card")).not_to_have_count(0)
    assert page.locator(".token-card").count() <= 3
    expect(page.locator(".prefix-of").first).to_contain_text("never loses to them on the sum")
    page.locator(".open-tokens").first.focus()
    page.keyboard.press("End")
    last = page.locator(".ranking [aria-posinset='1000'] button")
    expect(last).to_be_focused()
    expect(last).to_have_text("1000")
    before = page.locator(".token-card").count()
    page.keyboard.press("Enter")
    expect(page.locator(".token-card")).to_have_count(before + 1)
    expect(page.locator(".token-card").last.locator(".token")).not_to_have_count(0)
    assert rows.count() < 40


def test_answers_in_columns_are_read_as_results_are(visit: Open, real_server: LiveServer) -> None:
    page = scored(visit("/playground"), "3")
    body = {"context": "It is", "candidates": [" not", " a", "", " not"]}
    plain, compact = (
        page.evaluate(
            "async (answer) => (await import('./static/views/score_request.js')).resultsOf(answer)",
            real_server.post("/v1/score", {**body, **more}),
        )
        for more in ({}, {"compact": True})
    )
    assert [one["index"] for one in plain["ranked"]] == [one["index"] for one in compact["ranked"]]
    for mine, other in zip(compact["ranked"], plain["ranked"], strict=True):
        known = {name: value for name, value in mine.items() if value is not None}
        assert known.items() <= other.items()
    assert [one["index"] for one in compact["failed"]] == [2]
    assert compact["failed"][0]["error"]["message"] == plain["failed"][0]["error"]["message"]


def test_what_cannot_be_scored_says_so_at_its_field(visit: Open) -> None:
    one = visit(link(context="It is ", candidates=["Paris", "", "Paris", "Rome"]))
    page = scored(one, "3")
    expect(page.locator("#status")).to_contain_text("1 could not be")
    expect(candidate(page, 2)).to_have_attribute("aria-invalid", "true")
    expect(page.locator(".candidate", has=candidate(page, 2))).to_contain_text("is empty")
    expect(page.locator("[aria-invalid]")).to_have_count(1)
    # the equal ones are tied, and the context's blank is scored with them
    expect(page.locator(".ranking-row.tied .open-tokens")).to_have_text(["=2", "=2"])
    expect(page.locator(".boundary")).to_contain_text("1 byte")
    expect(page.locator(".token-card .of-context").first).to_have_text("·")
    expect(page.locator(".off-candidate-mass")).to_have_count(0)
    one.expect_complaint("422")
    page.get_by_label("Normalization").select_option("pmi")
    field = page.locator("[data-name=pmi_context]")
    expect(field.locator(".error")).to_contain_text("empty context")
    expect(page.locator(".stale")).to_be_visible()
    page.get_by_label("Compared with", exact=True).fill("N/A")
    expect(field.locator(".error")).to_have_count(0)
    expect(page.locator("[data-kind=pmi]")).to_be_visible()
    expect(page.locator(".stale")).to_be_hidden()


def test_playing_sends_one_request_at_a_time(visit: Open) -> None:
    one = visit("/playground")
    page = scored(one, "3")
    expect(page.locator(".token[aria-label*='unknown']")).to_have_count(0)
    page.evaluate(COUNT_REQUESTS)
    asked = len(one.requests)
    context = page.get_by_role("textbox", name="Context")
    context.press_sequentially(" known to be well", delay=5)
    for kind in ("mean", "gnmt", "per_char", "sum"):
        page.get_by_label("Normalization").select_option(kind)
        page.get_by_role("button", name="Score", exact=True).click()
    expect(page.locator(".boundary-text")).to_contain_text("known to be well")
    assert page.evaluate("window.together") == 1
    posts = [path for method, path in one.requests[asked:] if method == "POST"]
    assert posts.count("/v1/score") <= 6


def test_an_error_is_shown_where_its_field_is_folded_away(visit: Open) -> None:
    one = visit("/playground")
    page = scored(one, "3")
    one.expect_complaint("422")
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Temperature").fill("0")
    page.get_by_text("More", exact=True).click()
    field = page.locator("[data-name=temperature]")
    expect(field.locator(".error")).to_be_visible()
    expect(page.get_by_label("Temperature")).to_be_focused()


def test_warnings_stand_at_their_candidates(visit: Open) -> None:
    one = visit("/playground")
    page = scored(one, "3")

    def warned(route: Route) -> None:
        answer = route.fetch().json()
        said = [
            {"param": "candidates.1", "message": "odd one"},
            "candidates.0: no blank",
            "all odd",
        ]
        route.fulfill(json={**answer, "warnings": said})

    page.route("**/v1/score", warned)
    page.get_by_role("button", name="Score", exact=True).click()
    expect(page.locator(".candidate").nth(1)).to_contain_text("odd one")
    expect(page.locator(".candidate").nth(0)).to_contain_text("no blank")
    expect(candidate(page, 2)).to_have_accessible_description("odd one")
    expect(page.locator("[aria-invalid]")).to_have_count(0)
    expect(page.locator(".score-results > .warning:visible")).to_have_text("all odd")


def test_every_way_to_spell_a_candidate_has_bounds(visit: Open, real_server: LiveServer) -> None:
    asked = {"context": "It is", "candidates": [" not", " Paris"], "boundary": "marginal"}
    answer = real_server.post("/v1/score", {**asked, "max_expansions": 2})
    page = scored(visit(link(**asked, max_expansions="2")), "2")
    for one in answer["results"]:
        card = page.locator(f".token-card[data-index='{one['index']}']")
        for end in ("lower", "upper"):
            expect(card).to_contain_text(shown(one["marginal"][end]))
    expect(page.get_by_label("Token paths for each")).to_be_visible()
    expect(page.locator(".plot")).to_be_hidden()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_keeps_people_out(visit: Open, theme: str) -> None:
    one = visit(link(context="It is ", candidates=["Paris", "", "Rome", "Rome"]), theme=theme)
    page = scored(one, "3")
    expect(page.locator(".token").first).to_be_visible()
    page.locator(".token").first.focus()
    expect(page.get_by_role("tooltip")).to_be_visible()
    assert one.serious_faults() == []


def test_it_fits_a_telephone(visit: Open) -> None:
    one = visit("/playground", width=360, height=740)
    page = scored(one, "3")
    expect(page.locator(".plot canvas")).to_be_visible()
    page.get_by_text("The same as a table").click()
    assert one.overflow() == 0
    page.locator(".token").last.focus()
    expect(page.get_by_role("tooltip")).to_be_in_viewport(ratio=0.99)
    assert one.overflow() == 0


def test_what_may_not_be_meant_is_said_at_its_candidate(visit: Open) -> None:
    """A space that may be missing; and no more of it once it is there."""
    page = visit("/playground#score").page
    page.get_by_label("Context").fill("The capital of France is")
    first = page.locator(".candidate-text").first
    first.fill("Paris")
    row = page.locator(".candidate").first
    expect(row).to_contain_text("behind a space its first token would be 1,500 times as probable")
    first.fill(" Paris")
    expect(row).not_to_contain_text("behind a space")
