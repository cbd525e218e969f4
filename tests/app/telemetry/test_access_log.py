"""What is counted and logged is what the user asked: one request of its route, and its usage."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine
from tests.app.telemetry.test_metrics import access_lines, scrape

pytestmark = pytest.mark.anyio

SPENT = ("prompt_tokens", "scored_tokens", "cached_tokens", "computed_tokens", "reused_scores")
BODY: dict[str, Any] = {"context": "it is", "candidates": [" yes", "n't"]}


class CountingEngine(FakeEngine):
    """Adds up what its answers have cost."""

    def __init__(self) -> None:
        super().__init__()
        self.computed = self.cached = 0

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in ("score", "next_token", "decode"):
            return found

        async def counted(*args: Any) -> Any:
            outcome = await found(*args)
            self.computed += outcome.computed_tokens
            self.cached += outcome.cached_tokens
            return outcome

        return counted


@pytest.fixture(autouse=True)
def _listen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="app")


async def asked(
    engine: FakeEngine, path: str, body: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> tuple[Any, dict[str, Any], dict[Any, float]]:
    """The answer to one request, its line in the access log, and the metrics behind it."""
    async with client_of(shell_app(engine)) as client:
        response = await client.post(path, json=body)
        assert response.status_code == 200, response.text
        lines = access_lines(caplog)
        metrics = await scrape(client)
    (line,) = lines
    assert metrics["chainrule_requests_total", ("POST", path, "200")] == 1
    return response, line, metrics


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/score", BODY), ("/v1/audit", BODY)], ids=["score", "audit"]
)
async def test_the_log_has_the_bill_of_the_answer(
    path: str, body: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It is all that was asked for the request, not the part that was answered last."""
    engine = CountingEngine()
    response, line, metrics = await asked(engine, path, body, caplog)
    usage = response.json()["usage"]
    assert {name: line[name] for name in SPENT} == usage
    assert (line["computed_tokens"], line["cached_tokens"]) == (engine.computed, engine.cached)
    assert not {"strategy", "stream", "optimal", "expanded"} & line.keys()
    assert not [name for name, _ in metrics if name == "chainrule_decodes_total"]


@pytest.mark.parametrize("echo", [False, True])
async def test_completions_log_the_sum_of_their_searches(
    echo: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """However many prompts there are; they are no decode requests."""
    engine = CountingEngine()
    body = {"prompt": ["it is", "a", "b"], "max_tokens": 2, "echo": echo, "logprobs": 1}
    response, line, metrics = await asked(engine, "/v1/completions", body, caplog)
    usage = response.json()["usage"]
    assert line["prompt_tokens"] == usage["prompt_tokens"]
    assert line["scored_tokens"] >= usage["completion_tokens"]
    assert (line["computed_tokens"], line["cached_tokens"]) == (engine.computed, engine.cached)
    assert "strategy" not in line
    assert not [name for name, _ in metrics if name == "chainrule_decodes_total"]


async def test_streamed_completions_log_the_same(caplog: pytest.LogCaptureFixture) -> None:
    """A stream of two prompts is one request, with what both have cost."""
    body = {"prompt": ["it is", "a"], "max_tokens": 2, "stream": True}
    _, line, metrics = await asked(FakeEngine(), "/v1/completions", body, caplog)
    caplog.clear()
    _, plain, _ = await asked(FakeEngine(), "/v1/completions", {**body, "stream": False}, caplog)
    for name in ("prompt_tokens", "scored_tokens"):
        assert line[name] == plain[name]
    assert line["cached_tokens"] == 2 * 3
    assert not {"strategy", "stream"} & line.keys()
    assert not [name for name, _ in metrics if name == "chainrule_decodes_total"]
