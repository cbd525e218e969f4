"""Both clients against the app: every verb, every kind of error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.client import (
    ApiError,
    AsyncClient,
    Client,
    ClientError,
    ConnectionFailed,
    DecodeAnswer,
    InvalidRequest,
    InvalidResponse,
    Overloaded,
    RequestFailed,
    RequestRefused,
    Retries,
    Unauthorized,
)
from app.schemas.decode import DecodeRequest
from app.schemas.decode_response import DecodedToken
from app.schemas.score import ScoreRequest
from model_runtime import EngineOverloaded, ForwardFailed
from tests.app.calls import NO, YES, log
from tests.app.client.write_sync_client import SOURCE, TARGET, to_sync
from tests.app.fake_engine import FakeEngine
from tests.app.in_process import ONCE, URL, async_client_over, client_over

ASKED: dict[str, Any] = {"context": "it is", "candidates": [YES, NO]}
QUICK = Retries(attempts=3, first_wait_s=0.0, longest_wait_s=0.0)


def test_every_verb() -> None:
    """Each verb gives its own typed answer."""
    with client_over() as client:
        assert [one.logprob for one in client.score(**ASKED).results] == [log(0.5), log(0.25)]
        assert client.next_token(context="it is", top_k=1).tokens[0].text == YES
        assert client.decode(context="it is", max_tokens=2).sequences[0].text == YES
        assert client.audit(**ASKED).candidates[0].text == YES
        assert client.models()[0].id == "org/toy"
        assert client.health()["status"] == "ready"


def test_the_sync_client_is_written_from_the_async_one() -> None:
    """``make client-sync`` would change nothing."""
    assert TARGET.read_text() == to_sync(SOURCE.read_text())


@pytest.mark.anyio
async def test_every_verb_on_a_loop() -> None:
    """The asynchronous client gives the same answers."""
    async with async_client_over() as client:
        answer = await client.score(**ASKED)
        assert [one.logprob for one in answer.results] == [log(0.5), log(0.25)]
        assert (await client.next_token(context="it is", top_k=1)).tokens[0].text == YES
        assert (await client.decode(context="it is", max_tokens=2)).sequences[0].text == YES
        assert (await client.audit(**ASKED)).candidates[0].text == YES
        assert (await client.models())[0].id == "org/toy"
        assert (await client.health())["status"] == "ready"


def test_a_request_is_given_whole_as_a_mapping_or_as_fields() -> None:
    """All three ask the same, and fields come on top of what is given."""
    with client_over() as client:
        whole = client.score(ScoreRequest(**ASKED))
        assert whole.results == client.score(ASKED).results == client.score(**ASKED).results
        changed = client.score(ScoreRequest(**ASKED), normalization="per_char")
        assert changed.results[0].score == log(0.5) / 4


def test_a_stream_gives_tokens_and_then_the_answer() -> None:
    """The last event is what ``decode`` answers."""
    with client_over() as client:
        *tokens, answer = client.stream(DecodeRequest(context="it is"), max_tokens=2)
        assert isinstance(answer, DecodeAnswer)
        assert answer.sequences == client.decode(context="it is", max_tokens=2).sequences
    texts = [token.text for token in tokens if isinstance(token, DecodedToken)]
    assert "".join(texts) == answer.sequences[0].text == YES


@pytest.mark.anyio
async def test_a_stream_on_a_loop() -> None:
    """The asynchronous client gives the same events."""
    async with async_client_over() as client:
        events = [event async for event in client.stream(context="it is", max_tokens=2)]
    assert [type(event) for event in events] == [DecodedToken, DecodedToken, DecodeAnswer]


def test_a_field_that_does_not_fit_is_not_sent() -> None:
    """The client says so itself, by the field's name."""
    with client_over() as client, pytest.raises(InvalidRequest) as caught:
        client.score(context="it is", candidates=[YES], temperature=0)
    assert (caught.value.param, caught.value.code) == ("temperature", "invalid_value")
    with client_over() as client, pytest.raises(InvalidRequest) as caught:
        client.score(context="it is", candidates=[YES, "\ud800"])
    assert "JSON" in caught.value.message


def test_a_refusal_carries_the_servers_error_object() -> None:
    """Status, message, type, param, code and the request's id."""
    with client_over() as client, pytest.raises(RequestRefused) as caught:
        client.score(context="it is", candidates=[""], request_id="my-request")
    error = caught.value
    assert (error.status, error.type) == (422, "invalid_request_error")
    assert (error.param, error.code) == ("candidates.0", "invalid_value")
    assert str(error) == error.message == "candidates.0: the candidate is empty"
    assert error.request_id == "my-request"


def test_every_request_has_an_id() -> None:
    """Where the caller gives none, the client makes one, so that the server's log can be found."""
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["X-Request-Id"])
        return httpx.Response(503 if len(seen) == 1 else 500, text="down")

    with client_of(answer, retries=QUICK) as client, pytest.raises(RequestFailed) as caught:
        client.models()
    assert seen[0] == seen[1] == caught.value.request_id
    assert len(seen[0]) == 32


def test_a_failure_of_the_server() -> None:
    """5xx is a ``RequestFailed`` with the server's code."""
    engine = FakeEngine(failures={YES: ForwardFailed("inside")})
    with client_over(engine) as client, pytest.raises(RequestFailed) as caught:
        client.score(**ASKED, all_or_nothing=True)
    assert (caught.value.status, caught.value.code) == (500, "forward_failed")


def test_a_wrong_key() -> None:
    """401 is an ``Unauthorized``; the right key opens."""
    with client_over(api_keys="secret") as client, pytest.raises(Unauthorized):
        client.models()
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["Authorization"])
        return httpx.Response(200, json={"object": "list", "data": []})

    with client_of(answer, api_key="secret") as client:
        assert client.models() == []
    assert seen == ["Bearer secret"]


def test_a_full_queue_is_waited_for() -> None:
    """429 and a lost connection are sent again; the answer comes as if nothing had been."""
    turns = iter([httpx.Response(429), httpx.ConnectError("refused"), httpx.Response(200, json=[])])

    def answer(_request: httpx.Request) -> httpx.Response:
        turn = next(turns)
        if isinstance(turn, httpx.Response):
            return turn
        raise turn

    with client_of(answer, retries=QUICK) as client, pytest.raises(InvalidResponse):
        client.models()
    assert list(turns) == []


def test_a_full_queue_of_the_app_names_its_code() -> None:
    """A client that gives up at once sees what the server said."""
    engine = FakeEngine()
    engine.refusal = EngineOverloaded("the queue is full", retry_after_s=2)
    with client_over(engine) as client, pytest.raises(Overloaded) as caught:
        client.score(**ASKED)
    assert (caught.value.status, caught.value.code) == (429, "queue_full")


@pytest.mark.parametrize(
    "failure", [httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), httpx.ReadError("cut")]
)
def test_no_answer(failure: Exception) -> None:
    """Whatever goes wrong on the way is one kind of error, with the path."""

    def fail(_request: httpx.Request) -> httpx.Response:
        raise failure

    with client_of(fail) as client, pytest.raises(ConnectionFailed) as caught:
        client.models()
    assert "/v1/models" in caught.value.message


def test_an_answer_that_is_none_of_the_server() -> None:
    """A proxy's page is no answer, and its failure still shows its status and first words."""
    with (
        client_of(lambda _: httpx.Response(200, text="<html>")) as client,
        pytest.raises(InvalidResponse),
    ):
        client.models()
    with (
        client_of(lambda _: httpx.Response(418, text="short and stout")) as client,
        pytest.raises(RequestRefused, match="418: short and stout"),
    ):
        client.models()


def test_fields_of_a_newer_server_are_left_out() -> None:
    """An answer with more than this client knows is still an answer."""
    with client_over() as client:
        answer = client.score(**ASKED, token_logprobs=True)
    body = answer.model_dump()
    body["news"] = 1
    body["results"][0]["news"] = body["results"][0]["tokens"][0]["news"] = 1
    with client_of(lambda _: httpx.Response(200, json=body)) as client:
        assert client.score(**ASKED) == answer


TOKEN = (
    b'event: token\ndata: {"index":0,"id":1,"text":"a","logprob":-1,"rank":1,"top_logprobs":[]}\n\n'
)


@pytest.mark.parametrize(
    ("rest", "kind"),
    [
        (b"", InvalidResponse),
        (b'event: error\ndata: {"error": {"message": "died", "type": "t"}}\n\n', ApiError),
        (b"event: result\ndata: 7\n\n", InvalidResponse),
    ],
)
def test_a_stream_that_breaks_off(rest: bytes, kind: type[ClientError]) -> None:
    """What came is given; then the failure is raised, and nothing is sent again."""
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(
            200, headers={"Content-Type": "text/event-stream"}, content=TOKEN + rest
        )

    with client_of(answer, retries=QUICK) as client:
        events = client.stream(context="it is")
        assert isinstance(next(events), DecodedToken)
        with pytest.raises(kind):
            next(events)
    assert len(sent) == 1


def test_a_stream_that_does_not_begin_is_sent_again() -> None:
    """Before the first byte of a stream a retry is as safe as anywhere."""
    turns = iter([httpx.Response(503), httpx.Response(422, json={"error": {"message": "no"}})])
    with (
        client_of(lambda _: next(turns), retries=QUICK) as client,
        pytest.raises(RequestRefused, match="no"),
    ):
        next(client.stream(context="it is"))


@pytest.mark.parametrize("url", ["http://test/", "http://test/v1", "http://test/v1/"])
def test_the_url_may_end_as_other_clients_want_it(url: str) -> None:
    """A slash or ``/v1`` at the end changes nothing."""
    paths: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        return httpx.Response(200, json={"object": "list", "data": []})

    with Client(url, transport=httpx.MockTransport(answer)) as client:
        client.models()
    assert paths == ["/v1/models"]


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    "url", ["http://user:hunter2@far", "http://hunter2@far/v1", "user:hunter2@far", "http://@far"]
)
def test_a_password_in_the_url_is_refused_and_not_repeated(kind: Any, url: str) -> None:
    """Neither the error nor what caused it shows it."""
    with pytest.raises(InvalidRequest) as caught:
        kind(url)
    assert caught.value.param == "base_url"
    assert "hunter2" not in repr(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("param", "bad"),
    [
        ("base_url", {"base_url": "localhost:8000"}),
        ("base_url", {"base_url": "http://"}),
        ("base_url", {"base_url": "http://far?x=1"}),
        ("api_key", {"api_key": "two\nlines"}),
        ("timeout_s", {"timeout_s": 0}),
    ],
)
def test_a_client_that_could_never_ask_is_refused(param: str, bad: dict[str, Any]) -> None:
    """The mistake is named when the client is made."""
    for kind in (Client, AsyncClient):
        with pytest.raises(InvalidRequest) as caught:
            kind(**bad)
        assert caught.value.param == param


def client_of(
    answer: Callable[[httpx.Request], httpx.Response], retries: Retries = ONCE, **options: Any
) -> Client:
    """A client of a server that answers like this."""
    return Client(URL, retries=retries, transport=httpx.MockTransport(answer), **options)
