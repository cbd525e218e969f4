"""The prompts of a completions request as token paths, and what is asked about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.compat.openai.request import CompletionRequest
from app.compat.openai.token_fields import check_tokens
from app.requests.limits import Limits, check_ids
from app.requests.token_details import path_bytes
from app.requests.worker_threads import check_wanted
from app.schemas.bounds import (
    MAX_COMPLETION_ENTRIES,
    MAX_COMPLETION_TOKENS,
    MAX_ECHO_BYTES,
    MAX_RESULTS,
    MAX_TOKEN_ENTRIES,
    MAX_TOP_ENTRIES,
)
from app.scoring.token_paths import PathQueries
from model_runtime import InvalidQuery, LogprobQuery, ModelInfo, PathTooLong, Tokenizer


@dataclass(frozen=True, slots=True)
class PromptPath:
    """One prompt.

    Attributes:
        param: its name in the request, such as ``prompt.3``.
        ids: its token path, at least one token long, an added BOS included.
        content: the bytes that an echo of it shows.
        hidden: bytes that the path has before them: of an added BOS, and of a space that a
            tokenizer puts before every text.
    """

    param: str
    ids: tuple[int, ...]
    content: bytes
    hidden: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What the answers of the model belong to.

    Attributes:
        paths: of all prompts, in order.
        asked: whether a query was made for each of them.
        needed: tokens that the model must have been fed for all queries, one by one.
    """

    paths: tuple[PromptPath, ...]
    asked: tuple[bool, ...]
    needed: int


def plan_prompts(
    request: CompletionRequest, limits: Limits, tokenizer: Tokenizer, info: ModelInfo
) -> PathQueries[Plan]:
    """Tokenize, check, and ask what needs no search.

    That is an echoed prompt's own rows, and the row behind a prompt where one token follows.

    Raises:
        InvalidQuery: a prompt or a setting is at fault; named.
    """
    _check_choices(request)
    check_tokens(request, info)
    paths = _paths(request, tokenizer, info)
    _check_echoes(request, paths)
    _check_entries(request, limits, paths)
    queries = [_query(request, path.ids, info) for path in paths]
    return PathQueries(
        queries=[query for query in queries if query is not None],
        plan=Plan(
            tuple(paths),
            tuple(query is not None for query in queries),
            sum(query.last_row for query in queries if query is not None),
        ),
        prompt_tokens=sum(len(path.ids) for path in paths),
        scored_tokens=sum(_rows(query) for query in queries if query is not None),
    )


def is_one_greedy_token(request: CompletionRequest) -> bool:
    """Whether the completion is the most probable token behind the prompt, and no more."""
    one = request.max_tokens == 1 and request.beams == 1 and not request.stream
    return one and not request.token_rules.masks and request.constraint is None


def lists_prompt(request: CompletionRequest) -> bool:
    """Whether the prompt's own tokens are listed in front of those behind it."""
    return request.echo and request.logprobs is not None


def scores_prompt(request: CompletionRequest) -> bool:
    """Whether the log-probabilities of the prompt's own tokens are asked for."""
    return lists_prompt(request) or request.prompt_logprobs is not None


def _query(
    request: CompletionRequest, ids: tuple[int, ...], info: ModelInfo
) -> LogprobQuery | None:
    """One path, its rows, and the row behind it::

    tokens      x0   x1   x2
    rows             1    2    3
                     scored    the token that follows
    """
    once, scored = is_one_greedy_token(request), scores_prompt(request) and len(ids) > 1
    if not once and not scored:
        return None
    listed = min(max(request.logprobs or 0, request.prompt_logprobs or 0), info.vocab_size)
    return LogprobQuery(
        ids,
        score_from=1 if scored else len(ids),
        targets=() if once else None,
        top_k=max(1, listed) if once else listed,
        keep=len(ids),
    )


def _rows(query: LogprobQuery) -> int:
    return query.last_row - query.score_from + 1


def _paths(request: CompletionRequest, tokenizer: Tokenizer, info: ModelInfo) -> list[PromptPath]:
    prompts = request.prompts
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    encoded = iter(_encoded(request, tokenizer, texts))
    paths = []
    for index, prompt in enumerate(prompts):
        param = _param(request, index)
        text = prompt if isinstance(prompt, str) else None
        check_wanted()
        ids = next(encoded) if isinstance(prompt, str) else prompt
        check_ids(param, ids, info)
        path = _begun(request, tokenizer, ids, is_text=text is not None)
        _check_length(request, param, len(path), tokenizer, info)
        whole, content = path_bytes(tokenizer, path), path_bytes(tokenizer, ids)
        if text is not None and content.endswith(text.encode()):
            content = text.encode()
        paths.append(PromptPath(param, path, content, len(whole) - len(content)))
    return paths


def _param(request: CompletionRequest, index: int) -> str:
    return f"prompt.{index}" if request.is_batch else "prompt"


def _encoded(
    request: CompletionRequest, tokenizer: Tokenizer, texts: Sequence[str]
) -> list[list[int]]:
    for index, text in enumerate(texts):
        tokenizer.check_text(text, _param(request, index))
    return tokenizer.encode_batch(texts, parse_special=request.parse_special, check=check_wanted)


def _begun(
    request: CompletionRequest, tokenizer: Tokenizer, ids: Sequence[int], *, is_text: bool
) -> tuple[int, ...]:
    """The prompt behind what goes before it: BOS where that is said, else by the rule and once."""
    if request.add_bos is None:
        by_rule = request.add_special_tokens and is_text
        return tokenizer.with_prefix(ids) if by_rule else tuple(ids)
    if not request.add_bos:
        return tuple(ids)
    if tokenizer.bos_token_id is None:
        raise InvalidQuery("this model's tokenizer has no BOS to add", "add_bos")
    return (tokenizer.bos_token_id, *ids)


def _check_length(
    request: CompletionRequest, param: str, length: int, tokenizer: Tokenizer, info: ModelInfo
) -> None:
    if length == 0:
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        first = "set add_bos" if bos is not None else "this model has no BOS"
        sent = f"[{eos if bos is None else bos}]" if (bos, eos) != (None, None) else "a list of ids"
        raise InvalidQuery(f"an empty prompt needs a first token: {first}, or send {sent}", param)
    if length + request.max_tokens > info.max_model_len:
        raise PathTooLong(
            f"{length} tokens and max_tokens {request.max_tokens} are too many; the "
            f"model takes {info.max_model_len}",
            param,
        )


def _check_choices(request: CompletionRequest) -> None:
    """Refuse what would answer with more than a response holds, before anything is tokenized."""
    choices = len(request.prompts) * request.n
    if choices > MAX_RESULTS:
        raise InvalidQuery(
            f"{len(request.prompts)} prompts x {request.n} are too many choices; a response "
            f"may have {MAX_RESULTS}",
            "n",
        )
    if choices * request.max_tokens > MAX_COMPLETION_TOKENS:
        raise InvalidQuery(
            f"{choices} choices x {request.max_tokens} are too many tokens; a "
            f"response may have {MAX_COMPLETION_TOKENS}",
            "max_tokens",
        )


def _check_echoes(request: CompletionRequest, paths: Sequence[PromptPath]) -> None:
    """Refuse echoes that are too much text, above all the same ones many times over."""
    shown = request.n * sum(len(path.content) for path in paths) if request.echo else 0
    if shown > MAX_ECHO_BYTES:
        raise InvalidQuery(
            f"{shown} bytes are too many to show; a response may show {MAX_ECHO_BYTES}",
            "echo",
        )


def _check_entries(request: CompletionRequest, limits: Limits, paths: Sequence[PromptPath]) -> None:
    """Refuse what would list more than a response, or the operator, allows."""
    for param in ("logprobs", "prompt_logprobs"):
        count = getattr(request, param)
        if count is not None and count > limits.max_top_logprobs:
            raise InvalidQuery(
                f"{count} is more than this server allows, {limits.max_top_logprobs}", param
            )
    in_prompts = request.n * sum(len(path.ids) for path in paths)
    entries, param = 0, "logprobs"
    if request.logprobs is not None:
        generated = request.n * request.max_tokens
        _check_generated(generated, request.logprobs)
        listed = len(paths) * generated + (in_prompts if request.echo else 0)
        entries = listed * max(1, request.logprobs)
    if request.prompt_logprobs is not None:
        entries, param = entries + in_prompts * max(1, request.prompt_logprobs), "prompt_logprobs"
    if entries > MAX_COMPLETION_ENTRIES:
        raise InvalidQuery(
            f"{entries} tokens and alternatives are too many to list; a response may list "
            f"{MAX_COMPLETION_ENTRIES}",
            param,
        )


def _check_generated(generated: int, count: int) -> None:
    if generated > MAX_TOKEN_ENTRIES or generated * count > MAX_TOP_ENTRIES:
        raise InvalidQuery(
            f"{generated} tokens x {count} are too many to list behind one "
            f"prompt; {MAX_TOP_ENTRIES} may be, or {MAX_TOKEN_ENTRIES} tokens alone",
            "logprobs",
        )
