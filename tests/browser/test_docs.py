"""The page about the routes: everything on it comes from this server, and its examples run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.app.stub_server import ServerProcess
from tests.browser.conftest import Open
from tests.conftest import TinyFolder
from tests.end_to_end.live_server import LiveServer

pytestmark = [pytest.mark.browser, pytest.mark.real_model, pytest.mark.process]


def test_all_routes_are_shown(visit: Open, real_server: LiveServer) -> None:
    """Each operation of the document, without another host."""
    found = visit("/docs")
    document = real_server.client.get("/openapi.json").json()
    count = sum(len(operations) for operations in document["paths"].values())
    expect(found.page.locator(".opblock")).to_have_count(count)
    assert found.overflow() == 0


def test_an_example_runs(visit: Open) -> None:
    """With the button that is there for it."""
    page = visit("/docs").page
    score = page.locator(".opblock", has=page.get_by_text("/v1/score", exact=True)).first
    score.locator(".opblock-summary-control").click()
    score.get_by_role("button", name="Execute").click()
    expect(score.locator(".live-responses-table .response-col_status").last).to_contain_text("200")
    expect(score.locator(".live-responses-table")).to_contain_text("logprob")


SWAGGER_UIS_OWN = {"color-contrast", "nested-interactive", "select-name"}
"""Kinds of serious faults that axe-core finds in what its makers draw."""


def test_no_fault_but_swagger_uis_own_keeps_people_out(visit: Open) -> None:
    """Of what is ours on that page: its title, its language, the server's state, the dialog."""
    found = visit("/docs")
    expect(found.page.locator(".opblock").first).to_be_visible()
    assert {fault.partition(":")[0] for fault in found.serious_faults()} <= SWAGGER_UIS_OWN


def test_a_telephone_is_wide_enough(visit: Open) -> None:
    """Also with a route opened."""
    found = visit("/docs", width=360, height=740)
    page = found.page
    score = page.locator(".opblock", has=page.get_by_text("/v1/score", exact=True)).first
    score.locator(".opblock-summary-control").click()
    expect(score.get_by_role("button", name="Execute")).to_be_visible()
    assert found.overflow() == 0


@pytest.fixture
def guarded(tiny_folder: TinyFolder) -> Iterator[ServerProcess]:
    """A tiny model behind a key."""
    process = ServerProcess(
        "model", model=str(tiny_folder("llama")), kv_cache_bytes="64MiB", api_keys="s3cret-key"
    )
    try:
        process.await_line("ready")
        yield process
    finally:
        process.kill()


def test_a_key_opens_the_document_and_the_routes(visit_of: Open, guarded: ServerProcess) -> None:
    """It is asked for once."""
    found = visit_of(guarded.url, "/docs")
    found.expect_complaint("status of 401")
    page = found.page
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("API key").fill("s3cret-key")
    dialog.get_by_role("button", name="Continue").click()
    models = page.locator(".opblock", has=page.get_by_text("/v1/models", exact=True)).first
    models.locator(".opblock-summary-control").click()
    models.get_by_role("button", name="Execute").click()
    expect(models.locator(".live-responses-table .response-col_status").last).to_contain_text("200")
