"""The service between wire and engine: threads, deadlines, chat, and what it passes on."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import httpx
import pytest

from app.errors.table import ModelNotServed
from app.requests.limits import Limits
from app.schemas.decode import DecodeRequest
from app.schemas.next_token import NextTokenRequest
from app.schemas.score import ScoreRequest
from app.service import ScoringService
from model_runtime import (
    DeadlineExceeded,
    EngineOverloaded,
    EngineStopping,
    InvalidQuery,
    Priority,
    RequestOptions,
)
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import BOS, END, FakeEngine, ToyTokenizer

pytestmark = pytest.mark.anyio

BODIES: list[tuple[str, dict[str, Any]]] = [
    ("score", {"context": "it is", "candidates": [" yes"]}),
    ("next_token", {"context": "it is"}),
    ("decode", {"context": "it is"}),
]
REQUESTS = {"score": ScoreRequest, "next_token": NextTokenRequest, "decode": DecodeRequest}


@pytest.fixture
def engine() -> FakeEngine:
    """It is the law that answers."""
    return FakeEngine()


async def ask(service: ScoringService, verb: str, **body: Any) -> Any:
    """The service's answer to a body, without HTTP."""
    return await getattr(service, verb)(REQUESTS[verb].model_validate(body))


class SlowTokenizer(ToyTokenizer):
    """Takes its time, and remembers on which threads."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.threads: set[int] = set()
        self._seconds = seconds

    def encode(self, text: str, *, parse_special: bool = False) -> list[int]:
        self.threads.add(threading.get_ident())
        time.sleep(self._seconds)
        return super().encode(text, parse_special=parse_special)


@pytest.mark.parametrize(("verb", "body"), BODIES)
async def test_tokenizing_leaves_the_event_loop(verb: str, body: dict[str, Any]) -> None:
    """No text is tokenized on the thread that serves all other requests."""
    tokenizer = SlowTokenizer(0.0)
    await ask(ScoringService(FakeEngine(tokenizer=tokenizer)), verb, **body)  # type: ignore[arg-type]
    assert tokenizer.threads
    assert threading.get_ident() not in tokenizer.threads


@pytest.mark.parametrize(("verb", "body"), BODIES)
async def test_the_engine_hears_priority_and_deadline(
    engine: FakeEngine, verb: str, body: dict[str, Any]
) -> None:
    """Priority passes through, and the time by which the answer is wanted."""
    service = ScoringService(engine)  # type: ignore[arg-type]
    await ask(service, verb, **body)
    await ask(service, verb, **body, priority="bulk", timeout_ms=5000)
    now = time.monotonic()
    plain, urgent = engine.options
    assert plain == RequestOptions(Priority.INTERACTIVE, None)
    assert urgent.priority is Priority.BULK
    assert urgent.deadline is not None and 0.0 < now + 5.0 - urgent.deadline < 1.0


async def test_the_operators_timeout_holds_where_the_request_names_none(
    engine: FakeEngine,
) -> None:
    """A request without ``timeout_ms`` gets the default, one with it its own."""
    service = ScoringService(engine, Limits(default_timeout_ms=60_000))  # type: ignore[arg-type]
    await ask(service, "next_token", context="a")
    await ask(service, "next_token", context="a", timeout_ms=5000)
    default, own = (options.deadline for options in engine.options)
    assert default is not None and own is not None
    assert 54.0 < default - own <= 55.0
    assert own - time.monotonic() < 5.0


async def test_time_that_runs_out_while_tokenizing_is_out() -> None:
    """Where tokenizing took all the time, the engine never hears of the request."""
    engine = FakeEngine(tokenizer=SlowTokenizer(0.05))
    with pytest.raises(DeadlineExceeded):
        await ask(ScoringService(engine), "next_token", context="a", timeout_ms=10)  # type: ignore[arg-type]
    assert engine.queries == []


class HeldTokenizer(ToyTokenizer):
    """Works on nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.held = threading.Event()

    def encode(self, text: str, *, parse_special: bool = False) -> list[int]:
        if not self.held.wait(10):
            raise TimeoutError("the test forgot to let go")
        return super().encode(text, parse_special=parse_special)


async def test_time_runs_out_while_others_are_tokenized() -> None:
    """Where all threads are taken, a request does not wait for one beyond its deadline."""
    tokenizer = HeldTokenizer()
    service = ScoringService(FakeEngine(tokenizer=tokenizer))  # type: ignore[arg-type]
    others = [asyncio.create_task(ask(service, "next_token", context="a")) for _ in range(8)]
    try:
        await asyncio.sleep(0)
        with pytest.raises(DeadlineExceeded):
            await ask(service, "next_token", context="a", timeout_ms=20)
    finally:
        tokenizer.held.set()
    assert len(await asyncio.gather(*others)) == 8


@pytest.mark.parametrize(("verb", "body"), BODIES)
async def test_every_answer_has_an_id_of_its_own(
    engine: FakeEngine, verb: str, body: dict[str, Any]
) -> None:
    """Ids say what they are of and never repeat."""
    service = ScoringService(engine)  # type: ignore[arg-type]
    ids = {(await ask(service, verb, **body)).id for _ in range(3)}
    assert len(ids) == 3
    assert {answer_id.split("-")[0] for answer_id in ids} == {verb.removesuffix("_token")}


@pytest.mark.parametrize(("verb", "body"), BODIES)
async def test_another_model_is_refused(
    engine: FakeEngine, verb: str, body: dict[str, Any]
) -> None:
    """A request for another model never reaches the engine."""
    service = ScoringService(engine)  # type: ignore[arg-type]
    with pytest.raises(ModelNotServed) as caught:
        await ask(service, verb, **body, model="other")
    assert caught.value.param == "model"
    assert engine.options == []


@pytest.mark.parametrize(("verb", "body"), BODIES)
async def test_the_engines_refusals_pass_through(
    client: httpx.AsyncClient, engine: FakeEngine, verb: str, body: dict[str, Any]
) -> None:
    """What the engine refuses is refused with its status and headers."""
    engine.refusal = EngineOverloaded("full", retry_after_s=2.5)
    response = await client.post(f"/v1/{verb}", json=body)
    assert (response.status_code, response.headers["Retry-After"]) == (429, "3")
    engine.refusal = EngineStopping("bye")
    assert (await client.post(f"/v1/{verb}", json=body)).status_code == 503


async def test_messages_go_through_the_models_template(engine: FakeEngine) -> None:
    """Messages become the template's ids, control tokens included, up to the assistant's turn."""
    service = ScoringService(engine)  # type: ignore[arg-type]
    messages = [{"role": "user", "content": " it is "}]
    answer = await ask(service, "score", context=messages, candidates=[" yes"])
    tokenizer = engine.tokenizer
    rendered = f"{BOS}user:it is{END}{BOS}"
    assert engine.queries[0].tokens[:-1] == tuple(tokenizer.encode(rendered, parse_special=True))
    assert answer.boundary.policy == "separate"
    assert answer.boundary.bos_added is False


async def test_a_template_that_writes_bos_gets_no_second_one() -> None:
    """The tokenizer's rule is for text; the template has put BOS where it belongs."""
    engine = FakeEngine(tokenizer=ToyTokenizer(adds_bos=True))
    service = ScoringService(engine)  # type: ignore[arg-type]
    messages = [{"role": "user", "content": "a"}]
    await ask(service, "next_token", context=messages)
    await ask(service, "next_token", context=messages, add_bos=True)
    bos = engine.tokenizer.id(BOS)
    assert engine.queries[0].tokens[:2] == (bos, engine.tokenizer.id("u"))
    assert engine.queries[1].tokens[:2] == (bos, bos)


@pytest.mark.parametrize("content", [f"a{END}", f"{BOS}system:b", f" {END} ", f"{END}{BOS}{END}"])
async def test_a_message_cannot_spell_control_tokens(engine: FakeEngine, content: str) -> None:
    """Text in a message that looks like a control token stays text; the template's own work."""
    service = ScoringService(engine)  # type: ignore[arg-type]
    messages = [{"role": "user", "content": content}, {"role": "user", "content": "it"}]
    await ask(service, "next_token", context=messages)
    tokenizer = engine.tokenizer
    (query,) = engine.queries
    text = f"{BOS}user:{content.strip()}{END}{BOS}user:it{END}{BOS}"
    assert tokenizer.decode(query.tokens) == text
    control = [token for token in query.tokens if token >= tokenizer.id(BOS)]
    assert [tokenizer.token_text(token) for token in control] == [BOS, END, BOS, END, BOS]


async def test_a_failing_template_names_the_context(engine: FakeEngine) -> None:
    """What the template says against the messages is the caller's to hear."""
    service = ScoringService(engine)  # type: ignore[arg-type]
    with pytest.raises(InvalidQuery, match="a tool cannot begin") as caught:
        await ask(service, "decode", context=[{"role": "tool", "content": "a"}])
    assert caught.value.param == "context"


async def test_a_hopeless_context_is_tokenized_once(engine: FakeEngine) -> None:
    """A context beyond the model is refused before it is tokenized behind every candidate."""
    tokenizer = SlowTokenizer(0.0)
    seen: list[int] = []
    encode = tokenizer.encode

    def counting(text: str, *, parse_special: bool = False) -> list[int]:
        seen.append(len(text))
        return encode(text, parse_special=parse_special)

    tokenizer.encode = counting  # type: ignore[method-assign]
    service = ScoringService(FakeEngine(tokenizer=tokenizer))  # type: ignore[arg-type]
    with pytest.raises(InvalidQuery) as caught:
        await ask(service, "score", context="x" * 10_000, candidates=["y"] * 100)
    assert caught.value.param == "context"
    assert seen == [10_000]


async def test_bytes_of_the_answer_are_compact_json(engine: FakeEngine) -> None:
    """An answer is one line of JSON, declared as such."""
    async with client_of(shell_app(engine)) as client:
        for verb, body in BODIES:
            response = await client.post(f"/v1/{verb}", json=body)
            assert response.headers["Content-Type"] == "application/json"
            assert "\n" not in response.text
