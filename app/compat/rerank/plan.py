"""Rerank, first half: a query and its documents to questions about token paths.

The prompt of each document is one path; all are asked at once, and what they share is computed
once. ``query_likelihood`` scores the query's own tokens, as /v1/score would behind the same text;
``yes_no`` asks for two tokens behind the whole prompt, by id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.compat.rerank.activation import Activation
from app.compat.rerank.config import RerankPrompt
from app.compat.rerank.prompts import PromptPath, PromptPaths
from app.compat.rerank.rerank_query import RerankQuery, document_texts
from app.compat.rerank.templates import Ids, Mode, Slot
from app.compat.rerank.truncation import truncate
from app.requests.worker_threads import check_wanted
from app.schemas.bounds import MAX_RERANK_BYTES
from app.scoring.token_paths import PathQueries
from model_runtime import InvalidQuery, LogprobQuery, ModelInfo, Tokenizer, common_prefix


@dataclass(frozen=True, slots=True)
class RerankPlan:
    """What the answers are to be read with.

    Attributes:
        mode: what is made of them.
        activation: of the mode ``recipe``.
        field: the documents' name on the wire.
        cut: indices of the documents that were cut.
        tokens: of all prompts.
        needed: so many of them the model must have been fed, now or before.
        unspelled: indices of the documents of which characters were left out.
    """

    mode: Mode
    activation: Activation
    field: str
    cut: tuple[int, ...]
    tokens: int
    needed: int
    unspelled: tuple[int, ...] = ()


def plan_rerank(
    prompt: RerankPrompt,
    question: RerankQuery,
    tokenizer: Tokenizer,
    info: ModelInfo,
) -> PathQueries[RerankPlan]:
    """The question of each document, in order.

    Raises:
        DeadlineExceeded: the time ran out first.
        InvalidQuery: a setting, the query or a document is at fault, named by ``param``.
    """
    _check_control(tokenizer, prompt)
    targets = _target_ids(tokenizer, prompt)
    limit = prompt.longest(info)
    documents, cut, unspelled = _read_documents(tokenizer, prompt, question)
    prompts = PromptPaths(tokenizer, prompt, question)
    paths = prompts.of(range(len(documents)), documents)
    long = [index for index, path in enumerate(paths) if len(path.tokens) > limit]
    for index, path in prompts.truncated_to_fit(long, documents, paths, limit):
        paths[index] = path
        cut.append(index)
    if not targets:
        _check_scored(paths, question)
    tokens = sum(len(path.tokens) for path in paths)
    scored = sum(len(path.tokens) - path.start for path in paths) + len(paths) * bool(targets)
    queries = _queries(paths, targets, question)
    needed = sum(query.last_row for query in queries)
    return PathQueries(
        queries=queries,
        plan=RerankPlan(
            prompt.mode,
            "sigmoid" if prompt.recipe is None else prompt.recipe.activation,
            question.field,
            tuple(sorted(set(cut))),
            tokens,
            needed,
            unspelled=unspelled,
        ),
        prompt_tokens=sum(path.start for path in paths),
        scored_tokens=scored,
    )


def _check_control(tokenizer: Tokenizer, prompt: RerankPrompt) -> None:
    """Raise ``InvalidQuery`` where the model lacks a control token that the template is made of."""
    for text in prompt.control:
        ids = tokenizer.encode(text, parse_special=True)
        if len(ids) != 1 or ids[0] not in tokenizer.control_ids:
            raise InvalidQuery(
                f"it needs the token {text}, which this model does not have", "template"
            )


def _target_ids(tokenizer: Tokenizer, prompt: RerankPrompt) -> tuple[int, ...]:
    """The ids whose logits count; none where the query's own tokens are scored."""
    if prompt.recipe is not None and prompt.labels is None:
        return prompt.recipe.label_ids
    return _label_ids(tokenizer, prompt.labels)


def _label_ids(tokenizer: Tokenizer, labels: tuple[str, str] | None) -> tuple[int, ...]:
    """The ids for yes and no; none where there are no labels."""
    ids: list[int] = []
    for index, label in enumerate(labels or ()):
        param = f"labels.{index}"
        tokenizer.check_text(label, param)
        encoded = tokenizer.encode(label)
        if len(encoded) != 1:
            raise InvalidQuery(
                f"{label!r} is {len(encoded)} tokens here; a label is exactly one", param
            )
        ids += encoded
    if len(set(ids)) != len(ids):
        raise InvalidQuery("both are the same token", "labels")
    return tuple(ids)


def _read_documents(
    tokenizer: Tokenizer, prompt: RerankPrompt, question: RerankQuery
) -> tuple[list[str], list[int], tuple[int, ...]]:
    """The documents, cut as the caller wants them, the indices of those that were, and of those of
    which characters were left out."""
    documents = document_texts(question.documents, question.rank_fields)
    _check_size(prompt, question, documents)
    for text in prompt.template.texts:
        tokenizer.check_text(text, "template")
    tokenizer.check_text(prompt.instruction, "instruction")
    for index, query in enumerate(question.queries):
        check_wanted()
        tokenizer.check_text(query, question.query_param(index))
    unspelled = _spelled(tokenizer, question, documents)
    limit = question.max_tokens
    if limit is None:
        return documents, [], unspelled
    # A token stands for a byte at least.
    long = [index for index, document in enumerate(documents) if len(document.encode()) > limit]
    short = truncate(tokenizer, [documents[index] for index in long], limit)
    cut = [index for index, text in zip(long, short, strict=True) if text != documents[index]]
    for index, text in zip(long, short, strict=True):
        documents[index] = text
    return documents, cut, unspelled


def _spelled(tokenizer: Tokenizer, question: RerankQuery, documents: list[str]) -> tuple[int, ...]:
    """Leave out of each document what the vocabulary cannot spell, where the caller's answer can
    say so; the indices of those that it changed."""
    changed = []
    for index, document in enumerate(documents):
        check_wanted()
        param = f"{question.field}.{index}"
        if question.leaves_out:
            documents[index] = tokenizer.spellable(document, param)
            if documents[index] != document:
                changed.append(index)
        else:
            tokenizer.check_text(document, param)
    return tuple(changed)


def _check_size(prompt: RerankPrompt, question: RerankQuery, documents: Sequence[str]) -> None:
    """Raise ``InvalidQuery`` for what would take too long to tokenize, before that begins."""
    pieces = prompt.template.pieces
    parts = (*prompt.template.texts, prompt.instruction)
    around = sum(len(part.encode()) for part in parts)
    queries = sum(len(query.encode()) for query in question.queries)
    if len(question.queries) == 1:
        queries *= len(documents)
    shown = sum(len(document.encode()) for document in documents) * pieces.count(Slot.DOCUMENT)
    size = shown + around * len(documents) + queries * pieces.count(Slot.QUERY)
    if size > MAX_RERANK_BYTES:
        raise InvalidQuery(
            f"with the prompt around each of them they are {size} bytes; a "
            f"request may have {MAX_RERANK_BYTES}",
            question.field,
        )


def _check_scored(paths: Sequence[PromptPath], question: RerankQuery) -> None:
    for index, path in enumerate(paths):
        if path.start == 0:
            param = f"{question.field}.{index}"
            raise InvalidQuery("nothing stands before the query", param)
        if path.start == len(path.tokens):
            param = question.query_param(index)
            raise InvalidQuery("it has no tokens", param)


def _queries(
    paths: Sequence[PromptPath], targets: tuple[int, ...], question: RerankQuery
) -> list[LogprobQuery]:
    if not targets:
        # A document is worth keeping: other queries will be asked behind it.
        return [LogprobQuery(path.tokens, path.start) for path in paths]
    # Behind the query a document is not: only what all its prompts share will be wanted again.
    of_query: dict[str, list[Ids]] = {}
    for index, path in enumerate(paths):
        of_query.setdefault(question.query(index), []).append(path.tokens)
    keep = {query: common_prefix(min(those), max(those)) for query, those in of_query.items()}
    return [
        LogprobQuery(
            path.tokens,
            path.start,
            targets,
            logits=len(targets) == 1,
            keep=keep[question.query(index)],
        )
        for index, path in enumerate(paths)
    ]
