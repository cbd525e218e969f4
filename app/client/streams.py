"""A streamed answer, read from bytes as they come in."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import TypeAdapter

from app.client.errors import UnreadableAnswer, api_error
from app.client.events import Event, EventReader
from app.client.exchange import Call
from app.schemas.decode_reply import DecodedToken, DecodeResponse

_TOKEN: TypeAdapter[DecodedToken] = TypeAdapter(DecodedToken)


class AnswerStream:
    """Takes the body of one stream, gives its tokens and in the end its whole answer."""

    def __init__(self, call: Call[DecodeResponse]) -> None:
        self._call = call
        self._reader = EventReader()
        self._is_whole = False

    def feed(self, piece: bytes) -> Iterator[DecodedToken | DecodeResponse]:
        """What is complete with these bytes. Events of other kinds are left out.

        Raises:
            ApiError: the server failed, and says so in its stream.
            UnreadableAnswer: an event is none of this server.
        """
        for event in self._reader.feed(piece):
            if event.name == "error":
                raise api_error(None, event.data.encode(), self._call.request_id)
            if event.name in ("token", "result"):
                yield self._read(event)

    def end(self) -> None:
        """There are no more bytes. Raises ``UnreadableAnswer`` where the answer has not come."""
        if not self._is_whole:
            raise UnreadableAnswer(
                f"{self._call.path} ended its stream before the result",
                request_id=self._call.request_id,
            )

    def _read(self, event: Event) -> DecodedToken | DecodeResponse:
        data = event.data.encode()
        try:
            if event.name == "token":
                return _TOKEN.validate_json(data, extra="ignore")
            answer = self._call.read(data)
        except ValueError as error:
            raise UnreadableAnswer(
                f"{self._call.path} sent an event that cannot be read: {error}",
                request_id=self._call.request_id,
            ) from error
        self._is_whole = True
        return answer
