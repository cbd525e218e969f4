"""The choices of a completions answer: prompts where they are echoed, and what follows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from app.compat.openai.logprobs import LogprobColumns, alternatives
from app.compat.openai.plan import PromptPath, lists_prompt
from app.compat.openai.prompt_logprobs import prompt_logprobs
from app.compat.openai.request import CompletionRequest
from app.compat.openai.response import CompletionChoice, CompletionLogprobs, ScoredChoice
from app.schemas.decode_response import DecodedSequence, DecodedToken
from model_runtime import LogprobResult, ModelInfo, StopStrings, Tokenizer, TokenLogprob


@dataclass(frozen=True, slots=True)
class Generated:
    """One completion of one prompt.

    Attributes:
        text: without an end token, cut before a stop text.
        ids, logprobs: [n] all that was generated.
        top: [n][*] the most probable tokens at each place; empty where nothing is listed.
    """

    text: str
    ids: Sequence[int]
    logprobs: Sequence[float]
    top: Sequence[dict[int, float]]
    finish_reason: Literal["stop", "length"]


NO_COMPLETION = Generated("", (), (), (), "length")
"""What follows a prompt that is only echoed."""


def next_token(
    request: CompletionRequest, tokenizer: Tokenizer, info: ModelInfo, row: Sequence[TokenLogprob]
) -> Generated:
    """The most probable token behind a prompt, of the row there: what greedy search finds."""
    token_id, logprob = row[0]
    rules, text_bytes = request.token_rules, request.token_rules.text_bytes(tokenizer)
    ends = rules.end_ids(tokenizer, info, request.stop, ignore_eos=request.ignore_eos)
    ended = token_id in ends
    content = b"" if ended else text_bytes(token_id)
    stops = StopStrings([stop.encode() for stop in request.stop], text_bytes)
    span = None if ended else stops.push(token_id).span
    if span is not None:
        content = content[: span[0]]
    return Generated(
        text=content.decode(errors="replace"),
        ids=(token_id,),
        logprobs=(logprob,),
        top=[alternatives(row, request.logprobs or 0, token_id, logprob)],
        finish_reason="length" if span is None and not ended else "stop",
    )


def decoded(request: CompletionRequest, found: DecodedSequence) -> Generated:
    """What a search found."""
    tokens, count = found.tokens or [], request.logprobs or 0
    return Generated(
        text=found.text,
        ids=found.token_ids,
        logprobs=[token.logprob for token in tokens],
        top=[alternatives(token.top_logprobs, count, token.id, token.logprob) for token in tokens],
        finish_reason=found.finish_reason,
    )


class ChoiceBuilder:
    """Writes the choices of one prompt, whole or in pieces.

    Args:
        request: what was asked.
        tokenizer: the model's.
        path: the prompt.
        answer: of the prompt's own rows; None where they were not asked for.
    """

    def __init__(
        self,
        request: CompletionRequest,
        tokenizer: Tokenizer,
        path: PromptPath,
        answer: LogprobResult | None,
    ) -> None:
        self._request = request
        self._tokenizer = tokenizer
        self._path = path
        self._answer = answer

    def choice(self, index: int, generated: Generated) -> CompletionChoice:
        """The whole choice."""
        columns = self.columns()
        if columns is not None:
            columns.add(generated.ids, generated.logprobs, generated.top)
        choice = CompletionChoice(
            text=self.echo + generated.text,
            index=index,
            logprobs=None if columns is None else columns.taken(),
            finish_reason=generated.finish_reason,
        )
        count = self._request.prompt_logprobs
        if count is None:
            return choice
        answer = self._answer or LogprobResult()
        scored = prompt_logprobs(self._tokenizer, self._path.ids, answer, count)
        return ScoredChoice(**dict(choice), prompt_logprobs=scored)

    @property
    def echo(self) -> str:
        """The prompt's text, where it is shown."""
        return self._path.content.decode(errors="replace") if self._request.echo else ""

    def columns(self) -> LogprobColumns | None:
        """With the tokens of an echoed prompt; None where no tokens are listed."""
        if self._request.logprobs is None:
            return None
        path, answer = self._path, self._answer or LogprobResult()
        text_bytes = self._request.token_rules.text_bytes(self._tokenizer)
        columns = LogprobColumns(self._tokenizer, text_bytes, path.hidden)
        if not lists_prompt(self._request):
            columns.pass_prompt(path.content)
            return columns
        # Of a prompt of one token no row was asked; of the others, one for each but the first.
        own = len(path.ids) - 1
        count = self._request.logprobs
        rows = answer.top[:own] or ((),) * own
        top = [
            alternatives(row, count, token_id, logprob)
            for row, token_id, logprob in zip(rows, path.ids[1:], answer.logprobs, strict=True)
        ]
        columns.add_prompt(path.ids, chain((None,), answer.logprobs), chain((None,), top))
        return columns


def chunk(
    index: int,
    text: str,
    logprobs: CompletionLogprobs | None = None,
    finish_reason: Literal["stop", "length"] | None = None,
) -> CompletionChoice:
    """A part of a choice, as a stream sends it."""
    return CompletionChoice(text=text, index=index, logprobs=logprobs, finish_reason=finish_reason)


class ChunkBuilder:
    """Writes the pieces of one prompt's choice, in order; together they are the whole choice.

    Args:
        request: what was asked.
        tokenizer: the model's.
        index: of the choice.
        writer: of the same choice as a whole.
    """

    def __init__(
        self, request: CompletionRequest, tokenizer: Tokenizer, index: int, writer: ChoiceBuilder
    ) -> None:
        self._request = request
        self._tokenizer = tokenizer
        self._index = index
        self._writer = writer
        self._columns = writer.columns()

    def echo(self) -> CompletionChoice:
        """The prompt; all of the choice where nothing is generated."""
        columns = self._columns
        return chunk(
            self._index,
            self._writer.echo,
            None if columns is None else columns.taken(),
            None if self._request.max_tokens else "length",
        )

    def token(self, token: DecodedToken) -> CompletionChoice:
        """The next token, and what the text surely grows by."""
        columns = self._columns
        if columns is None:
            return chunk(self._index, token.text)
        count = self._request.logprobs or 0
        top = alternatives(token.top_logprobs, count, token.id, token.logprob)
        columns.add([token.id], [token.logprob], [top])
        return chunk(self._index, token.text, columns.taken())

    def end(self, found: DecodedSequence) -> CompletionChoice:
        """Why nothing follows."""
        return chunk(self._index, "", finish_reason=found.finish_reason)
