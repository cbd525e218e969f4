"""Rerank, first half: a query and its documents to questions about token paths.

The prompt of each document is one path; all are asked at once, and what they share is computed
once. ``query_likelihood`` scores the query's own tokens, as /v1/score would behind the same text;
``yes_no`` asks for two tokens behind the whole prompt, by id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.compat.rerank.cuts import Side, cuts_of, shortened
from app.compat.rerank.defaults import RerankPrompt
from app.compat.rerank.prompts import Mode, Slot
from app.compat.rerank.segments import Ids, TextRun, encode_segments, segments_of
from app.schemas.bounds import MAX_RERANK_BYTES
from app.scored_paths import PathPlan
from model_runtime import InvalidQuery, LogprobQuery, ModelInfo, PathTooLong, Tokenizer


@dataclass(frozen=True, slots=True)
class RerankQuestion:
    """What is ranked, and for what.

    Attributes:
        query: what is searched for.
        documents: what is ranked.
        field: the documents' name on the wire, for errors.
        max_tokens: documents are cut to so many tokens of their own; None for no such cut.
        fit: the side on which documents are cut whose prompts do not fit the model; None refuses
            them.
    """

    query: str
    documents: Sequence[str]
    field: str
    max_tokens: int | None = None
    fit: Side | None = None


@dataclass(frozen=True, slots=True)
class PromptPath:
    """The prompt of one document.

    Attributes:
        tokens: the whole path.
        start: position of its first scored token; the length of the path where none is.
    """

    tokens: Ids
    start: int


@dataclass(frozen=True, slots=True)
class RerankPlan:
    """What the answers are to be read with.

    Attributes:
        mode: what is made of them.
        field: the documents' name on the wire.
        cut: indices of the documents that were cut.
        tokens: of all prompts.
        needed: so many of them the model must have been fed, now or before.
    """

    mode: Mode
    field: str
    cut: tuple[int, ...]
    tokens: int
    needed: int


def plan_rerank(
    tokenizer: Tokenizer, info: ModelInfo, prompt: RerankPrompt, question: RerankQuestion
) -> PathPlan[RerankPlan]:
    """The question of each document, in order.

    Raises:
        InvalidQuery: a setting, the query or a document is at fault, named by ``param``.
    """
    _check_control(tokenizer, prompt)
    targets = _label_ids(tokenizer, prompt.labels)
    documents, cut = _read_documents(tokenizer, prompt, question)
    prompts = _Prompts(tokenizer, prompt, question)
    paths = prompts.of(documents)
    limit = info.max_model_len
    for index in [i for i, path in enumerate(paths) if len(path.tokens) > limit]:
        paths[index] = prompts.fitted(index, documents[index], len(paths[index].tokens), limit)
        cut.append(index)
    if not targets:
        _check_scored(paths, question.field)
    tokens = sum(len(path.tokens) for path in paths)
    scored = sum(len(path.tokens) - path.start for path in paths) + len(paths) * bool(targets)
    queries = _queries(paths, targets)
    needed = sum(query.last_row for query in queries)
    return PathPlan(
        queries=queries,
        meaning=RerankPlan(prompt.mode, question.field, tuple(sorted(set(cut))), tokens, needed),
        prompt_tokens=sum(path.start for path in paths),
        scored_tokens=scored,
    )


def _check_control(tokenizer: Tokenizer, prompt: RerankPrompt) -> None:
    """Raise ``InvalidQuery`` where the model lacks a control token that the template is made of."""
    for text in prompt.control:
        ids = tokenizer.encode(text, parse_special=True)
        if len(ids) != 1 or ids[0] not in tokenizer.control_ids:
            raise InvalidQuery(
                f"template: it needs the token {text}, which this model does not have", "template"
            )


def _check_text(tokenizer: Tokenizer, text: str, param: str) -> None:
    try:
        tokenizer.check_text(text, param)
    except InvalidQuery as error:
        # Cohere's and Jina's errors have no place for the field but the message.
        raise InvalidQuery(f"{param}: {error}", param) from error


def _label_ids(tokenizer: Tokenizer, labels: tuple[str, str] | None) -> tuple[int, ...]:
    """The ids for yes and no; none where there are no labels."""
    ids: list[int] = []
    for index, label in enumerate(labels or ()):
        param = f"labels.{index}"
        _check_text(tokenizer, label, param)
        encoded = tokenizer.encode(label)
        if len(encoded) != 1:
            raise InvalidQuery(
                f"{param}: {label!r} is {len(encoded)} tokens here; a label is exactly one", param
            )
        ids += encoded
    if len(set(ids)) != len(ids):
        raise InvalidQuery("labels: both are the same token", "labels")
    return tuple(ids)


def _read_documents(
    tokenizer: Tokenizer, prompt: RerankPrompt, question: RerankQuestion
) -> tuple[list[str], list[int]]:
    """The documents, cut as the caller wants them, and the indices of those that were."""
    for piece in prompt.template.pieces:
        if not isinstance(piece, Slot):
            _check_text(tokenizer, piece, "template")
    _check_text(tokenizer, question.query, "query")
    _check_text(tokenizer, prompt.instruction, "instruction")
    for index, document in enumerate(question.documents):
        _check_text(tokenizer, document, f"{question.field}.{index}")
    documents, cut = list(question.documents), []
    if question.max_tokens is not None:
        for index, document in enumerate(documents):
            # A token stands for a byte at least.
            if len(document.encode()) > question.max_tokens:
                documents[index] = shortened(tokenizer, document, question.max_tokens)
                if documents[index] != document:
                    cut.append(index)
    _check_size(prompt, question, documents)
    return documents, cut


def _check_size(prompt: RerankPrompt, question: RerankQuestion, documents: Sequence[str]) -> None:
    parts = [*prompt.template.pieces, question.query, prompt.instruction]
    around = sum(len(part.encode()) for part in parts)
    size = sum(len(document.encode()) + around for document in documents)
    if size > MAX_RERANK_BYTES:
        raise InvalidQuery(
            f"{question.field}: with the prompt around each of them they are {size} bytes; a "
            f"request may have {MAX_RERANK_BYTES}",
            question.field,
        )


def _check_scored(paths: Sequence[PromptPath], field: str) -> None:
    for index, path in enumerate(paths):
        if path.start == 0:
            param = f"{field}.{index}"
            raise InvalidQuery(f"{param}: nothing stands before the query", param)
        if path.start == len(path.tokens):
            raise InvalidQuery("query: it has no tokens", "query")


def _queries(paths: Sequence[PromptPath], targets: tuple[int, ...]) -> list[LogprobQuery]:
    if not targets:
        # A document is worth keeping: other queries will be asked behind it.
        return [LogprobQuery(path.tokens, path.start) for path in paths]
    # Behind the query a document is not: only what all prompts share will be wanted again.
    keep = _common(min(path.tokens for path in paths), max(path.tokens for path in paths))
    return [LogprobQuery(path.tokens, path.start, targets, keep=keep) for path in paths]


class _Prompts:
    """The prompts of one request."""

    def __init__(
        self, tokenizer: Tokenizer, prompt: RerankPrompt, question: RerankQuestion
    ) -> None:
        self._tokenizer = tokenizer
        self._question = question
        self._scored = question.query if prompt.labels is None else ""
        within = "" if self._scored else question.query
        values = {Slot.QUERY: within, Slot.INSTRUCTION: prompt.instruction}
        self._head, self._end = segments_of(tokenizer, prompt.template, values)

    def of(self, documents: Sequence[str]) -> list[PromptPath]:
        """One for each document."""
        heads = encode_segments(self._tokenizer, self._head, documents)
        contexts = self._behind(heads, self._end, documents)
        if not self._scored:
            return [PromptPath(context, len(context)) for context in contexts]
        wholes = self._behind(heads, self._end.then(self._scored), documents)
        # The query may have merged with what stands before it.
        return [
            PromptPath(whole, _common(context, whole))
            for context, whole in zip(contexts, wholes, strict=True)
        ]

    def fitted(self, index: int, document: str, length: int, limit: int) -> PromptPath:
        """With the document cut, where that is wanted, so that ``limit`` tokens are enough.

        Raises:
            PathTooLong: it is not wanted, or there is too little to cut.
        """
        question = self._question
        if question.fit is not None:
            left = len(self._tokenizer.encode(document)) - (length - limit)
            for cut in cuts_of(self._tokenizer, document, left, question.fit):
                (path,) = self.of([cut])
                if len(path.tokens) <= limit:
                    return path
        param = f"{question.field}.{index}"
        raise PathTooLong(
            f"{param}: its prompt has {length} tokens; the model takes {limit}", param
        )

    def _behind(self, heads: Sequence[Ids], run: TextRun, documents: Sequence[str]) -> list[Ids]:
        ends = encode_segments(self._tokenizer, [run], documents)
        return [self._begun(head + end) for head, end in zip(heads, ends, strict=True)]

    def _begun(self, path: Ids) -> Ids:
        bos = self._tokenizer.bos_token_id
        if not self._tokenizer.adds_bos or bos is None or path[:1] == (bos,):
            return path
        return (bos, *path)


def _common(one: Ids, other: Ids) -> int:
    """How many tokens two paths begin with alike."""
    if other[: len(one)] == one:
        return len(one)
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(other))
