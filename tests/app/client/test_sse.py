"""Server-sent events, cut anywhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from app.client import (
    ApiError,
    AsyncClient,
    Client,
    DeadlineExceeded,
    InvalidResponse,
    Unavailable,
)
from app.schemas.decode_response import DecodedToken
from tests.app.in_process import ONCE, URL

HEADERS = {"Content-Type": "text/event-stream; charset=utf-8"}
TEXT = "caf\N{LATIN SMALL LETTER E WITH ACUTE}\N{LINE SEPARATOR}\x85"
TOKEN = f'"text":"{TEXT}","logprob":-1,"rank":1,"top_logprobs":[]}}'
STREAM = (
    ": a comment\n"
    f'event: token\r\ndata: {{"index":0,"id":1,\r\ndata:  {TOKEN}\r\n\r\n'
    "data: of another kind\r\rid: 7\n\n"
    f'event:token\rdata:{{"index":1,"id":1,{TOKEN}\n\n'
    f'event: token\ndata: {{"index":2,"id":1,{TOKEN}\n'
).encode()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_do_not_depend_on_the_cuts(size: int) -> None:
    """Line ends of all kinds and no others, several data lines; what has no end is no event."""
    pieces = (STREAM[begin : begin + size] for begin in range(0, len(STREAM), size))
    answer = httpx.Response(200, headers=HEADERS, content=pieces)
    with Client(URL, retries=ONCE, transport=httpx.MockTransport(lambda _: answer)) as client:
        events = client.stream(context="it is")
        tokens = [next(events), next(events)]
        with pytest.raises(InvalidResponse, match="before the result"):
            next(events)
    found = [(one.index, one.text) for one in tokens if isinstance(one, DecodedToken)]
    assert found == [(0, TEXT), (1, TEXT)]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("deadline_exceeded", DeadlineExceeded),
        ("stopping", Unavailable),
        ("non_finite_logits", ApiError),
    ],
)
def test_a_failure_in_the_stream_is_of_its_usual_kind(code: str, kind: type[ApiError]) -> None:
    """Whoever catches it before the first token catches it behind it."""
    body = f'{{"error":{{"message":"no","type":"x","param":null,"code":"{code}"}}}}'
    content = f'event: token\ndata: {{"index":0,"id":1,{TOKEN}\n\nevent: error\ndata: {body}\n\n'
    answer = httpx.Response(200, headers=HEADERS, content=content.encode())
    with Client(URL, retries=ONCE, transport=httpx.MockTransport(lambda _: answer)) as client:
        events = client.stream(context="it is")
        next(events)
        with pytest.raises(ApiError) as caught:
            next(events)
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.status) == (code, None)


class Endless(httpx.SyncByteStream, httpx.AsyncByteStream):
    """One token after another, until it is closed."""

    is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        while not self.is_closed:
            yield f'event: token\ndata: {{"index":0,"id":1,{TOKEN}\n\n'.encode()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece

    def close(self) -> None:
        self.is_closed = True

    async def aclose(self) -> None:
        self.is_closed = True


@pytest.mark.anyio
async def test_a_stream_that_is_left_is_closed() -> None:
    """The server need not go on for somebody who has closed the generator."""
    for_threads, for_tasks = Endless(), Endless()
    transport = httpx.MockTransport(
        lambda _: httpx.Response(200, headers=HEADERS, stream=for_threads)
    )
    with Client(URL, transport=transport) as client:
        events = client.stream(context="it is")
        assert isinstance(next(events), DecodedToken)
        events.close()
    transport = httpx.MockTransport(
        lambda _: httpx.Response(200, headers=HEADERS, stream=for_tasks)
    )
    async with AsyncClient(URL, transport=transport) as client_on_loop:
        more = client_on_loop.stream(context="it is")
        assert isinstance(await anext(more), DecodedToken)
        await more.aclose()
    assert for_threads.is_closed
    assert for_tasks.is_closed


def test_a_page_is_no_stream() -> None:
    """A proxy may answer 200 with anything."""
    answer = httpx.Response(200, html="<html>")
    with (
        Client(URL, retries=ONCE, transport=httpx.MockTransport(lambda _: answer)) as client,
        pytest.raises(InvalidResponse, match="text/html"),
    ):
        next(client.stream(context="it is"))
