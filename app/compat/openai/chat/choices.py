"""The choices of a chat's answer, whole or in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from app.compat.openai.chat.plan import ChatPlan
from app.compat.openai.chat.request import ChatRequest
from app.compat.openai.chat.response import (
    AssistantMessage,
    ChatChoice,
    ChatLogprobs,
    ChatTokenLogprob,
    ChatTopLogprob,
    ChunkChoice,
    FirstDelta,
    NoDelta,
    TextDelta,
)
from app.compat.openai.logprobs import Alternative, token_names
from app.schemas.decode_response import DecodedSequence, DecodedToken
from model_runtime import LogprobResult, Tokenizer

IMPOSSIBLE: Final = -9999.0
"""What this API says for the logarithm of 0, which JSON does not have."""


class ChoiceWriter:
    """Writes the choices of one answer.

    Args:
        request: what was asked.
        tokenizer: the model's.
        plan: what the answers belong to.
        answer: of the echoed message's rows; None where they were not asked for.
    """

    def __init__(
        self,
        request: ChatRequest,
        tokenizer: Tokenizer,
        plan: ChatPlan,
        answer: LogprobResult | None,
    ) -> None:
        self._lists = request.logprobs
        self._top = request.top_logprobs
        self._tokenizer = tokenizer
        self._names = token_names(tokenizer) if request.logprobs else ()
        self._echo = plan.echo
        self._echoed = self._echoed_tokens(plan, answer) if request.logprobs else []

    def echo(self) -> ChatChoice:
        """The last message alone."""
        return ChatChoice(
            index=0,
            message=AssistantMessage(content=self._echo),
            logprobs=self._logprobs(self._echoed),
            finish_reason="length",
        )

    def choice(self, index: int, found: DecodedSequence) -> ChatChoice:
        """What a search found, behind the last message where that is echoed."""
        tokens = [
            self._token(token.id, token.logprob, token.top_logprobs) for token in found.tokens or ()
        ]
        return ChatChoice(
            index=index,
            message=AssistantMessage(content=self._echo + found.text),
            logprobs=self._logprobs([*self._echoed, *tokens]),
            finish_reason=found.finish_reason,
        )

    def first_piece(self) -> ChunkChoice:
        """Who speaks, and the last message where it is echoed."""
        return ChunkChoice(
            index=0,
            delta=FirstDelta(content=self._echo),
            logprobs=self._logprobs(self._echoed) if self._echoed else None,
        )

    def piece(self, token: DecodedToken) -> ChunkChoice:
        """The next token, and what the text surely grows by."""
        listed = [self._token(token.id, token.logprob, token.top_logprobs)] if self._lists else []
        return ChunkChoice(
            index=0, delta=TextDelta(content=token.text), logprobs=self._logprobs(listed)
        )

    def last_piece(self, found: DecodedSequence | None) -> ChunkChoice:
        """Why nothing follows; None where nothing was generated."""
        reason = "length" if found is None else found.finish_reason
        return ChunkChoice(index=0, delta=NoDelta(), finish_reason=reason)

    def _logprobs(self, tokens: list[ChatTokenLogprob]) -> ChatLogprobs | None:
        return ChatLogprobs(content=tokens) if self._lists else None

    def _echoed_tokens(
        self, plan: ChatPlan, answer: LogprobResult | None
    ) -> list[ChatTokenLogprob]:
        if answer is None or plan.first_row is None:
            return []
        before = plan.echo_start - plan.first_row
        rows = answer.top[before:] if self._top else ((),) * len(plan.echoed)
        logprobs = answer.logprobs[before:]
        return [
            self._token(token_id, logprob, row[: self._top])
            for token_id, logprob, row in zip(plan.echoed, logprobs, rows, strict=True)
        ]

    def _token(self, token_id: int, logprob: float, top: Sequence[Alternative]) -> ChatTokenLogprob:
        return ChatTokenLogprob(
            token=self._names[token_id],
            logprob=max(logprob, IMPOSSIBLE),
            bytes=list(self._tokenizer.token_bytes(token_id)),
            top_logprobs=[
                ChatTopLogprob(
                    token=self._names[one.id],
                    logprob=max(one.logprob, IMPOSSIBLE),
                    bytes=list(self._tokenizer.token_bytes(one.id)),
                )
                for one in top
            ],
        )
