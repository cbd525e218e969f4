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
class Record:
    """One record, not parsed yet.

    Attributes:
        line: where it begins, from 1; in Parquet the number of its row.
        raw: a line of JSON, the cells of a CSV record by column, the values of a row, or what is
            wrong with it.
        end: where the next record may begin.
    """

    line: int
    raw: bytes | dict[str, str] | Values | InvalidRequest
    end: Place

    def fields(self) -> dict[str, Any]:
        """The fields of the request, and ``id`` where it has one.

        Raises:
            InvalidRequest: it is no request.
        """
        if isinstance(self.raw, InvalidRequest):
            raise self.raw
        if isinstance(self.raw, Values):
            return self.raw.fields
        return _of_json(self.raw) if isinstance(self.raw, bytes) else _of_cells(self.raw)


def holds_one(column: str) -> bool:
    """Whether a column of CSV holds one candidate of each record."""
    return column.startswith("candidate") and column != "candidates"


def _of_cells(cells: Mapping[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {name: cells[name] for name in ("id", "context") if name in cells}
    if "candidates" in cells:
        found = _parsed(cells["candidates"].encode(), "candidates: ")
    else:
        found = [cell for name, cell in cells.items() if holds_one(name) and cell]
    return {**fields, "candidates": found}


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
