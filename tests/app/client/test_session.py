"""What is sent as ``X-Session-Id``: nothing unless asked for, one id for one context."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.client import AsyncClient, Client, ClientError, InvalidRequest, Retries
from app.client.session import session_id
from app.schemas.audit import AuditRequest
from app.schemas.decode import DecodeRequest
from app.schemas.score import ScoreRequest
from tests.app.calls import NO, YES
from tests.app.in_process import URL

CONTEXTS: list[Any] = [
    "it is",
    "it is ",
    "1",
    [1],
    [1, 2],
    [12],
    [{"role": "user", "content": "it is"}],
    [{"role": "system", "content": "it is"}],
]


def ids_of(asked: Any, **options: Any) -> list[str | None]:
    """What a client with these options sends with each request of ``asked``."""
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("X-Session-Id"))
        return httpx.Response(503, json={})

    transport = httpx.MockTransport(answer)
    retries = Retries(attempts=2, first_wait_s=0.0, longest_wait_s=0.0)
    with Client(URL, transport=transport, retries=retries, **options) as client:
        asked(client)
    return seen


def ask_every_verb(client: Client, **more: Any) -> None:
    """The verbs that have a context."""
    for verb, own in (
        (client.score, {"candidates": [YES]}),
        (client.next_token, {}),
        (client.decode, {}),
        (lambda **fields: next(client.stream(**fields)), {}),
        (client.audit, {"candidates": [YES]}),
    ):
        with pytest.raises(ClientError):
            verb(context="it is", **own, **more)  # type: ignore[operator]


def test_nothing_is_sent_unless_asked_for() -> None:
    """A session says which requests belong together, and that is the caller's to tell."""
    assert set(ids_of(ask_every_verb)) == {None}


def test_every_verb_sends_the_session_at_every_attempt() -> None:
    """The client's, or the call's own."""
    assert ids_of(ask_every_verb, session="user-42") == ["user-42"] * 10
    assert ids_of(lambda client: ask_every_verb(client, session="user-7")) == ["user-7"] * 10
    both = ids_of(lambda client: ask_every_verb(client, session="user-7"), session="user-42")
    assert both == ["user-7"] * 10


def test_equal_contexts_have_equal_ids() -> None:
    """Whatever is asked of them, and however the request is given."""
    (first, *others) = ids_of(ask_every_verb, session="context")
    assert first is not None
    assert {len(first), *map(len, filter(None, others))} == {32}
    assert set(others) == {first}
    whole = ScoreRequest(context="it is", candidates=[NO, YES], temperature=2.0)
    assert session_id("context", whole) == first
    assert session_id("context", AuditRequest(context="it is", candidates=[NO])) == first


def test_different_contexts_have_different_ids() -> None:
    """Text, ids and messages, and each of them by its content."""
    ids = {session_id("context", DecodeRequest(context=context)) for context in CONTEXTS}
    assert len(ids) == len(CONTEXTS)


def test_an_id_is_the_same_in_every_process() -> None:
    """It is no salted hash: clients on many machines send one context to one server."""
    found = session_id("context", DecodeRequest(context="The capital of France is"))
    assert found == "5a5e9c9906f45630e02851ab9e6e01ff"


def test_lists_of_requests_and_parts_of_lists_send_it_too() -> None:
    """Parts of one list have one context, so they meet in one place."""
    asked = [{"context": context, "candidates": [YES, NO]} for context in ("one", "two")]

    def ask(client: Client) -> None:
        for _ in client.score_many(asked, concurrency=1, size=1, return_errors=True):
            pass
        with pytest.raises(ClientError):
            client.score_split(asked[0], size=1)

    ids = ids_of(ask, session="context")
    one, two = (session_id("context", DecodeRequest(context=text)) for text in ("one", "two"))
    assert ids == [one] * 4 + [two] * 4 + [one] * 4


@pytest.mark.parametrize("session", ["", " ", "a\nb", "é", "a" * 129])
def test_a_session_that_no_header_holds_is_refused(session: str) -> None:
    """Before anything is sent, of the client and of a call."""
    with pytest.raises(InvalidRequest, match="session: ") as caught:
        AsyncClient(URL, session=session)
    assert caught.value.param == "session"

    def ask(client: Client) -> None:
        with pytest.raises(InvalidRequest, match="session: "):
            client.decode(context="it is", session=session)

    assert ids_of(ask) == []
