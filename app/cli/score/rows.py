"""Candidates as rows: a table for people, lines of JSON or CSV with chosen fields for programs."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from app.cli.score.output import StreamOutput
from app.cli.score.run import RecordRequest
from app.cli.tables import Cell, Page, number, percent, quoted
from app.client import InvalidRequest
from app.client.display.columns import candidate_results
from app.schemas.score import ScoreRequest
from app.schemas.score_response import CandidateScore, ScoreResponse

Kind = Literal["table", "jsonl", "csv"]

FIELDS: Final = (
    *("rank", "candidate", "score", "logprob", "probability", "token_count", "mean_logprob"),
    *("error", "numeric_error", "logprob_per_byte", "tie_group", "greedy", "bound"),
)
"""Of a row; the first eight are written where nobody chooses."""
USUAL: Final = FIELDS[:8]
OF_RECORD: Final = ("line", "id")
"""Where a file is read: what stands before them."""


def add_row_flags(parser: argparse.ArgumentParser) -> None:
    """How rows of candidates are written."""
    group = parser.add_argument_group("rows of candidates, on standard output")
    group.add_argument(
        "--rows",
        choices=("table", "jsonl", "csv"),
        help="a row for each candidate, best first; default: a table on a terminal; elsewhere "
        "jsonl for candidates on the spot, and for a file a line for each record",
    )
    group.add_argument(
        "--fields",
        metavar="NAME,NAME",
        help=f"of a row: {', '.join(FIELDS)}; of a file also line and id; default: the first 8, "
        "of a file behind line and id",
    )


def chosen_rows(args: Mapping[str, Any], *, is_file: bool) -> tuple[Kind | None, tuple[str, ...]]:
    """How rows are written, and which fields of them; None where records are written whole.

    Raises:
        InvalidRequest: a field is unknown, or rows do not go where the results go.
    """
    fields = _fields(args["fields"], is_file=is_file)
    if is_file and args["output"] is None and args["errors"] is not None:
        raise InvalidRequest("--errors goes with --output")
    if is_file and args["output"] is not None:
        for name in ("rows", "fields"):
            if args[name] is not None:
                raise InvalidRequest(f"--{name} is of standard output; --output has whole records")
        return None, fields
    if args["rows"] is not None:
        return args["rows"], fields
    if sys.stdout.isatty():
        return "table", fields
    return (None if is_file and args["fields"] is None else "jsonl"), fields


def _fields(chosen: str | None, *, is_file: bool) -> tuple[str, ...]:
    before = OF_RECORD if is_file else ()
    if chosen is None:
        return (*before, *USUAL)
    fields = tuple(name.strip() for name in chosen.split(","))
    known = (*before, *FIELDS)
    if len(set(fields)) != len(fields):
        raise InvalidRequest("--fields names a field twice")
    for name in fields:
        if name not in known:
            raise InvalidRequest(f"--fields: there is no {name!r}; there are {', '.join(known)}")
    return fields


class RowOutput(StreamOutput):
    """Standard output, a row for each candidate of each record.

    Args:
        kind: how they are written.
        fields: of a row.
    """

    def __init__(self, kind: Kind, fields: Sequence[str]) -> None:
        super().__init__()
        self._kind = kind
        self._fields = fields
        self._begun = False

    def answered(
        self, question: RecordRequest, request: ScoreRequest, answer: ScoreResponse
    ) -> None:
        """Write the rows of a record."""
        self.tally.scored += 1
        if self._kind == "table":
            page = Page()
            name = "".join(
                f"  {json.dumps(value, ensure_ascii=False)}" for value in question.id.values()
            )
            page.line(f"line {question.line}{name}", "bold")
            write_table(page, answer, request.candidates)
            page.line()
            page.write()
            return
        record = {"line": question.line, "id": None, **question.id}
        text = written_rows(
            self._kind, self._fields, answer, request.candidates, record, head=not self._begun
        )
        self._begun = True
        write_rows(text)
        tell_warnings(answer, f"line {question.line}: ")


def write_rows(text: str) -> None:
    """To standard output, in UTF-8 whatever the terminal's own encoding is."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()


def tell_warnings(answer: ScoreResponse, where: str = "") -> None:
    """What an answer warns of, for people, on standard error."""
    for warning in answer.warnings:
        sys.stderr.write(f"chainrule: note: {where}{warning.message}\n")


def written_rows(
    kind: Kind,
    fields: Sequence[str],
    answer: ScoreResponse,
    candidates: Sequence[str | list[int]],
    record: Mapping[str, Any],
    *,
    head: bool,
) -> str:
    """The rows of an answer as JSON lines or CSV, best first.

    Args:
        kind: jsonl or csv.
        fields: of a row, in this order.
        answer: to the candidates.
        candidates: as asked for.
        record: fields that all rows have.
        head: whether CSV begins with the names of the fields.
    """
    rows = [{name: row[name] for name in fields} for row in _rows(answer, candidates, record)]
    if kind == "jsonl":
        return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    out = io.StringIO()
    writer = csv.DictWriter(out, fields, lineterminator="\n")
    if head:
        writer.writeheader()
    # As it is: a line break within a text is one in its cell.
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def write_table(page: Page, answer: ScoreResponse, candidates: Sequence[str | list[int]]) -> None:
    """The candidates for people, best first, with what the answer warns of."""
    rows: list[list[Cell]] = [
        [
            "" if one.rank is None else f"{one.rank}{'=' if one.tie_group is not None else ''}",
            (quoted(_text(candidates[one.index])), "bold green" if one.rank == 1 else ""),
            number(one.score),
            percent(one.probability),
            "" if one.token_count is None else str(one.token_count),
            (one.error.message, "red") if one.error is not None else "",
        ]
        for one in _best_first(answer)
    ]
    heads = [">rank", "candidate", ">score", ">probability", ">tokens", ""]
    page.table(heads, rows)
    if answer.off_candidate_mass is not None:
        page.line(f"all other texts: {percent(answer.off_candidate_mass)}", "dim")
    for warning in answer.warnings:
        page.line(f"note: {warning.message}", "yellow")


def _rows(
    answer: ScoreResponse, candidates: Sequence[str | list[int]], record: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    for one in _best_first(answer):
        known = {name: getattr(one, name, None) for name in FIELDS}
        known["candidate"] = _text(candidates[one.index])
        known["error"] = one.error.message if one.error is not None else None
        yield {**record, **known}


def _best_first(answer: ScoreResponse) -> Iterable[CandidateScore]:
    return sorted(
        candidate_results(answer), key=lambda one: (one.rank is None, one.rank, one.index)
    )


def _text(candidate: str | list[int]) -> str:
    return candidate if isinstance(candidate, str) else json.dumps(candidate)


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list | bool) else value
