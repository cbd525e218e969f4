"""A record of the input: a request that has not been read yet, and where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.client import InvalidRequest
from app.http.strict_json import JsonError, parse_json


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record may begin.

    Attributes:
        offset: bytes before it; of Parquet, rows.
        line: number of the line, or of the row, from 1.
    """

    offset: int
    line: int


BEGINNING: Final = Place(0, 1)


@dataclass(frozen=True, slots=True)
class Values:
    """The fields of a record whose types are known: a row of Parquet."""

    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a record's context and candidates are, under names of its own.

    Nothing else of a record is read then, but its id.

    Attributes:
        context: the column, or the field of an object, that holds the context.
        candidates: those that hold candidates: a text is one, a list is all of its entries. Empty
            for the names that are known anyway.
    """

    context: str = "context"
    candidates: tuple[str, ...] = ()

    def described(self) -> dict[str, Any]:
        """For the description of a run."""
        return {"context": self.context, "candidates": list(self.candidates)}

    def of(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of the request, and ``id`` where it has one.

        Raises:
            InvalidRequest: a column holds something else.
        """
        found = {"id": record["id"]} if "id" in record else {}
        if self.context in record:
            found["context"] = record[self.context]
        listed: list[Any] = []
        for name in self.candidates or ("candidates",):
            value = record.get(name)
            if isinstance(value, str):
                listed += [value] if value else []
            elif isinstance(value, list):
                listed += value
            elif value is not None:
                raise bad_line(f"{name}: it is neither a text nor a list")
        return {**found, "candidates": listed}


@dataclass(frozen=True, slots=True)
class Record:
    """One record, not parsed yet.

    Attributes:
        line: where it begins, from 1; in Parquet the number of its row.
        raw: a line of JSON, the cells of a CSV record by column, the values of a row, or what is
            wrong with it.
        end: where the next record may begin.
        columns: where its parts are; None for the names that are known.
    """

    line: int
    raw: bytes | dict[str, str] | Values | InvalidRequest
    end: Place
    columns: Columns | None = None

    def fields(self) -> dict[str, Any]:
        """The fields of the request, and ``id`` where it has one.

        Raises:
            InvalidRequest: it is no request.
        """
        if isinstance(self.raw, InvalidRequest):
            raise self.raw
        if isinstance(self.raw, Values):
            return self.raw.fields if self.columns is None else self.columns.of(self.raw.fields)
        if isinstance(self.raw, bytes):
            fields = _of_json(self.raw)
            return fields if self.columns is None else self.columns.of(fields)
        return _of_cells(self.raw, self.columns or Columns())


def wanted_columns(columns: Columns | None) -> tuple[str, ...]:
    """The columns that a file must have, but for candidates under names that are known."""
    if columns is None:
        return ("context",)
    return (columns.context, *columns.candidates)


def holds_one(column: str) -> bool:
    """Whether a column of CSV holds one candidate of each record."""
    return column.startswith("candidate") and column != "candidates"


def _of_cells(cells: Mapping[str, str], columns: Columns) -> dict[str, Any]:
    found: dict[str, Any] = dict(cells)
    names = columns.candidates
    if not names:
        names = ("candidates",) if "candidates" in cells else tuple(filter(holds_one, cells))
    if "candidates" in names:
        found["candidates"] = _parsed(cells["candidates"].encode(), "candidates: ")
        if not isinstance(found["candidates"], list):
            raise bad_line("candidates: it is no JSON list")
    return Columns(columns.context, names).of(found)


def _of_json(line: bytes) -> dict[str, Any]:
    fields = _parsed(line)
    if not isinstance(fields, dict):
        raise bad_line("it is not a JSON object")
    return fields


def _parsed(text: bytes, place: str = "") -> Any:
    try:
        return parse_json(text, "it")
    except JsonError as error:
        key = "" if error.key is None else f"{error.key}: "
        raise bad_line(f"{place}{key}{error}") from None


def bad_line(message: str) -> InvalidRequest:
    """What is wrong with a record that is no request."""
    return InvalidRequest(message, code="bad_line")
