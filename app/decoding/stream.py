"""The tokens of a completion as a stream shows them."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from app.decoding.plan import DecodePlan
from app.decoding.response import completion_bytes
from app.requests.token_details import top_logprob
from app.schemas.decode_response import DecodedToken
from model_runtime import GeneratedToken, Tokenizer


class TokenStream:
    """Reads the tokens of one completion in order; their texts together are its text.

    Attributes:
        length: tokens read so far.
    """

    def __init__(self, tokenizer: Tokenizer, plan: DecodePlan) -> None:
        self.length = 0
        self._tokenizer = tokenizer
        self._plan = plan
        stops = [stop.encode() for stop in plan.request.stop]
        self._text = TextStream(stops, plan.shift_bytes)

    def to_event(self, token: GeneratedToken) -> DecodedToken:
        """The next token."""
        index, self.length = self.length, self.length + 1
        return DecodedToken(
            index=index,
            id=token.id,
            text=self._grow(token),
            logprob=token.logprob,
            rank=token.rank,
            top_logprobs=[top_logprob(self._tokenizer, entry) for entry in token.top],
        )

    def _grow(self, token: GeneratedToken) -> str:
        if token.completion is None:
            return self._text.push(self._plan.text_bytes(token.id))
        return self._text.finish(completion_bytes(self._tokenizer, self._plan, token.completion))


class TextStream:
    """The text of one completion while it grows.

    Args:
        stops: what may end the text; each at least one byte long.
        skip: so many bytes at the beginning are no part of the text.
    """

    def __init__(self, stops: Sequence[bytes], skip: int = 0) -> None:
        self._stops = tuple(stops)
        self._skip = skip
        self._held = b""
        self._released = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, data: bytes) -> str:
        """What the text surely grows by, now that ``data`` was generated."""
        self._held += data
        free = len(self._held) - self._could_stop()
        begin = min(free, max(0, self._skip - self._released))
        piece, self._held = self._held[begin:free], self._held[free:]
        self._released += free
        return self._decoder.decode(piece)

    def finish(self, content: bytes) -> str:
        """The rest, now that ``content`` is known to be all of the text's bytes."""
        rest = content[max(0, self._released - self._skip) :]
        return self._decoder.decode(rest, final=True)

    def _could_stop(self) -> int:
        """Length of the longest end of what is held that begins some stop, without being all of it.

        It cannot begin before what was held already, so nothing else need be kept.
        """
        for begin in range(len(self._held)):
            tail = self._held[begin:]
            if any(len(stop) > len(tail) and stop.startswith(tail) for stop in self._stops):
                return len(tail)
        return 0
