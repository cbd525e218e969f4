"""What is ranked, and for what, whoever asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.compat.rerank.truncation import Side
from model_runtime import InvalidQuery


@dataclass(frozen=True, slots=True)
class RerankQuery:
    """What is ranked, and for what.

    Attributes:
        queries: what is searched for: one for all documents, or one for each.
        documents: what is ranked: texts, or objects.
        field: the documents' name on the wire, for errors.
        query_field: that of the queries.
        rank_fields: what counts of documents that are objects; None for their ``text``.
        max_tokens: documents are cut to so many tokens of their own; None for no such cut.
        fit: the side on which documents are cut whose prompts do not fit the model; None refuses
            them.
        leaves_out: whether characters of documents that the vocabulary cannot spell are left out;
            otherwise such a document is refused.
    """

    queries: Sequence[str]
    documents: Sequence[str | Mapping[str, str]]
    field: str
    query_field: str = "query"
    rank_fields: Sequence[str] | None = None
    max_tokens: int | None = None
    truncate_side: Side | None = None
    leaves_out: bool = False

    def query(self, index: int) -> str:
        """That of the document with this index."""
        return self.queries[index if len(self.queries) > 1 else 0]

    def query_param(self, index: int) -> str:
        """Where that query stands in the request."""
        return self.query_field if len(self.queries) == 1 else f"{self.query_field}.{index}"


def document_texts(
    documents: Sequence[str | Mapping[str, str]], rank_fields: Sequence[str] | None
) -> list[str]:
    """What is ranked of each document.

    Args:
        documents: texts, or objects.
        rank_fields: the fields of an object that count, a line each; None for ``text``.

    Raises:
        InvalidQuery: an object lacks a field, or a text is asked for its fields.
    """
    return [
        _text(f"documents.{index}", document, rank_fields)
        for index, document in enumerate(documents)
    ]


def _text(param: str, document: str | Mapping[str, str], rank_fields: Sequence[str] | None) -> str:
    if isinstance(document, str):
        if rank_fields is not None:
            raise InvalidQuery("rank_fields are of objects, and this is a text", param)
        return document
    fields = rank_fields or ("text",)
    for field in fields:
        if field not in document:
            place = f"{param}.{field}"
            raise InvalidQuery("this field is required", place)
    return "\n".join(document[field] for field in fields)
