"""The tokens of a completion as a stream shows them."""

from __future__ import annotations

from app.completions import completion_bytes
from app.decode_plan import DecodePlan
from app.schemas.decode_reply import DecodedToken
from app.text_stream import TextStream
from app.token_details import top_logprob
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

    def read(self, token: GeneratedToken) -> DecodedToken:
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
            return self._text.push(self._tokenizer.token_bytes(token.id))
        return self._text.finish(completion_bytes(self._tokenizer, self._plan, token.completion))
