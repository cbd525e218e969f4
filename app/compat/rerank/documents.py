"""The text of a document that came as an object, as Cohere's first version has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from model_runtime import InvalidQuery


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
            raise InvalidQuery(f"{param}: rank_fields are of objects, and this is a text", param)
        return document
    fields = rank_fields or ("text",)
    for field in fields:
        if field not in document:
            place = f"{param}.{field}"
            raise InvalidQuery(f"{place}: this field is required", place)
    return "\n".join(document[field] for field in fields)
