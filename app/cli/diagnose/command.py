"""``chainrule diagnose``: which known mistake made the numbers of a file.

Exit status: 0 they agree, 1 something could not be diagnosed, 2 a wrong command line or setting,
3 a mistake explains every line, 4 none of those that are known does.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx

from app.cli.diagnose.aggregate import FileDiagnosis, diagnose_file
from app.cli.diagnose.report import LineDiagnosis, show_file, show_lines
from app.cli.failure import fail
from app.cli.numbers import at_least
from app.cli.request_flags import add_request_flags, request_fields
from app.cli.score.input import Source
from app.cli.score.record import Record
from app.cli.server_address import add_server_flags, find_server
from app.cli.single_request import GRACE_S, RETRIES
from app.cli.tables import Page
from app.client import ApiError, Client, ClientError, InvalidRequest, InvalidResponse
from app.client.concurrency import ordered_map
from app.client.endpoints import build_request
from app.schemas.audit import AuditRequest
from app.schemas.bounds import MAX_TIMEOUT_MS
from app.schemas.diagnosis import Diagnosis

CONCURRENCY: Final = 4

QUICK: Final[dict[str, Any]] = {
    "pairs": [],
    "max_tokens": 1,
    "num_beams": 1,
    "max_expansions": 1,
}
"""Nobody reads the rest of the audit."""

OF_ONE_LINE: Final = frozenset({400, 413, 422})
"""Statuses that say something of a line; every other one would meet the next one as well."""

EPILOG: Final = """\
A line of JSONL has context, candidates and reported, as /v1/audit takes them, at will any other
field of it, which wins over the flags, and an id, which comes back.

  {"id": 1, "context": "The sky is", "candidates": [" blue", " green"],
   "reported": {"totals": [-1.25, -3.5]}}

On a terminal there is a table; elsewhere, or with --json, a line of JSON for each line and one with
the verdict on the file, {"file": {...}}. What explains the file must explain each of its lines.

Exit status: 0 the numbers agree, 1 a line could not be diagnosed or the server does not answer,
2 a wrong command line or setting, 3 a known mistake, or two at once, explain every line, 4 none
does, or the numbers say too little.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give the parser of ``chainrule diagnose`` its flags and its command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.set_defaults(command=diagnose_command)
    parser.add_argument("input", metavar="INPUT", help="a file of JSONL; - for stdin")
    parser.add_argument("--json", action="store_true", help="lines of JSON also on a terminal")
    parser.add_argument(
        "--concurrency",
        type=at_least(1, whole=True),
        default=CONCURRENCY,
        metavar="N",
        help=f"requests in flight ({CONCURRENCY})",
    )
    add_server_flags(parser.add_argument_group("whom to ask"))
    add_request_flags(parser, AuditRequest, "context", "candidates", "model", "reported", *QUICK)


def diagnose_command(args: dict[str, Any]) -> int:
    """Run it; the exit status."""
    path = None if args["input"] == "-" else Path(args["input"])
    source = Source(path, "jsonl")
    try:
        # Whoever waits for one answer goes before a file.
        fields = {"priority": "bulk", **QUICK, **request_fields(args, AuditRequest)}
    except ValueError as error:
        return fail(error, 2)
    # What cannot be read should be told of before a model is loaded.
    source.check()
    try:
        timeout_s = args.get("timeout_ms", MAX_TIMEOUT_MS) / 1000 + GRACE_S
        with (
            find_server(args) as server,
            server.client(
                Client, httpx.HTTPTransport, timeout_s=timeout_s, retries=RETRIES
            ) as client,
        ):
            return _told(_diagnosed(client, source, fields, args["concurrency"]), args["json"])
    except ClientError as error:
        return fail(error, 2 if isinstance(error, InvalidRequest) else 1)


def _diagnosed(
    client: Client, source: Source, fields: dict[str, Any], concurrency: int
) -> Iterator[LineDiagnosis]:
    def work(record: Record) -> LineDiagnosis:
        name: dict[str, Any] = {}
        try:
            own = record.fields()
            if "id" in own:
                name = {"id": own.pop("id")}
            request = build_request(AuditRequest, fields, own)
            if request.reported is None:
                raise InvalidRequest("reported: this field is required", param="reported")
            return LineDiagnosis(record.line, name, _of_line(client, request))
        except ClientError as error:
            if isinstance(error, ApiError) and error.status not in OF_ONE_LINE:
                raise
            if not isinstance(error, ApiError | InvalidRequest):
                raise
            return LineDiagnosis(record.line, name, error)

    return ordered_map(source.records(), work, concurrency)


def _of_line(client: Client, request: AuditRequest) -> Diagnosis:
    diagnosis = client.audit(request).diagnosis
    if diagnosis is None:
        raise InvalidResponse("the server sent no diagnosis; it is older than this command")
    return diagnosis


def _told(lines: Iterator[LineDiagnosis], as_json: bool) -> int:
    """Print everything; the exit status."""
    page = Page()
    shows_table = page.is_terminal and not as_json
    kept: list[LineDiagnosis] = []
    for one in lines:
        kept.append(one.in_short())
        if not shows_table:
            sys.stdout.write(f"{one.as_json()}\n")
            sys.stdout.flush()
    found = [one.found for one in kept if isinstance(one.found, Diagnosis)]
    whole = diagnose_file(found, len(kept) - len(found))
    if shows_table:
        show_lines(page, kept)
        show_file(page, whole)
        page.write()
    else:
        sys.stdout.write(f'{{"file":{whole.model_dump_json()}}}\n')
    return _status(whole)


def _status(whole: FileDiagnosis) -> int:
    return 1 if whole.failed or not whole.lines else whole.exit_status
