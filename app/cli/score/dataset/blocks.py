"""The files of a dataset, and the blocks of records that they are cut into.

A block is what one actor scores at a time, what one file of output holds, and what an interrupted
run is resumed by. Neighbours of a file stay together, so that records which share a context, as
they mostly stand one behind the other, meet it in one actor's cache.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from app.cli.score.arrow_types import IdKind, id_kind
from app.cli.score.input import BY_SUFFIX, Format, Source
from app.cli.score.parquet_input import count_rows
from app.cli.score.record import BEGINNING, Place, Record
from app.client import InvalidRequest


@dataclass(frozen=True, slots=True)
class Block:
    """So many records of a file, from a place on."""

    path: str
    format: Format
    start: Place
    records: int

    def read(self) -> Iterator[Record]:
        """Its records, in order."""
        return islice(Source(Path(self.path), self.format).records(self.start), self.records)


@dataclass(frozen=True, slots=True)
class CutFile:
    """A file of the input, cut.

    Attributes:
        path: absolute.
        digest: SHA-256.
        blocks: in order.
        ids: what kind its first id is.
    """

    path: str
    digest: str
    blocks: tuple[Block, ...]
    ids: IdKind


def find_files(given: str, format: Format | None) -> list[tuple[str, Format]]:
    """The files that a path, a folder or a pattern names, by name.

    Args:
        given: of a folder, the files in it and below it whose endings tell their format; names
            that begin with a dot or an underscore are passed over, as by other readers.
        format: of all of them, whatever they are called; None goes by their endings.

    Raises:
        InvalidRequest: there are none, or the format of one that was named is not known.
    """
    path = Path(given).absolute()
    if path.is_dir():
        found = sorted(
            one for one in path.rglob("*") if one.is_file() and not _is_hidden(one, path)
        )
        found = [one for one in found if one.suffix in BY_SUFFIX]
    elif path.exists():
        found = [path]
    else:
        found = sorted(Path(one) for one in glob.glob(str(path), recursive=True))
        found = [one for one in found if one.is_file()]
    if not found:
        raise InvalidRequest(f"{given}: there is no file of JSONL, CSV or Parquet")
    return [(str(one), format or _format_of(one)) for one in found]


def cut_file(path: str, format: Format, block_rows: int) -> CutFile:
    """Cut a file into blocks of ``block_rows`` records, the last one of fewer.

    Raises:
        OSError, InvalidRequest: it cannot be read.
    """
    source = Source(Path(path), format)
    blocks = _rows_of(path, block_rows) if format == "parquet" else _cut(source, block_rows)
    return CutFile(path, source.digest() or "", tuple(blocks), _first_id(source))


def _cut(source: Source, block_rows: int) -> Iterator[Block]:
    start, records, count = BEGINNING, source.records(), 0
    for record in records:
        count += 1
        if count == block_rows:
            yield Block(str(source.path), source.format, start, count)
            start, count = record.end, 0
    if count:
        yield Block(str(source.path), source.format, start, count)


def _rows_of(path: str, block_rows: int) -> Iterator[Block]:
    # The footer tells; nothing has to be read.
    with Path(path).open("rb") as file:
        rows = count_rows(file)
    for row in range(0, rows, block_rows):
        yield Block(path, "parquet", Place(row, row + 1), min(block_rows, rows - row))


def _first_id(source: Source) -> IdKind:
    """What the first id is, for which the first records are looked at."""
    for record in islice(source.records(), _LOOKED_AT):
        value = _id_of(record)
        if value is not None:
            return id_kind("none", value)
    return "none"


_LOOKED_AT = 1000
"""Records among which an id is looked for."""


def _id_of(record: Record) -> Any:
    try:
        return record.fields().get("id")
    except InvalidRequest:
        return None


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)


def _format_of(path: Path) -> Format:
    if path.suffix not in BY_SUFFIX:
        raise InvalidRequest(f"{path}: its name does not tell its format; --format does")
    return BY_SUFFIX[path.suffix]
