"""What a span says, a client cannot choose; and the context of a trace comes in and goes on."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace import ReadableSpan

from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine
from tests.app.telemetry.traces.recorded import Recorded, failure, held_engine, record

pytestmark = pytest.mark.anyio

SCORE = "POST /v1/score"
MARK = "MARKEDTEXT"
KEY = "a-key-that-is-MARKEDTEXT"

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"

QUESTION = {"type": "choice", "instructions": MARK, "choices": [{"value": MARK}, {"value": "b"}]}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/score": {"context": MARK, "candidates": [MARK, " yes"], "cache_salt": MARK},
    "/v1/next_token": {"context": MARK, "targets": [MARK]},
    "/v1/decode": {"context": MARK, "max_tokens": 2, "stop": [MARK]},
    "/v1/audit": {"context": MARK, "candidates": [MARK]},
    "/v1/completions": {"prompt": [MARK, MARK], "max_tokens": 2, "user": MARK},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": MARK}], "max_tokens": 2},
    "/v1/decisions": {"input": MARK, "questions": [QUESTION]},
    "/v1/rerank": {"query": MARK, "documents": [MARK]},
    "/tokenize": {"prompt": MARK},
    f"/v1/models/{MARK}": {"model": MARK},
    f"/{MARK}": {MARK: MARK},
}


async def ask_everything(app: FastAPI, **more: Any) -> None:
    """Marked texts wherever a client can put one: as asked for, refused, and not understood."""
    headers = {"Authorization": f"Bearer {KEY}", "User-Agent": MARK, "X-Session-Id": MARK}
    headers |= {"X-Request-Id": MARK, "Cookie": MARK, "baggage": f"{MARK}={MARK}"}
    async with client_of(app) as client:
        for path, body in BODIES.items():
            for sent in (body, {**body, MARK: MARK}, {**body, "model": MARK}):
                await client.post(path, json=sent, headers=headers, params={MARK: MARK})
            await client.post(path, content=f'{{"{MARK}', headers=headers)
            await client.post(path, json=body, headers={"Authorization": f"Bearer {MARK}"})
            await client.get(path, headers=headers, params={"q": MARK})
            await client.request(MARK, path, headers=headers)


async def test_nothing_that_a_client_sends_is_in_a_span(recorded: Recorded) -> None:
    """Not in names, attributes, events, links or the resource, and no event is there at all."""
    app = shell_app(FakeEngine(), traces=True, api_keys=(KEY,), served_name="fake")
    await ask_everything(app)
    asked = len(recorded.spans)
    assert asked > 6 * len(BODIES)
    assert MARK.encode() not in recorded.content
    assert not any(span.events for span in recorded.spans)
    statuses = {(span.attributes or {}).get("http.response.status_code") for span in recorded.spans}
    assert {200, 401, 404, 405, 422} <= statuses


async def test_names_are_few(recorded: Recorded) -> None:
    """Unknown paths and methods have one name each."""
    async with client_of(shell_app(FakeEngine(), traces=True)) as client:
        for i in range(20):
            await client.get(f"/nowhere/{i}")
            await client.request(f"METHOD{i}", "/v1/score")
            await client.get(f"/v1/models/{i}")
    assert {span.name for span in recorded.spans if span.parent is None} == {
        *("GET", "HTTP /v1/score", "GET /v1/models/{name:path}"),
    }


async def test_a_path_of_the_machine_is_in_no_span(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The resource says what OTEL_* says, and neither the command line nor the model."""
    monkeypatch.setenv("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "process,host,os")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "scores")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    recorded = record(monkeypatch)
    async with held_engine(model="/models/private") as held:
        await held.score(1, 2)
    resource = recorded.one(SCORE).resource.attributes
    assert set(resource) == {
        *("service.name", "service.version", "service.instance.id"),
        *("telemetry.sdk.name", "telemetry.sdk.language", "telemetry.sdk.version"),
        "deployment.environment.name",
    }
    assert resource["service.name"] == "scores"
    assert b"private" not in recorded.content


async def one_span(recorded: Recorded, *headers: tuple[str, str]) -> ReadableSpan | None:
    """The span of a request with these headers; None where there is none."""
    recorded.clear()
    body = {"context": "it is", "candidates": [" yes"]}
    async with client_of(shell_app(FakeEngine(), traces=True)) as client:
        answer = await client.post("/v1/score", json=body, headers=list(headers))
    assert answer.status_code == 200
    return recorded.one(SCORE) if recorded.spans else None


async def test_the_trace_of_whoever_asks_goes_on(recorded: Recorded) -> None:
    """With its state; the stages are in it, too."""
    state = ("tracestate", "vendor=value,other=1")
    span = await one_span(recorded, ("traceparent", TRACEPARENT), state)
    assert span is not None and span.parent is not None
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    assert span.parent.is_remote
    assert span.context.trace_state.to_header() == "vendor=value,other=1"
    assert {f"{one.context.trace_id:032x}" for one in recorded.spans} == {TRACE}


async def test_who_does_not_sample_gets_no_spans(recorded: Recorded) -> None:
    """Neither does its forward, nor is anything observed."""
    async with held_engine() as held:
        body = {"context": [1], "candidates": [[2]]}
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
        answer = await held.client.post("/v1/score", json=body, headers=headers)
    assert answer.status_code == 200
    assert not recorded.spans


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", "garbage")],
        [("traceparent", f"00-{'0' * 32}-{PARENT}-01")],
        [("traceparent", f"ff-{TRACE}-{PARENT}-01")],
        [("traceparent", TRACEPARENT), ("traceparent", TRACEPARENT)],
        [("traceparent", "00-" + "a" * 50_000)],
        [("traceparent", "00-é-\xff")],
        [("tracestate", "vendor=value")],
    ],
)
async def test_a_context_that_is_none_begins_a_new_trace(
    recorded: Recorded, headers: list[tuple[str, str]]
) -> None:
    """And the request is answered."""
    sent = [(name, value.encode("latin-1").decode("latin-1")) for name, value in headers]
    span = await one_span(recorded, *[(n, v.encode("latin-1")) for n, v in sent])  # type: ignore[misc]
    assert span is not None
    assert span.parent is None
    assert f"{span.context.trace_id:032x}" != TRACE


@pytest.mark.parametrize(
    ("sampler", "argument", "seen"),
    [
        ("always_off", "", False),
        ("parentbased_always_off", "", False),
        ("traceidratio", "0", False),
        ("traceidratio", "1", True),
    ],
)
async def test_the_sampler_is_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, sampler: str, argument: str, seen: bool
) -> None:
    """A forward is kept where a request that it held is."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    recorded = record(monkeypatch)
    async with held_engine() as held:
        await held.score(1, 2)
    assert bool(recorded.named(SCORE)) is bool(recorded.named("batch")) is seen


async def test_a_forward_leads_to_those_that_are_sampled(recorded: Recorded) -> None:
    """It is there because of them, and counts the others."""
    async with held_engine() as held:
        first = await held.hold()
        sampled = await held.queue(1, 7)
        held.client.headers["traceparent"] = f"00-{TRACE}-{PARENT}-00"
        other = await held.queue(2, 7)
        held.release.set()
        for task in (first, sampled, other):
            assert (await task).status_code == 200
    shared = max(recorded.named("batch"), key=lambda span: span.start_time or 0)
    assert (shared.attributes or {})["chainrule.batch.requests"] == 2
    assert len(recorded.linked(shared)) == 1


async def test_the_sdk_can_be_disabled_as_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_SDK_DISABLED wins over the setting."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    recorded = record(monkeypatch)
    async with held_engine() as held:
        assert (await held.score(1, 2)).status_code == 200
    assert not recorded.spans


async def test_who_is_not_let_in_has_a_span(recorded: Recorded) -> None:
    """Of its route, with 401, which is no failure of the server."""
    async with client_of(shell_app(FakeEngine(), traces=True, api_keys=("key",))) as client:
        assert (await client.post("/v1/score", json={})).status_code == 401
    span = recorded.one(SCORE)
    assert failure(span) is None
    assert (span.attributes or {})["http.response.status_code"] == 401
