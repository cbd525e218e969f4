"""What is ranked, and for what, whoever asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.compat.rerank.cuts import Side


@dataclass(frozen=True, slots=True)
class RerankQuestion:
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
    """

    queries: Sequence[str]
    documents: Sequence[str | Mapping[str, str]]
    field: str
    query_field: str = "query"
    rank_fields: Sequence[str] | None = None
    max_tokens: int | None = None
    fit: Side | None = None

    def query(self, index: int) -> str:
        """That of the document with this index."""
        return self.queries[index if len(self.queries) > 1 else 0]

    def query_param(self, index: int) -> str:
        """Where that query stands in the request."""
        return self.query_field if len(self.queries) == 1 else f"{self.query_field}.{index}"
