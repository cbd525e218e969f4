"""One choice of a streamed completion, piece by piece."""

from __future__ import annotations

from app.compat.openai.choices import ChoiceWriter, piece
from app.compat.openai.completions_wire import CompletionRequest
from app.compat.openai.reply import CompletionChoice
from app.compat.openai.tokens import alternatives
from app.schemas.decode_reply import DecodedSequence, DecodedToken
from model_runtime import Tokenizer


class PieceWriter:
    """Writes the pieces of one prompt's choice, in order; together they are the whole choice.

    Args:
        request: what was asked.
        tokenizer: the model's.
        index: of the choice.
        writer: of the same choice as a whole.
    """

    def __init__(
        self, request: CompletionRequest, tokenizer: Tokenizer, index: int, writer: ChoiceWriter
    ) -> None:
        self._request = request
        self._tokenizer = tokenizer
        self._index = index
        self._writer = writer
        self._columns = writer.columns()

    def echo(self) -> CompletionChoice:
        """The prompt; all of the choice where nothing is generated."""
        columns = self._columns
        return piece(
            self._index,
            self._writer.echo,
            None if columns is None else columns.taken(),
            None if self._request.max_tokens else "length",
        )

    def token(self, token: DecodedToken) -> CompletionChoice:
        """The next token, and what the text surely grows by."""
        columns = self._columns
        if columns is None:
            return piece(self._index, token.text)
        count = self._request.logprobs or 0
        top = alternatives(token.top_logprobs, count, token.id, token.logprob)
        columns.add([token.id], [token.logprob], [top])
        return piece(self._index, token.text, columns.taken())

    def end(self, found: DecodedSequence) -> CompletionChoice:
        """Why nothing follows."""
        return piece(self._index, "", finish_reason=found.finish_reason)
