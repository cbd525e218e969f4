"""A streamed answer, event by event."""

from __future__ import annotations

from httpx_sse import ServerSentEvent
from pydantic import TypeAdapter

from app.client.call import Call
from app.client.display.answers import DecodeAnswer
from app.client.errors import api_error
from app.schemas.decode_response import DecodedToken

_TOKEN: TypeAdapter[DecodedToken] = TypeAdapter(DecodedToken)


class AnswerStream:
    """Takes the events of one stream, gives its tokens and in the end its whole answer."""

    def __init__(self, call: Call[DecodeAnswer]) -> None:
        self._call = call
        self._is_whole = False

    def read(self, event: ServerSentEvent) -> DecodedToken | DecodeAnswer | None:
        """What the event says; None for one of another kind.

        Raises:
            ApiError: the server failed, and says so in its stream.
            InvalidResponse: the event is none of this server.
        """
        data = event.data.encode()
        try:
            match event.event:
                case "token":
                    return _TOKEN.validate_json(data, extra="ignore")
                case "result":
                    answer = self._call.read(data)
                    self._is_whole = True
                    return answer
        except ValueError as error:
            raise self._call.invalid(f"sent an event that cannot be read: {error}") from error
        if event.event == "error":
            raise api_error(None, data, self._call.request_id)
        return None

    def end(self) -> None:
        """There are no more events. Raises ``InvalidResponse`` where the answer has not come."""
        if not self._is_whole:
            raise self._call.invalid("ended its stream before the result")
