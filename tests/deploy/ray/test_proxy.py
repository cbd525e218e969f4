"""What stands before Serve's proxy, around one that fails as Serve's does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from starlette.types import Message, Receive, Scope, Send

from deploy.ray import proxy
from deploy.ray.affinity import context_key
from deploy.ray.proxy import PrefixProxy, middlewares

BODY = b'{"context": "a", "candidates": ["b"]}'

OK: list[Message] = [
    {"type": "http.response.start", "status": 200, "headers": [(b"x-request-id", b"app's")]},
    {"type": "http.response.body", "body": b"fine"},
]


class Serve:
    """Fails, without an answer, as often as told to; then answers.

    Attributes:
        scopes: of the calls.
        bodies: that were read in them.
    """

    def __init__(self, failures: int = 0, answer: list[Message] | None = None) -> None:
        self._failures = failures
        self._answer = OK if answer is None else answer
        self.scopes: list[Scope] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["root_path"] = scope.get("root_path", "") + "/changed"
        scope["headers"].append((b"x-request-id", b"Serve's"))
        self.scopes.append(scope)
        self.bodies.append(await read(receive))
        if len(self.bodies) > self._failures:
            for message in self._answer:
                await send(message)

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return [pair for pair in self.scopes[-1]["headers"] if pair[0] != b"x-request-id"]


async def read(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def client(*parts: bytes, leaves: bool = False) -> Callable[[], Awaitable[Message]]:
    """Sends the parts of a body; then it waits, or hangs up."""
    messages: list[Message] = [
        {"type": "http.request", "body": part, "more_body": number < len(parts)}
        for number, part in enumerate(parts, 1)
    ]

    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        if not leaves:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    return receive


def call(
    serve: Serve,
    receive: Receive,
    headers: list[tuple[bytes, bytes]] | None = None,
    path: str = "/v1/score",
    method: str = "POST",
) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "path": path, "method": method, "headers": headers or []}
    (middleware,) = middlewares()
    app = middleware.cls(serve, *middleware.args, **middleware.kwargs)
    assert isinstance(app, PrefixProxy)
    asyncio.run(app(scope, receive, send))
    return sent


def test_the_context_becomes_the_session() -> None:
    """Where the client names none; the body goes on as it came."""
    serve = Serve()
    assert call(serve, client(BODY[:9], BODY[9:]))[1]["body"] == b"fine"
    key = context_key(BODY)
    assert key is not None
    assert serve.headers == [(b"x-session-id", key.encode())]
    assert serve.bodies == [BODY]


def test_the_clients_session_stays() -> None:
    """It is passed on, and the body is not waited for."""
    serve = Serve()
    call(serve, client(BODY), [(b"x-session-id", b"mine")])
    assert serve.headers == [(b"x-session-id", b"mine")]


@pytest.mark.parametrize(
    "given",
    [
        [(b"x-session-id", b"\xff")],
        [(b"x-session-id", b"a" * 200)],
        [(b"x_session_id", b"\xff"), (b"x-session-id", b"")],
        [(b"x-session-id", b"a"), (b"x-session-id", b"b")],
        [(b"serve_multiplexed_model_id", b"\xff")],
    ],
)
def test_what_serve_would_fail_at_is_left_out(given: list[tuple[bytes, bytes]]) -> None:
    """A header that it would decode; the context stands in for the session."""
    serve = Serve()
    call(serve, client(BODY), given)
    key = context_key(BODY)
    assert key is not None
    assert serve.headers == [(b"x-session-id", key.encode())]


@pytest.mark.parametrize(("method", "body"), [("GET", b""), ("POST", b"[]"), ("POST", b"")])
def test_without_a_context_there_is_no_session(method: str, body: bytes) -> None:
    """The router then takes the shortest queue."""
    serve = Serve()
    call(serve, client(body), method=method)
    assert serve.headers == []


def test_one_request_id_comes_back() -> None:
    """The app's own, though Serve adds another; other headers come twice if they do."""
    headers = [(b"x-request-id", b"app's"), (b"a", b"1"), (b"a", b"2"), (b"X-Request-ID", b"S")]
    answer: list[Message] = [{"type": "http.response.start", "status": 200, "headers": headers}]
    (start,) = call(Serve(answer=answer), client(BODY))
    assert start["headers"] == headers[:3]


def test_a_lost_request_is_sent_again() -> None:
    """With its whole body, and as if for the first time."""
    serve = Serve(failures=1)
    assert call(serve, client(BODY[:5], BODY[5:])) == OK
    assert serve.bodies == [BODY, BODY]
    assert [scope["root_path"] for scope in serve.scopes] == ["/changed", "/changed"]
    assert serve.scopes[0]["headers"] == serve.scopes[1]["headers"]


def test_a_request_is_lost_twice_at_most() -> None:
    """It may be what the replicas die of; our client comes again after a second."""
    serve = Serve(failures=9)
    start, body = call(serve, client(BODY))
    assert len(serve.bodies) == 2
    assert start["status"] == 503
    assert (b"retry-after", b"1") in start["headers"]
    assert json.loads(body["body"])["error"]["code"] == "unavailable"


def test_half_an_answer_is_not_repeated() -> None:
    """What the client has cannot be taken back."""
    half: list[Message] = [OK[0], {"type": "http.response.body", "body": b"h", "more_body": True}]
    serve = Serve(answer=half)
    assert call(serve, client(BODY)) == half
    assert len(serve.bodies) == 1


def test_nobody_waits_for_the_answer() -> None:
    """A client that has left gets no second try."""

    class Leaving(Serve):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await super().__call__(scope, receive, send)
            assert (await receive())["type"] == "http.disconnect"

    serve = Leaving(failures=9)
    assert call(serve, client(BODY, leaves=True)) == []
    assert len(serve.bodies) == 1


def test_a_client_that_leaves_within_its_body() -> None:
    """Serve hears of it as it would without us."""
    serve = Serve(failures=9)
    receive = client(BODY[:9], BODY[9:], leaves=True)
    messages = [asyncio.run(receive())]

    async def cut() -> Message:
        return messages.pop() if messages else {"type": "http.disconnect"}

    assert call(serve, cut) == []
    assert serve.bodies == [BODY[:9]]


def test_a_body_too_long_to_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on whole, and not twice."""
    monkeypatch.setattr(proxy, "MAX_KEPT_BYTES", 10)
    serve = Serve()
    assert call(serve, client(BODY[:9], BODY[9:20], BODY[20:])) == OK
    assert serve.bodies == [BODY]
    serve = Serve(failures=1)
    assert call(serve, client(BODY[:9], BODY[9:20], BODY[20:]))[0]["status"] == 503
    assert serve.bodies == [BODY]


def test_bodies_too_long_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one request keeps is missing for the next, until the answer of the first begins."""
    monkeypatch.setattr(proxy, "MAX_KEPT_TOGETHER", len(BODY) + 5)
    tries: list[int] = []

    async def nested(scope: Scope, receive: Receive, send: Send) -> None:
        assert await read(receive) == BODY
        depth = scope["depth"]
        tries.append(depth)
        if depth == 0:
            await app({**scope, "depth": 1}, client(BODY), ignore)
            for message in OK:
                await send(message)
            await app({**scope, "depth": 2}, client(BODY), ignore)

    async def ignore(message: Message) -> None:
        pass

    app = PrefixProxy(nested)
    scope = {"type": "http", "path": "/v1/score", "method": "POST", "headers": [], "depth": 0}
    asyncio.run(app(scope, client(BODY), ignore))
    assert tries == [0, 1, 2, 2]
    assert app._kept.bytes == 0


def test_only_the_head_of_a_body_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the bound it streams; a second try has all of it nevertheless."""
    monkeypatch.setattr(proxy, "MAX_HASHED_BYTES", 20)
    serve = Serve(failures=1)
    assert call(serve, client(BODY[:9], BODY[9:20], BODY[20:])) == OK
    assert serve.bodies == [BODY, BODY]


def test_a_body_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is passed on without a key: the app has its own limit, and its own words."""
    monkeypatch.setattr(proxy, "READ_TIMEOUT_S", 0.01)

    class Impatient(Serve):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            self.scopes.append(scope)
            first = await receive()
            self.bodies.append(first["body"])
            for message in OK:
                await send(message)

    async def stuck() -> Message:
        if arrived:
            return arrived.pop()
        await asyncio.Event().wait()
        raise AssertionError

    arrived: list[Message] = [{"type": "http.request", "body": BODY[:5], "more_body": True}]
    serve = Impatient()
    assert call(serve, stuck) == OK
    assert (serve.bodies, serve.headers) == ([BODY[:5]], [])


@pytest.mark.parametrize("path", ["/-/healthz", "/-/routes"])
def test_serves_own_paths_are_its_own(path: str) -> None:
    """They have no replica behind them."""
    serve = Serve(failures=9)
    assert call(serve, client(BODY), path=path) == []
    assert len(serve.bodies) == 1
