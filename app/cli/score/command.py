"""``chainrule score``: score candidates on the spot, or the records of a file.

Exit status: 0 all are scored, 1 it could not go on, 2 a wrong command line or setting, 3 done, but
some records could not be scored. After 1, after an interruption, and after a kill the same command
goes on where it was.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import httpx
from pydantic import ValidationError
from tqdm import tqdm

from app.cli.daemon_thread import run_in_daemon_thread
from app.cli.failure import fail
from app.cli.numbers import at_least
from app.cli.request_flags import add_request_flags, request_fields
from app.cli.score.candidates import score_candidates
from app.cli.score.dataset.flags import add_ray_flags, refuse_ray_flags, score_on_ray
from app.cli.score.files import add_file_flags, find_source, lines_of, writes_parquet
from app.cli.score.input import Source
from app.cli.score.output import FileOutput, OutputError, StreamOutput
from app.cli.score.record import Record
from app.cli.score.report import tell
from app.cli.score.rows import RowOutput, add_row_flags, chosen_rows
from app.cli.score.run import ScoreRun
from app.cli.server_address import (
    ServerAddress,
    add_server_flags,
    find_server,
    with_advice,
)
from app.client import AsyncClient, ClientError, InvalidRequest, Retries
from app.schemas.models import ModelCard
from app.schemas.score import ScoreRequest

if TYPE_CHECKING:
    from app.cli.score.parquet_output import ParquetOutput

Output: TypeAlias = "FileOutput | ParquetOutput | StreamOutput"

READ_AT_ONCE: Final = 32
"""Records of a file that are read in one go; those of standard input come one by one."""

CONCURRENCY: Final = 8
"""Requests in flight, by default."""

RETRY_FOR_S: Final = 600
LOCAL_RETRY_S: Final = 30.0
"""As long a full queue of a model in this process may refuse one line."""

ATTEMPT_S: Final = 3700.0
"""A single attempt: longer than the longest time that a request may give itself."""

EPILOG: Final = """\
A line of JSONL has the fields of /v1/score and, at will, an id of any kind, which comes back with
the result. What a line says itself wins over the flags. CSV has a header with context, at will id,
and the candidates in one column, candidates, as a JSON list, or in columns candidate, candidate_1
and so on, whose empty cells are no candidates. Parquet has a column for each field that is used,
such as context (text) and candidates (a list of texts), and at will id.

A result is one line: {"line", "id", "model", "fingerprint", "numeric_error", "results", ...} as
/v1/score answers; what depends on the moment, such as timings, is left out, so that equal runs
write equal files. What cannot be scored goes to the file of errors as {"line", "id", "error"}.

In a Parquet file a result is a row with the same fields; what is the same in all, model,
fingerprint and numeric_error, is in the file's metadata.

With --output the same command goes on where it was ended. Exit status: 0 all are scored, 1 it
could not go on, 2 a wrong command line, 3 done, with errors.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give the parser of ``chainrule score`` its flags and its command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.set_defaults(command=score_command)
    parser.usage = (
        "chainrule score CONTEXT CANDIDATE [CANDIDATE ...] [flags]\n"
        "       chainrule score INPUT [flags]"
    )
    parser.add_argument(
        "texts",
        nargs="*",
        metavar="TEXT",
        help="a context and candidates; alone: a file of JSONL, CSV or Parquet, - for stdin",
    )
    add_file_flags(parser)
    parser.add_argument(
        "--concurrency",
        type=at_least(1, whole=True),
        metavar="N",
        help=f"requests in flight ({CONCURRENCY}; with --ray 32 for each block)",
    )
    parser.add_argument(
        "--split",
        type=at_least(1, whole=True),
        metavar="N",
        help="send longer lists of candidates N at a time, with the numbers of one request",
    )
    _add_whom_to_ask(parser)
    add_row_flags(parser)
    add_ray_flags(parser)
    add_request_flags(parser, ScoreRequest, "context", "candidates", "model")


def _add_whom_to_ask(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("whom to ask")
    add_server_flags(group)
    group.add_argument(
        "--retry-for",
        type=at_least(1, whole=True),
        metavar="SECONDS",
        help="how long a server may refuse one line, or be away (default: 600)",
    )
    group.add_argument(
        "--session",
        help="sent as X-Session-Id, by which a proxy sends lines to the same of several servers; "
        "context sends a hash of each line's own context",
    )


def score_command(args: dict[str, Any]) -> int:
    """Run it; the exit status."""
    if args["output"] == Path("-"):
        args["output"] = None
    try:
        texts = args.pop("texts")
        if len(texts) > 1:
            _refuse_file_flags(args)
            return score_candidates(args, texts[0], texts[1:])
        return _score_file(args, texts)
    except InvalidRequest as error:
        return fail(error, 2)
    except BrokenPipeError:
        # Whoever reads the results has read enough, which is no failure to tell of.
        raise
    except ClientError as error:
        return fail(with_advice(error), 1)
    except (OutputError, OSError) as error:
        return fail(error, 1)


def _score_file(args: dict[str, Any], texts: list[str]) -> int:
    kind, row_fields = chosen_rows(args, is_file=True)
    args["input"] = _input_of(texts, args["input"])
    fields = _defaults(args)
    try:
        if args["ray"]:
            return score_on_ray(args, fields)
        refuse_ray_flags(args)
        source = find_source(args)
        rows = None if kind is None else RowOutput(kind, row_fields)
        with find_server(args) as server:
            return asyncio.run(_run(args, fields, source, server, rows))
    except KeyboardInterrupt:
        return _stopped(args)


def _stopped(args: dict[str, Any]) -> int:
    """Say how to go on; the exit status."""
    written = None if args["output"] is None else lines_of(args)
    if args["ray"]:
        how = "the same command goes on with what is missing"
    elif written is None:
        how = "with --output FILE the same command could go on from here"
    elif not written.exists():
        how = "nothing was answered yet"
    elif args["input"] == "-":
        how = f"what was answered is in {written}; standard input cannot be gone on with"
    else:
        again = "the same command" + (" without --overwrite" if args["overwrite"] else "")
        how = f"what was answered is in {written}; {again} goes on from there"
    sys.stderr.write(f"\nchainrule: stopped; {how}\n")
    return 130


def _input_of(texts: list[str], flag: str | None) -> str:
    """The one file that is named.

    Raises:
        InvalidRequest: none is, or two are.
        FileNotFoundError: it is not there: rather a context without candidates.
    """
    named = [*texts, *([] if flag is None else [flag])]
    if len(named) != 1:
        raise InvalidRequest("name one file, or a context and at least one candidate")
    if flag is None and named[0] != "-" and not Path(named[0]).exists():
        raise FileNotFoundError(
            f"there is no file {named[0]!r}; behind a context at least one candidate is needed: "
            'chainrule score "The capital of France is" " Paris" " London"'
        )
    return named[0]


def _refuse_file_flags(args: dict[str, Any]) -> None:
    for name in (
        *("input", "output", "errors", "format", "output_format", "split", "concurrency"),
        *("context_column", "candidate_columns", "overwrite", "ray"),
    ):
        if args[name] not in (None, False):
            flag = name.replace("_", "-")
            raise InvalidRequest(f"--{flag} goes with a file, not with candidates on the spot")


async def _run(
    args: dict[str, Any],
    fields: dict[str, Any],
    source: Source,
    server: ServerAddress,
    rows: RowOutput | None,
) -> int:
    async with _client(server, args["retry_for"] or RETRY_FOR_S, args["session"]) as (client, card):
        output: Output | None = rows
        if output is None:
            output = await asyncio.to_thread(_output, args, source, fields, card.fingerprint)
        at_once = 1 if source.path is None else READ_AT_ONCE
        job = ScoreRun(
            fields, args["concurrency"] or CONCURRENCY, args["split"], card.fingerprint, at_once
        )
        try:
            records = await run_in_daemon_thread(output.remaining, source.records())
            await _write_all(job, client, records, output, source)
            await asyncio.to_thread(output.finish)
        finally:
            output.close()
    return _told(output)


async def _write_all(
    job: ScoreRun,
    client: AsyncClient,
    records: Iterable[Record],
    output: Output,
    source: Source,
) -> None:
    is_shown = sys.stderr.isatty()
    total = await asyncio.to_thread(_count, source) if is_shown else None
    with tqdm(
        total=total, initial=output.tally.lines, unit=" lines", disable=not is_shown
    ) as progress:
        async with aclosing(job.run(client, records, output)) as written:
            async for _ in written:
                progress.update()
                if output.tally.failed:
                    progress.set_postfix(errors=output.tally.failed, refresh=False)


def _output(
    args: dict[str, Any], source: Source, fields: dict[str, Any], fingerprint: str
) -> Output:
    if args["output"] is None:
        if args["errors"] is not None:
            raise InvalidRequest("--errors goes with --output")
        return StreamOutput()
    is_there = args["output"].exists() or lines_of(args).exists()
    if source.path is None and not args["overwrite"] and is_there:
        raise InvalidRequest(
            "what comes from stdin cannot be gone on with; --overwrite begins anew"
        )
    manifest = {
        "input": source.digest(),
        "format": source.format,
        "options": fields,
        "errors": args["errors"] and str(args["errors"].absolute()),
        **({} if source.columns is None else {"columns": source.columns.described()}),
        "model": fingerprint,
    }
    kind: type[FileOutput] | type[ParquetOutput] = FileOutput
    if writes_parquet(args):
        from app.cli.score.parquet_output import ParquetOutput

        kind = ParquetOutput
    return kind(args["output"], args["errors"], manifest, overwrite=args["overwrite"])


def _defaults(args: dict[str, Any]) -> dict[str, Any]:
    """The request's fields among the flags.

    Raises:
        InvalidRequest: one cannot be what any record wants.
    """
    try:
        fields = request_fields(args, ScoreRequest)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None
    body = {"context": "x", "candidates": ["y"], **fields}
    try:
        ScoreRequest.model_validate(body)
    except ValidationError as error:
        # What a flag needs beside it may be in the records.
        if any(one["type"] != "missing" for one in error.errors()):
            raise InvalidRequest.of(error, body) from None
    return fields


@asynccontextmanager
async def _client(
    server: ServerAddress, retry_s: int, session: str | None
) -> AsyncGenerator[tuple[AsyncClient, ModelCard], None]:
    """A client, and what answers there."""
    connect = partial(server.client, AsyncClient, httpx.AsyncHTTPTransport, session=session)
    # A server that is not there at all should be told of soon.
    async with connect(retries=Retries(attempts=3)) as client:
        card, *_ = await client.models()
    # A server of this process that is gone does not come back.
    total_s = float(retry_s) if server.socket is None else min(LOCAL_RETRY_S, float(retry_s))
    retries = Retries(attempts=1_000_000, longest_wait_s=10.0, total_s=total_s, cuts_attempts=False)
    async with connect(timeout_s=ATTEMPT_S, retries=retries) as client:
        yield client, card


def _count(source: Source) -> int | None:
    """Records of the whole input, for the time that is left; None for standard input."""
    return None if source.path is None else sum(1 for _ in source.records())


def _told(output: Output) -> int:
    """Say what was done; the exit status."""
    where = None if isinstance(output, StreamOutput) else output.errors
    return tell(output.tally, "lines", where)
