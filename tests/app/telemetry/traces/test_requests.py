"""Each request is a span with its stages below it, and forwards are linked both ways."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from opentelemetry.trace import SpanKind

from app.telemetry.traces import request_spans, span_maker
from model_runtime import ForwardRun
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine
from tests.app.faulty_engine import FAILS
from tests.app.http.middleware.test_middleware import LeavingClient, Message, until
from tests.app.http.middleware.test_middleware import post as post_scope
from tests.app.telemetry.test_metrics import access_lines
from tests.app.telemetry.traces.recorded import Recorded, failure, held_engine, ids

pytestmark = pytest.mark.anyio

SCORE = "POST /v1/score"


async def test_a_request_is_a_span_with_its_stages(recorded: Recorded) -> None:
    """Template, status and counts on it; each stage is its child, within its time."""
    async with held_engine() as held:
        answer = (await held.score(1, 2, 3)).json()
    span = recorded.one(SCORE)
    assert (span.kind, span.parent, failure(span)) == (SpanKind.SERVER, None, None)
    usage = {f"chainrule.{name}": count for name, count in answer["usage"].items()}
    assert dict(span.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/v1/score",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "chainrule.forwards": 1,
        **usage,
    }
    stages = recorded.below(span)
    assert [stage.name for stage in stages] == [
        *("tokenize", "queue", "forward", "render", "serialize"),
    ]
    for stage in stages:
        assert stage.context.trace_id == span.context.trace_id
        assert failure(stage) is None
        assert not stage.events
        assert span.start_time <= stage.start_time <= stage.end_time <= span.end_time
    assert recorded.one("queue").end_time == recorded.one("forward").start_time


async def test_a_forward_is_a_trace_of_its_own(recorded: Recorded) -> None:
    """The request's part of it and the whole are linked with each other."""
    async with held_engine() as held:
        await held.score(1, 2, 3)
    whole, part = recorded.one("batch"), recorded.one("forward")
    assert (whole.parent, whole.kind) == (None, SpanKind.INTERNAL)
    assert whole.context.trace_id != part.context.trace_id
    assert dict(whole.attributes or {}) == {
        "chainrule.batch.tokens": 2,
        "chainrule.batch.requests": 1,
    }
    assert dict(part.attributes or {}) == {"chainrule.tokens": 2, **(whole.attributes or {})}
    assert recorded.linked(part) == [whole]
    assert recorded.linked(whole) == [part]
    assert (whole.start_time, whole.end_time) == (part.start_time, part.end_time)


async def test_coalesced_requests_link_to_the_same_forward(recorded: Recorded) -> None:
    """It links to a part of each, and to nobody else's."""
    async with held_engine() as held:
        first = await held.hold()
        others = [await held.queue(i, 7, 8) for i in (1, 2, 3)]
        held.release.set()
        for task in (first, *others):
            assert (await task).status_code == 200
    alone, shared = sorted(recorded.named("batch"), key=lambda span: span.start_time or 0)
    assert (alone.attributes or {})["chainrule.batch.requests"] == 1
    assert dict(shared.attributes or {}) == {
        "chainrule.batch.requests": 3,
        "chainrule.batch.tokens": 6,
    }
    parts = recorded.linked(shared)
    assert all(recorded.linked(part) == [shared] for part in parts)
    parents = {part.parent.span_id for part in parts if part.parent}
    assert len(parents) == 3
    assert parents < {span.context.span_id for span in recorded.named(SCORE)}
    assert {(part.attributes or {})["chainrule.tokens"] for part in parts} == {2}


async def test_who_waits_for_the_same_question_links_to_who_asks_it(recorded: Recorded) -> None:
    """It has no forward of its own."""
    async with held_engine() as held:
        first = await held.hold()
        asks = await held.queue(1, 2, 3)
        waits = await held.join(1, 2, 3)
        held.release.set()
        await asyncio.gather(first, asks, waits)
    waiting = recorded.one("shared")
    (asker,) = recorded.linked(waiting)
    assert asker.name == SCORE
    assert waiting.parent is not None
    assert waiting.parent.span_id != asker.context.span_id
    names = [span.name for span in recorded.spans if span.parent == waiting.parent]
    assert sorted(names) == ["render", "serialize", "shared", "tokenize"]


async def test_a_forward_that_fails_is_there_with_its_error(recorded: Recorded) -> None:
    """By the name of its type; the words of it are nowhere."""
    async with held_engine() as held:
        assert (await held.score(FAILS, 1)).status_code == 500
    assert failure(recorded.one("forward")) == "ValueError"
    assert failure(recorded.one("batch")) == "ValueError"
    assert failure(recorded.one(SCORE)) == "500"
    assert b"poison" not in recorded.content


async def test_time_that_runs_out_in_the_queue_ends_all_spans(recorded: Recorded) -> None:
    """The queue is what failed, at the time of the request."""
    async with held_engine() as held:
        first = await held.hold()
        late = await held.queue(1, 2, timeout_ms=50)
        assert (await late).status_code == 504
        held.release.set()
        await first
    failed = next(span for span in recorded.named(SCORE) if failure(span))
    assert failure(failed) == "504"
    assert (failed.attributes or {})["chainrule.forwards"] == 0
    tokenize, queue = recorded.below(failed)
    assert (tokenize.name, queue.name, failure(queue)) == ("tokenize", "queue", "504")
    assert queue.end_time == failed.end_time


async def test_a_client_that_leaves_ends_its_spans(recorded: Recorded) -> None:
    """The forward that holds it then is sent once it has ended."""
    async with held_engine() as held:
        body = b'{"context": [105], "candidates": [[1]]}'
        leaver = LeavingClient(body)

        async def send(message: Message) -> None:
            raise AssertionError(message)

        task = asyncio.create_task(
            held.app(post_scope(body, path="/v1/score"), leaver.receive, send)
        )
        await until(lambda: held.engine.stats().running_requests == 1)
        leaver.left.set()
        await task
        span = recorded.one(SCORE)
        assert failure(span) == "client_left"
        assert "http.response.status_code" not in (span.attributes or {})
        assert not recorded.named("forward")
        held.release.set()
        await until(lambda: recorded.named("batch"))
    part = recorded.one("forward")
    assert part.parent == span.context
    assert recorded.linked(recorded.one("batch")) == [part]
    assert len(recorded.spans) == len({ids(one) for one in recorded.spans})


async def test_what_is_refused_is_no_failure_of_ours(recorded: Recorded) -> None:
    """4xx has a status and no error; what refuses it is named by its stage."""
    async with held_engine() as held:
        assert (await held.score(1, 999_999, all_or_nothing=True)).status_code == 422
        assert (await held.client.get("/nowhere/at/all")).status_code == 404
    span = recorded.one(SCORE)
    assert failure(span) is None
    assert (span.attributes or {})["http.response.status_code"] == 422
    lost = recorded.one("GET")
    assert failure(lost) is None
    assert "http.route" not in (lost.attributes or {})


async def test_what_nobody_expected_is_500(recorded: Recorded) -> None:
    """With the type of the exception alone."""
    async with client_of(shell_app(traces=True)) as client:
        assert (await client.get("/broken")).status_code == 500
    span = recorded.one("GET /broken")
    assert failure(span) == "RuntimeError"
    assert (span.attributes or {})["http.response.status_code"] == 500
    assert b"secret" not in recorded.content


async def test_a_stream_ends_with_its_last_event(recorded: Recorded) -> None:
    """One span, to the end of the answer."""
    async with client_of(shell_app(FakeEngine(), traces=True)) as client:
        response = await client.post("/v1/decode", json={"context": "it is", "stream": True})
    assert response.status_code == 200
    span = recorded.one("POST /v1/decode")
    assert failure(span) is None
    assert [stage.name for stage in recorded.below(span)] == ["tokenize", "render"]


async def test_a_stream_that_fails_behind_its_beginning_has_failed(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its status was 200."""
    from app.decoding.stream import TokenStream
    from model_runtime import NonFiniteLogits

    events = TokenStream.to_event
    seen: list[object] = []

    def fail_at_second(stream: TokenStream, step: Any) -> Any:
        seen.append(step)
        if len(seen) == 2:
            raise NonFiniteLogits("nothing")
        return events(stream, step)

    monkeypatch.setattr(TokenStream, "to_event", fail_at_second)
    async with client_of(shell_app(FakeEngine(), traces=True)) as client:
        body = {"context": "it is", "stream": True, "max_tokens": 3, "ignore_eos": True}
        response = await client.post("/v1/decode", json=body)
    assert "event: error" in response.text
    span = recorded.one("POST /v1/decode")
    assert failure(span) == "non_finite_logits"
    assert (span.attributes or {})["http.response.status_code"] == 200


async def test_probes_and_metrics_have_no_spans(recorded: Recorded) -> None:
    """However they are asked."""
    async with client_of(shell_app(FakeEngine(), traces=True)) as client:
        for path in ("/health", "/health/live", "/health/ready", "/metrics"):
            for method in ("GET", "HEAD", "POST"):
                await client.request(method, path)
    assert not recorded.spans


async def test_the_spans_of_a_request_are_bounded(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left out is counted."""
    monkeypatch.setattr(request_spans, "MAX_SPANS", 3)
    async with held_engine(max_batch_tokens=4) as held:
        await held.score(*range(1, 20))
        assert [span.name for span in recorded.below(recorded.one(SCORE))] == [
            *("tokenize", "queue", "forward"),
        ]
        about = recorded.one(SCORE).attributes or {}
        assert about["chainrule.forwards"] == 5
        assert about["chainrule.spans_left_out"] == len(("render", "serialize")) + 4


def a_run(observed: int) -> ForwardRun:
    """A forward that held so many requests."""
    return ForwardRun(1_000, 2_000, tokens=7, requests=observed, observed=observed)


async def test_a_forward_leads_to_a_request_that_has_too_many(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the request itself, where its part has no span."""
    full, other = (recorded.traces.begin("GET", [], {}) for _ in range(2))
    assert full is not None and other is not None
    first, second = full.observe_call(), other.observe_call()
    with full.stage("tokenize"):
        pass
    monkeypatch.setattr(request_spans, "MAX_SPANS", 1)
    run = a_run(2)
    first.forward_ended(run, 3, None)
    second.forward_ended(run, 4, None)
    full.end("full", {}, None)
    other.end("other", {}, None)
    batch = recorded.one("batch")
    assert [span.name for span in recorded.linked(batch)] == ["full", "forward"]
    assert recorded.one("forward").parent == recorded.one("other").context


async def test_a_forward_whose_last_part_has_no_span_is_sent(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though whoever has one of it has ended already."""
    full, early = (recorded.traces.begin("GET", [], {}) for _ in range(2))
    assert full is not None and early is not None
    last, first = full.observe_call(), early.observe_call()
    with full.stage("tokenize"):
        pass
    monkeypatch.setattr(request_spans, "MAX_SPANS", 1)
    run = a_run(2)
    first.forward_ended(run, 3, None)
    early.end("early", {}, None)
    assert not recorded.named("batch")
    last.forward_ended(run, 4, None)
    full.end("full", {}, None)
    assert [s.name for s in recorded.linked(recorded.one("batch"))] == ["forward", "full"]


async def test_who_ends_while_a_forward_is_told_leaves_nothing_out(recorded: Recorded) -> None:
    """The forward is sent once all that it held is known, and once only."""
    early, late = (recorded.traces.begin("GET", [], {}) for _ in range(2))
    assert early is not None and late is not None
    first, second = early.observe_call(), late.observe_call()
    run = a_run(2)
    first.forward_ended(run, 3, None)
    early.end("early", {}, "client_left")
    assert not recorded.named("batch")
    late.end("late", {}, "client_left")
    second.forward_ended(run, 4, None)
    batch = recorded.one("batch")
    parts = recorded.linked(batch)
    assert [part.parent for part in parts] == [early.context, late.context]
    assert all(recorded.linked(part) == [batch] for part in parts)


async def test_the_links_of_a_forward_are_bounded(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whom it does not name leads to it."""
    monkeypatch.setattr(span_maker, "MAX_LINKS", 2)
    async with held_engine() as held:
        first = await held.hold()
        others = [await held.queue(i, 7) for i in (1, 2, 3)]
        held.release.set()
        await asyncio.gather(first, *others)
    shared = max(recorded.named("batch"), key=lambda span: span.start_time or 0)
    assert len(shared.links) == 2
    assert sum(recorded.linked(part) == [shared] for part in recorded.named("forward")) == 3


async def test_the_log_names_the_trace(
    recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    """As the header of the W3C spells it."""
    caplog.set_level(logging.INFO, logger="app")
    async with held_engine() as held:
        await held.score(1, 2, 3)
    (line,) = access_lines(caplog)
    assert line["trace_id"] == f"{recorded.one(SCORE).context.trace_id:032x}"


async def test_an_answer_is_the_same_with_traces(recorded: Recorded) -> None:
    """Nothing in headers or body tells of them."""
    answers = []
    for traces in (False, True):
        async with client_of(shell_app(FakeEngine(), traces=traces)) as client:
            body = {"context": "it is", "candidates": [" yes"]}
            answers.append(await client.post("/v1/score", json=body))
    plain, traced = answers
    assert recorded.spans
    assert list(plain.headers) == list(traced.headers)
    assert plain.json().keys() == traced.json().keys()
    assert plain.json()["results"] == traced.json()["results"]
