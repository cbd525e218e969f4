"""POST /v1/decode in two steps: a search to run, and its completions as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.limits import check_context, check_entries, check_ids
from app.prompt import Prompt, read_prompt
from app.schemas.decode import DecodedSequence, DecodeRequest
from app.schemas.response import TokenDetail
from app.token_details import Span, path_bytes, token_details
from model_runtime import (
    BeamSearch,
    DecodingLimits,
    DecodingResult,
    FinishReason,
    GreedySearch,
    Hypothesis,
    ModelInfo,
    PathTooLong,
    StopStrings,
    Tokenizer,
)


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """A request in token ids.

    Attributes:
        request: what was asked.
        prompt: its context.
        prompt_tokens: length of the path that is continued.
        search: to be run; good for one run.
    """

    request: DecodeRequest
    prompt: Prompt
    prompt_tokens: int
    search: GreedySearch | BeamSearch


def plan_decode(tokenizer: Tokenizer, info: ModelInfo, request: DecodeRequest) -> DecodePlan:
    """Tokenize the context and set up the search.

    Raises:
        InvalidQuery: the context or a setting is at fault; named.
    """
    check_ids("stop_token_ids", request.stop_token_ids, info)
    check_entries(request.num_return_sequences * request.max_tokens, request)
    prompt = read_prompt(tokenizer, info, request)
    prefix = prompt.token_ids(tokenizer)
    check_context(len(prefix), info, room=1)
    _check_room(len(prefix), info, request)
    search = _search(prefix, _limits(tokenizer, info, request), info, request)
    return DecodePlan(request, prompt, len(prefix), search)


def decoded_sequences(
    tokenizer: Tokenizer, plan: DecodePlan, result: DecodingResult
) -> list[DecodedSequence]:
    """The completions, best first."""
    lists = plan.request.lists_tokens
    begin = len(plan.prompt.content_bytes(tokenizer)) if lists else 0
    return [
        DecodedSequence(
            index=index,
            text=_text(tokenizer, found),
            token_ids=list(found.token_ids),
            logprob=found.logprob,
            score=found.score,
            finish_reason="length" if found.finish_reason is FinishReason.LENGTH else "stop",
            tokens=_tokens(tokenizer, found, begin) if lists else None,
        )
        for index, found in enumerate(result.hypotheses)
    ]


def _check_room(prompt_tokens: int, info: ModelInfo, request: DecodeRequest) -> None:
    if prompt_tokens + request.max_tokens > info.max_model_len:
        raise PathTooLong(
            f"max_tokens: {prompt_tokens} tokens of context and {request.max_tokens} more are too "
            f"many; the model takes {info.max_model_len}",
            param="max_tokens",
        )


def _limits(tokenizer: Tokenizer, info: ModelInfo, request: DecodeRequest) -> DecodingLimits:
    ends = () if request.ignore_eos else info.end_token_ids
    stops = [stop.encode() for stop in request.stop]
    return DecodingLimits(
        max_tokens=request.max_tokens,
        min_tokens=request.min_tokens,
        end_token_ids=frozenset((*ends, *request.stop_token_ids)),
        stop=StopStrings(stops, tokenizer.token_bytes) if stops else None,
        top_logprobs=min(request.top_logprobs, info.vocab_size),
    )


def _search(
    prefix: Sequence[int], limits: DecodingLimits, info: ModelInfo, request: DecodeRequest
) -> GreedySearch | BeamSearch:
    if request.strategy == "greedy":
        return GreedySearch(prefix, limits, vocab_size=info.vocab_size)
    return BeamSearch(
        prefix,
        limits,
        vocab_size=info.vocab_size,
        num_beams=request.beams,
        num_return_sequences=request.num_return_sequences,
        length_penalty=request.length_penalty,
        early_stopping=request.early_stopping,
    )


def _visible_ids(found: Hypothesis) -> tuple[int, ...]:
    """The generated ids that stand for text: all but an end token."""
    return found.token_ids[:-1] if found.finish_reason is FinishReason.END else found.token_ids


def _text(tokenizer: Tokenizer, found: Hypothesis) -> str:
    content = path_bytes(tokenizer, _visible_ids(found))
    if found.stop_span is not None:
        content = content[: found.stop_span[0]]
    return content.decode("utf-8", "replace")


def _tokens(tokenizer: Tokenizer, found: Hypothesis, begin: int) -> list[TokenDetail]:
    spans: list[Span] = [*tokenizer.byte_offsets(_visible_ids(found), begin)]
    end = spans[-1][1] if spans else begin
    spans += [(end, end)] * (len(found.token_ids) - len(spans))
    return token_details(
        tokenizer, found.token_ids, spans, found.token_logprobs, found.token_ranks, found.top
    )
