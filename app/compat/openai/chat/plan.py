"""The messages of a chat as a token path, and what is asked about it before any search.

::

    tokens      x0   x1   x2   y0   y1          y: the last message, where it is echoed
    rows             1    2    3    4
                               echoed
                     all of them with prompt_logprobs
"""

from __future__ import annotations

from dataclasses import dataclass

from app.compat.openai.chat.request import DEFAULT_CHOICE_TOKENS, ChatRequest
from app.compat.openai.token_fields import check_tokens
from app.requests.chat import Chat, Ending, render_chat
from app.requests.limits import Limits
from app.schemas.bounds import (
    MAX_COMPLETION_ENTRIES,
    MAX_COMPLETION_TOKENS,
    MAX_NEW_TOKENS,
    MAX_TOKEN_ENTRIES,
    MAX_TOP_ENTRIES,
)
from app.scoring.token_paths import PathQueries
from model_runtime import InvalidQuery, LogprobQuery, ModelInfo, PathTooLong, Tokenizer


@dataclass(frozen=True, slots=True)
class ChatPlan:
    """What the answers of the model belong to.

    Attributes:
        ids: the token path of the messages, at least one token long.
        echo_start: where in it the tokens of the echoed message begin; its length where nothing
            is echoed.
        echo: the text of that message.
        max_tokens: to generate at most.
        first_row: of the rows of the path that were asked for; None where none were.
        needed: tokens that the model must have been fed for them.
    """

    ids: tuple[int, ...]
    echo_start: int
    echo: str
    max_tokens: int
    first_row: int | None
    needed: int

    @property
    def echoed(self) -> tuple[int, ...]:
        """The tokens of the echoed message; the first may begin before it."""
        return self.ids[self.echo_start :]


def plan_chat(
    request: ChatRequest, limits: Limits, tokenizer: Tokenizer, info: ModelInfo
) -> PathQueries[ChatPlan]:
    """Render, tokenize, check, and ask for the rows of an echoed message.

    Raises:
        InvalidQuery: the messages or a setting are at fault; named.
    """
    messages = [message.native for message in request.messages]
    check_tokens(request, info)
    ending = request.ending(messages)
    echoes = _echoes(request, ending)
    chat = render_chat(tokenizer, messages, "messages", ending)
    max_tokens = _max_tokens(request, len(chat.ids), info)
    echo_start = chat.message_start(tokenizer) if echoes else len(chat.ids)
    query = _query(request, chat, echo_start, info)
    plan = ChatPlan(
        ids=chat.ids,
        echo_start=echo_start,
        echo=chat.message if echoes else "",
        max_tokens=max_tokens,
        first_row=None if query is None else query.score_from,
        needed=0 if query is None else query.last_row,
    )
    _check_entries(request, limits, plan)
    return PathQueries(
        queries=() if query is None else (query,),
        plan=plan,
        prompt_tokens=len(chat.ids),
        scored_tokens=0 if query is None else query.last_row - query.score_from + 1,
    )


def _echoes(request: ChatRequest, ending: Ending) -> bool:
    """Whether the answer begins with the last message."""
    nothing = request.wanted_tokens == 0
    echoes = nothing and ending == "open" if request.echo is None else request.echo
    if echoes and ending != "open":
        raise InvalidQuery("no message is gone on from, so that none can begin the answer", "echo")
    if nothing and not echoes and request.prompt_logprobs is None:
        raise InvalidQuery(
            "this should be at least 1: no message is gone on from, so that none can be scored",
            request.max_tokens_param,
        )
    return echoes


def _query(
    request: ChatRequest, chat: Chat, echo_start: int, info: ModelInfo
) -> LogprobQuery | None:
    listed = request.logprobs and echo_start < len(chat.ids)
    if listed and echo_start == 0:
        raise InvalidQuery("the chat template puts nothing before the message to score", "echo")
    scored = request.prompt_logprobs is not None and len(chat.ids) > 1
    if not listed and not scored:
        return None
    top = max(request.top_logprobs if listed else 0, request.prompt_logprobs or 0)
    return LogprobQuery(
        chat.ids,
        score_from=1 if scored else echo_start,
        top_k=min(top, info.vocab_size),
        keep=len(chat.ids),
    )


def _max_tokens(request: ChatRequest, length: int, info: ModelInfo) -> int:
    """Tokens to generate at most: as asked for, or what there is room for, up to
    ``DEFAULT_CHOICE_TOKENS`` where there are several choices."""
    if length == 0:
        raise InvalidQuery("the chat template makes no token of them", "messages")
    room = info.max_model_len - length
    wanted = request.wanted_tokens
    if room < (0 if wanted == 0 else 1):
        raise PathTooLong(
            f"{length} tokens are too many; the model takes {info.max_model_len}", "messages"
        )
    if wanted is None:
        limit = min(room, _listable(request))
        return limit if request.n == 1 else min(limit, DEFAULT_CHOICE_TOKENS)
    if wanted > room:
        raise PathTooLong(
            f"{length} tokens of messages and {wanted} more are too many; the model takes "
            f"{info.max_model_len}",
            request.max_tokens_param,
        )
    if request.n * wanted > MAX_COMPLETION_TOKENS:
        raise InvalidQuery(
            f"{request.n} choices x {wanted} are too many tokens; a response may have "
            f"{MAX_COMPLETION_TOKENS}",
            request.max_tokens_param,
        )
    return wanted


def _listable(request: ChatRequest) -> int:
    """Tokens of each choice that a response may hold, and list where it lists them."""
    limit = min(MAX_NEW_TOKENS, MAX_COMPLETION_TOKENS // request.n)
    if request.logprobs:
        limit = min(limit, MAX_TOKEN_ENTRIES // request.n)
    if request.top_logprobs:
        limit = min(limit, MAX_TOP_ENTRIES // (request.n * request.top_logprobs))
    return max(1, limit)


def _check_entries(request: ChatRequest, limits: Limits, plan: ChatPlan) -> None:
    """Refuse what would list more than a response, or the operator, allows."""
    for param in ("top_logprobs", "prompt_logprobs"):
        count = getattr(request, param) or 0
        if count > limits.max_top_logprobs:
            raise InvalidQuery(
                f"{count} is more than this server allows, {limits.max_top_logprobs}", param
            )
    entries, param = 0, "top_logprobs" if request.top_logprobs else "logprobs"
    if request.logprobs:
        generated, top = request.n * plan.max_tokens, request.top_logprobs
        if generated > MAX_TOKEN_ENTRIES or generated * top > MAX_TOP_ENTRIES:
            raise InvalidQuery(
                f"{generated} tokens x {top} are too many to list; {MAX_TOP_ENTRIES} may be, or "
                f"{MAX_TOKEN_ENTRIES} tokens alone",
                param,
            )
        entries = (request.n * len(plan.echoed) + generated) * max(1, top)
    if request.prompt_logprobs is not None:
        entries += len(plan.ids) * max(1, request.prompt_logprobs)
        param = "prompt_logprobs"
    if entries > MAX_COMPLETION_ENTRIES:
        raise InvalidQuery(
            f"{entries} tokens and alternatives are too many to list; a response may list "
            f"{MAX_COMPLETION_ENTRIES}",
            param,
        )
