"""POST /v1/next_token in two steps: the query, and what is made of its one row."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from app.requests.limits import check_context, check_ids
from app.requests.prompt import Prompt, parse_prompt
from app.requests.worker_threads import check_wanted
from app.schemas.next_token import NextTokenRequest, TokenProbability
from model_runtime import (
    InvalidQuery,
    LogprobQuery,
    LogprobResult,
    ModelInfo,
    Tokenizer,
    TokenLogprob,
)

DEFAULT_TOP_K = 10


@dataclass(frozen=True, slots=True)
class NextTokenPlan:
    """A request in token ids.

    Attributes:
        request: what was asked.
        query: the one row; its targets are the request's ids, then its labels' ids. At another
            temperature than 1 its best token is asked for, also where none is listed.
        listed: most probable tokens that a response lists, at most.
        capped: the listed tokens may fall short of ``top_p``: the caller set a most himself, or
            they are the whole vocabulary.
    """

    request: NextTokenRequest
    query: LogprobQuery
    listed: int
    capped: bool

    @property
    def prompt_tokens(self) -> int:
        """Length of the path that the row follows."""
        return len(self.query.tokens)


@dataclass(frozen=True, slots=True)
class NextTokenBody:
    """The part of a next-token distribution that a response lists."""

    tokens: list[TokenProbability]
    chosen: list[TokenProbability]
    entropy: float
    remaining_probability: float


def plan_next_token(
    tokenizer: Tokenizer, info: ModelInfo, max_top: int, request: NextTokenRequest
) -> NextTokenPlan:
    """Tokenize the context and the labels; ``max_top`` is the longest list by default.

    Raises:
        InvalidQuery: the context, an id, or a label that is not one token is at fault.
    """
    check_ids("token_ids", request.token_ids, info)
    prompt = parse_prompt(tokenizer, info, request)
    prefix = prompt.token_ids(tokenizer)
    check_context(len(prefix), info, room=0)
    labels = label_ids(tokenizer, prompt, request.labels)
    listed = min(_top_k(request, max_top), info.vocab_size)
    temperatures = () if request.temperature == 1.0 else (request.temperature,)
    query = LogprobQuery(
        tokens=prefix,
        score_from=len(prefix),
        targets=(*request.token_ids, *labels),
        top_k=max(1, listed) if temperatures else listed,
        summary=True,
        temperatures=temperatures,
    )
    capped = request.top_k is not None or listed == info.vocab_size
    return NextTokenPlan(request, query, listed, capped)


def build_distribution(
    tokenizer: Tokenizer, plan: NextTokenPlan, answer: LogprobResult
) -> NextTokenBody:
    """Probabilities at the request's temperature; everything else is the model's own."""
    request, targets = plan.request, plan.query.targets or ()
    probability = _probability(request.temperature, answer)
    top = answer.top[0][: plan.listed] if answer.top else ()
    listed = [
        _entry(tokenizer, token.id, token.logprob, rank, probability)
        for token, rank in _with_ranks(top)
    ]
    tokens = _until_mass(listed, request.top_p, capped=plan.capped)
    chosen = [
        _entry(tokenizer, token_id, logprob, rank, probability)
        for token_id, logprob, rank in zip(
            targets, answer.target_logprobs, answer.target_ranks, strict=True
        )
    ]
    mass = math.fsum(token.probability for token in tokens)
    return NextTokenBody(tokens, chosen, answer.entropies[0], max(0.0, 1.0 - mass))


def label_ids(tokenizer: Tokenizer, prompt: Prompt, labels: Sequence[str]) -> list[int]:
    """The one token that each label is after the context.

    After a text the two are tokenized together; after ids and messages the label alone.

    Raises:
        InvalidQuery: a label is several tokens, or merges with the context's end; names it.
    """
    if not labels:
        return []
    for index, label in enumerate(labels):
        tokenizer.check_text(label, f"labels.{index}")
    if not isinstance(prompt.content, str):
        return [_only(ids, index) for index, ids in enumerate(tokenizer.encode_batch(labels))]
    context = tokenizer.encode(prompt.content)
    whole = tokenizer.encode_batch([prompt.content + label for label in labels], check=check_wanted)
    return [_only(_after(context, ids, index), index) for index, ids in enumerate(whole)]


def _after(context: list[int], whole: list[int], index: int) -> list[int]:
    if whole[: len(context)] != context:
        raise _not_one_token(index, "merges with the end of the context")
    return whole[len(context) :]


def _only(ids: list[int], index: int) -> int:
    if len(ids) != 1:
        raise _not_one_token(index, f"is {len(ids)} tokens")
    return ids[0]


def _not_one_token(index: int, reason: str) -> InvalidQuery:
    param = f"labels.{index}"
    return InvalidQuery(f"{reason}, not one token; use /v1/score for it", param=param)


def _top_k(request: NextTokenRequest, max_top: int) -> int:
    if request.top_k is not None:
        return request.top_k
    return min(DEFAULT_TOP_K, max_top) if request.top_p is None else max_top


def _probability(temperature: float, answer: LogprobResult) -> Callable[[float], float]:
    """exp(logprob / T) / sum over the vocabulary, as a function of the log-probability.

    At temperature 1 these are the model's own probabilities.
    """
    if temperature == 1.0:
        return math.exp
    best, log_partition = answer.top[0][0].logprob, answer.log_partitions[0]
    return lambda logprob: math.exp((logprob - best) / temperature - log_partition)


def _with_ranks(top: Sequence[TokenLogprob]) -> Iterable[tuple[TokenLogprob, int]]:
    rank = 0
    for place, token in enumerate(top, start=1):
        if place == 1 or token.logprob < top[place - 2].logprob:
            rank = place
        yield token, rank


def _until_mass(
    tokens: list[TokenProbability], top_p: float | None, *, capped: bool
) -> list[TokenProbability]:
    """The fewest tokens that reach ``top_p``; ``capped``: the caller set a most himself."""
    if top_p is None:
        return tokens
    mass = 0.0
    for count, token in enumerate(tokens, start=1):
        mass += token.probability
        if mass >= top_p:
            return tokens[:count]
    if not capped:
        raise InvalidQuery(
            f"the {len(tokens)} most probable tokens hold {mass:.6f} of the mass; a "
            "response lists no more, so ask for less, or give top_k as well",
            "top_p",
        )
    return tokens


def _entry(
    tokenizer: Tokenizer,
    token_id: int,
    logprob: float,
    rank: int,
    probability: Callable[[float], float],
) -> TokenProbability:
    return TokenProbability(
        id=token_id,
        text=tokenizer.token_text(token_id),
        logprob=logprob,
        probability=probability(logprob),
        rank=rank,
    )
