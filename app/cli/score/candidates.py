"""``chainrule score CONTEXT CANDIDATE ...``: a few candidates on the spot."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterable
from typing import Any, Final

from app.cli.single_request import run_request
from app.cli.tables import Cell, Page, number, percent, quoted
from app.client import Client, InvalidRequest
from app.schemas.score import ScoreRequest
from app.schemas.score_response import CandidateScore, ScoreResponse

FIELDS: Final = (
    *("rank", "candidate", "score", "logprob", "probability", "token_count", "mean_logprob"),
    *("numeric_error", "logprob_per_byte", "tie_group", "greedy", "error"),
)
"""Of a row; the first seven are written where nobody chooses."""
USUAL: Final = FIELDS[:7]


def add_row_flags(parser: argparse.ArgumentParser) -> None:
    """How rows of candidates are written."""
    group = parser.add_argument_group("candidates on the spot")
    group.add_argument(
        "--rows",
        choices=("table", "jsonl", "csv"),
        help="how they are written; default: a table on a terminal, else jsonl",
    )
    group.add_argument(
        "--fields", metavar="NAME,NAME", help=f"of a row: {', '.join(FIELDS)}; default: the first 7"
    )


def score_candidates(args: dict[str, Any], context: str, candidates: list[str]) -> int:
    """Ask once and write a row for each candidate, best first; the exit status.

    Raises:
        InvalidRequest: a flag is unfit.
    """
    fields = _fields(args["fields"])
    kind = args["rows"] or ("table" if sys.stdout.isatty() else "jsonl")
    asked = {**args, "context": context, "json": False}

    def send(client: Client, given: dict[str, Any]) -> ScoreResponse:
        return client.score(candidates=candidates, **given)

    def show(page: Page, reply: ScoreResponse) -> None:
        best_first = sorted(reply.results, key=lambda one: (one.rank is None, one.rank, one.index))
        if kind == "table":
            _table(page, reply, best_first, candidates)
            return
        rows = [_row(one, candidates, fields) for one in best_first]
        if kind == "csv":
            # As it is: a line break within a text is one in its cell.
            sys.stdout.write(_csv(rows, fields))
            return
        for row in rows:
            page.line(json.dumps(row, ensure_ascii=False))

    return run_request(asked, ScoreRequest, send, show)


def refuse_row_flags(args: dict[str, Any]) -> None:
    """Raise ``InvalidRequest`` for what goes with candidates of the command line alone."""
    for name in ("rows", "fields"):
        if args[name] is not None:
            raise InvalidRequest(f"--{name} goes with candidates on the command line, not a file")


def _fields(chosen: str | None) -> tuple[str, ...]:
    if chosen is None:
        return USUAL
    fields = tuple(name.strip() for name in chosen.split(","))
    for name in fields:
        if name not in FIELDS:
            raise InvalidRequest(f"--fields: there is no {name!r}; there are {', '.join(FIELDS)}")
    return fields


def _row(one: CandidateScore, candidates: list[str], fields: Iterable[str]) -> dict[str, Any]:
    known = one.model_dump()
    known["candidate"] = candidates[one.index]
    known["error"] = one.error.message if one.error is not None else None
    return {name: known.get(name) for name in fields}


def _csv(rows: list[dict[str, Any]], fields: tuple[str, ...]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _table(
    page: Page, reply: ScoreResponse, results: list[CandidateScore], candidates: list[str]
) -> None:
    rows: list[list[Cell]] = [
        [
            "" if one.rank is None else f"{one.rank}{'=' if one.tie_group is not None else ''}",
            (quoted(candidates[one.index]), "bold green" if one.rank == 1 else ""),
            number(one.score),
            percent(one.probability),
            "" if one.token_count is None else str(one.token_count),
            (one.error.message, "red") if one.error is not None else "",
        ]
        for one in results
    ]
    heads = [">rank", "candidate", ">score", ">probability", ">tokens", ""]
    page.table(heads, rows)
    if reply.off_candidate_mass is not None:
        page.line(f"all other texts: {percent(reply.off_candidate_mass)}", "dim")
