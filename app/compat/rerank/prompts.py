"""The prompt of each document as one path of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.compat.rerank.config import RerankPrompt
from app.compat.rerank.rerank_query import RerankQuery
from app.compat.rerank.template_tokens import (
    SlotValues,
    TextSegment,
    encode_segments,
    segments_of,
)
from app.compat.rerank.templates import Ids, Slot
from app.compat.rerank.truncation import truncations
from app.requests.encoding import encode_in_chunks
from model_runtime import PathTooLong, Tokenizer, common_prefix


@dataclass(frozen=True, slots=True)
class PromptPath:
    """The prompt of one document.

    Attributes:
        tokens: the whole path.
        start: position of its first scored token; the length of the path where none is.
    """

    tokens: Ids
    start: int


class PromptPaths:
    """The prompts of one request."""

    def __init__(self, tokenizer: Tokenizer, prompt: RerankPrompt, question: RerankQuery) -> None:
        self._tokenizer = tokenizer
        self._question = question
        self._taker = "the model takes" if prompt.recipe is None else "its recipe takes"
        self._instruction = prompt.instruction
        self._scored = prompt.mode == "query_likelihood"
        self._template = prompt.template
        self._head, self._end = segments_of(tokenizer, prompt.template)

    def of(self, indices: Sequence[int], documents: Sequence[str]) -> list[PromptPath]:
        """One for each of these documents, which have these indices in the request."""
        fillings = [
            self._template.put(
                {
                    Slot.QUERY: self._question.query(index),
                    Slot.DOCUMENT: document,
                    Slot.INSTRUCTION: self._instruction,
                }
            )
            for index, document in zip(indices, documents, strict=True)
        ]
        heads = encode_segments(self._tokenizer, self._head, fillings)
        wholes = self._behind(heads, self._end, fillings)
        if not self._scored:
            return [PromptPath(whole, len(whole)) for whole in wholes]
        # The query, which is last, may have merged with what stands before it.
        contexts = self._behind(heads, TextSegment(self._end.pieces[:-1]), fillings)
        return [
            PromptPath(whole, common_prefix(context, whole))
            for context, whole in zip(contexts, wholes, strict=True)
        ]

    def truncated_to_fit(
        self,
        indices: Sequence[int],
        documents: Sequence[str],
        paths: Sequence[PromptPath],
        limit: int,
    ) -> Iterator[tuple[int, PromptPath]]:
        """The prompts of these documents, cut where that is wanted, to at most ``limit`` tokens.

        Raises:
            PathTooLong: it is not wanted, or there is too little to cut.
        """
        question = self._question
        if question.truncate_side is None and indices:
            raise self._too_long(indices[0], paths, limit)
        encoded = encode_in_chunks(self._tokenizer, [documents[index] for index in indices])
        for index, ids in zip(indices, encoded, strict=True):
            left = len(ids) - (len(paths[index].tokens) - limit)
            fitting = self._first_fitting(index, documents[index], ids, left, limit)
            if fitting is None:
                raise self._too_long(index, paths, limit)
            yield index, fitting

    def _first_fitting(
        self, index: int, document: str, ids: Sequence[int], left: int, limit: int
    ) -> PromptPath | None:
        side = self._question.truncate_side or "right"
        for cut in truncations(self._tokenizer, document, ids, left, side):
            (path,) = self.of([index], [cut])
            if len(path.tokens) <= limit:
                return path
        return None

    def _too_long(self, index: int, paths: Sequence[PromptPath], limit: int) -> PathTooLong:
        param = f"{self._question.field}.{index}"
        length = len(paths[index].tokens)
        return PathTooLong(f"its prompt has {length} tokens; {self._taker} {limit}", param)

    def _behind(
        self, heads: Sequence[Ids], run: TextSegment, fillings: Sequence[SlotValues]
    ) -> list[Ids]:
        ends = encode_segments(self._tokenizer, [run], fillings)
        wholes = [head + end for head, end in zip(heads, ends, strict=True)]
        if not self._template.takes_prefix:
            return wholes
        return [self._tokenizer.with_prefix(whole) for whole in wholes]
