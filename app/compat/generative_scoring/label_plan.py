"""Queries and items as token paths, and the probabilities of labels behind them.

===================  ============================  ============================================
vLLM                 T(query) T(item)              each tokenized by itself
SGLang               T(query + item)               joined as text; token ids are put together
===================  ============================  ============================================

With ``item_first`` the two change places. What the tokenizer's own rule puts before a text, such
as BOS, is the first of the path; a text that begins with it already gets no second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from app.compat.generative_scoring.label_schemas import GenerativeScoringRequest, LabelRequest
from app.requests.encoding import encode_in_chunks
from app.requests.limits import check_ids
from app.requests.worker_threads import check_wanted
from app.schemas.bounds import MAX_JOINED_CHARS, MAX_LABEL_SCORES, MAX_PATH_TOKENS
from app.scoring.token_paths import PathQueries
from model_runtime import (
    InvalidQuery,
    LogprobQuery,
    LogprobResult,
    ModelInfo,
    Tokenizer,
    common_prefix,
    probabilities,
)

Ids = tuple[int, ...]


def plan_labels(request: LabelRequest, tokenizer: Tokenizer, info: ModelInfo) -> PathQueries[None]:
    """One query for each item: the labels behind it.

    Raises:
        DeadlineExceeded: the time ran out first.
        InvalidQuery: a label is no token, a text or an id of query or items is at fault, or items
            times labels are too many.
    """
    labels = tuple(request.label_token_ids)
    check_ids("label_token_ids", labels, info)
    _check_scores(len(request.items), len(labels))
    _check_parts(request, tokenizer, info)
    separate = isinstance(request, GenerativeScoringRequest)
    if separate or not isinstance(request.query, str):
        paths = _put_together(request, tokenizer)
    else:
        paths = _joined(request, request.query, tokenizer)
    if isinstance(request.query, str) and getattr(request, "add_special_tokens", True):
        paths = list(map(tokenizer.with_prefix, paths))
    for index, path in enumerate(paths):
        if not path:
            raise InvalidQuery("there is nothing before the label", f"items.{index}")
    # What all items share will be wanted again; an item behind it will not.
    keep = common_prefix(min(paths), max(paths))
    if isinstance(request, GenerativeScoringRequest) and not request.apply_softmax:
        # The others would be gathered for nothing.
        labels = labels[:1]
    queries = [LogprobQuery(path, len(path), labels, keep=keep) for path in paths]
    return PathQueries(queries, None, sum(map(len, paths)), len(labels) * len(queries))


def label_probabilities(answer: LogprobResult, *, apply_softmax: bool) -> list[float]:
    """Of each label: its share of that of all labels, or its own over the whole vocabulary."""
    if not apply_softmax:
        return [math.exp(logprob) for logprob in answer.target_logprobs]
    return [share for share in probabilities(answer.target_logprobs) if share is not None]


def first_probability(answer: LogprobResult, *, apply_softmax: bool) -> float:
    """That of the first label, the same number as in ``label_probabilities``."""
    first, *_ = label_probabilities(answer, apply_softmax=apply_softmax)
    return first


def item_field(index: int) -> str:
    """The field that the query with this index came from."""
    return f"items.{index}"


def _check_scores(items: int, labels: int) -> None:
    if items * labels > MAX_LABEL_SCORES:
        raise InvalidQuery(
            f"{labels} of them behind {items} items are {items * labels} scores; "
            f"a request may have {MAX_LABEL_SCORES}; send fewer items or labels",
            "label_token_ids",
        )


def _check_parts(request: LabelRequest, tokenizer: Tokenizer, info: ModelInfo) -> None:
    parts = [("query", request.query), *_named(request.items)]
    for param, part in parts:
        check_wanted()
        if isinstance(part, str):
            tokenizer.check_text(part, param)
        else:
            check_ids(param, part, info)


def _named(items: Sequence[str | list[int]]) -> Iterator[tuple[str, str | list[int]]]:
    return ((item_field(index), item) for index, item in enumerate(items))


def _put_together(request: LabelRequest, tokenizer: Tokenizer) -> list[Ids]:
    """The ids of query and item, one behind the other."""
    encode = _encoder(request, tokenizer)
    (query,) = _ids([request.query], encode)
    items = _ids(request.items, encode)
    _check_size(len(query) + len(item) for item in items)
    return [item + query if request.item_first else query + item for item in items]


def _joined(request: LabelRequest, query: str, tokenizer: Tokenizer) -> list[Ids]:
    """The ids of both texts as one."""
    items = [item for item in request.items if isinstance(item, str)]
    encode = _encoder(request, tokenizer)
    if request.item_first:
        _check_chars(sum(map(len, items)) + len(query) * len(items))
        return _ids([item + query for item in items], encode)
    ids = tokenizer.encode(query)
    # Known of plain text alone: the parts of the query that no item can change.
    window = query if request.parse_special else tokenizer.unstable_suffix(query, ids)
    kept = tuple(ids[: len(ids) - len(tokenizer.encode(window))])
    _check_chars(sum(map(len, items)) + len(window) * len(items))
    ends = _ids([window + item for item in items], encode)
    _check_size(len(kept) + len(end) for end in ends)
    return [kept + end for end in ends]


def _encoder(
    request: LabelRequest, tokenizer: Tokenizer
) -> Callable[[Sequence[str]], list[list[int]]]:
    return lambda texts: encode_in_chunks(tokenizer, texts, parse_special=request.parse_special)


def _ids(
    parts: Sequence[str | list[int]], encode: Callable[[Sequence[str]], list[list[int]]]
) -> list[Ids]:
    """Each part in ids; they are all text or all ids."""
    texts = [part for part in parts if isinstance(part, str)]
    if texts:
        return list(map(tuple, encode(texts)))
    return [tuple(part) for part in parts if not isinstance(part, str)]


def _check_chars(characters: int) -> None:
    if characters > MAX_JOINED_CHARS:
        raise InvalidQuery(
            f"joined with the query they are {characters} characters to tokenize; a "
            f"request may have {MAX_JOINED_CHARS}; send fewer, or token ids",
            "items",
        )


def _check_size(lengths: Iterable[int]) -> None:
    tokens = sum(lengths)
    if tokens > MAX_PATH_TOKENS:
        raise InvalidQuery(
            f"with the query they are {tokens} tokens; a request may have {MAX_PATH_TOKENS}",
            "items",
        )
