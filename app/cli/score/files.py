"""The files that ``chainrule score`` reads and writes, as its flags name them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from app.cli.extras import check_extra
from app.cli.score.input import BY_SUFFIX, Format, Source
from app.cli.score.output import SidecarPaths
from app.cli.score.record import Columns
from app.client import InvalidRequest


def add_file_flags(parser: argparse.ArgumentParser) -> None:
    """Where records come from, what holds their parts, and where results go."""
    parser.add_argument("--input", metavar="INPUT", help="the file, by a flag")
    parser.add_argument(
        "--context-column",
        metavar="NAME",
        help="of INPUT; default: context. With it or the next flag nothing else but id is read",
    )
    parser.add_argument(
        "--candidate-columns",
        metavar="NAME,NAME",
        help="of INPUT, each with a candidate, or (not in CSV) a list of them; default: candidates",
    )
    parser.add_argument("-o", "--output", type=Path, help="file of results; default: stdout")
    parser.add_argument(
        "--errors", type=Path, help="file of errors; default: OUTPUT.errors.jsonl, or stderr"
    )
    parser.add_argument(
        "--format",
        choices=("jsonl", "csv", "parquet"),
        help="of INPUT; default: csv for *.csv, parquet for *.parquet, else jsonl",
    )
    parser.add_argument(
        "--output-format",
        choices=("jsonl", "parquet"),
        help="of OUTPUT; default: parquet for *.parquet, else jsonl",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="begin anew where OUTPUT is another run's"
    )


def find_source(args: dict[str, Any]) -> Source:
    """What is read, after a look at whether it and what is to be written can be.

    Raises:
        InvalidRequest: the files named do not go together, or a package is missing.
        OSError: the input cannot be read.
    """
    path = None if args["input"] == "-" else Path(args["input"])
    by_name: Format = "jsonl" if path is None else BY_SUFFIX.get(path.suffix, "jsonl")
    source = Source(path, args["format"] or by_name, _columns(args))
    if source.format == "parquet" or writes_parquet(args):
        check_extra("pyarrow", "parquet", "Parquet")
    if source.format == "parquet" and path is None:
        raise InvalidRequest("Parquet is read from a file, not from standard input")
    if path is not None:
        # What cannot be read should be told of before a model is loaded.
        source.check()
        for name, place in _written(args).items():
            if _is_same(path, place):
                raise InvalidRequest(f"{name} is the input itself")
    if args["errors"] is not None and args["output"] is not None:
        _check_errors(args["errors"], args["output"], lines_of(args))
    return source


def writes_parquet(args: dict[str, Any]) -> bool:
    """Whether the results become a Parquet file. Raises ``InvalidRequest`` where they cannot."""
    if args["output"] is None:
        if args["output_format"] == "parquet":
            raise InvalidRequest("--output-format parquet goes with --output")
        return False
    by_name = "parquet" if args["output"].suffix == ".parquet" else "jsonl"
    return (args["output_format"] or by_name) == "parquet"


def lines_of(args: dict[str, Any]) -> Path:
    """Where lines are written: the output itself, or what a Parquet file is made of."""
    output: Path = args["output"]
    return SidecarPaths.draft_of(output) if writes_parquet(args) else output


def _check_errors(errors: Path, output: Path, lines: Path) -> None:
    beside = SidecarPaths.of(lines)
    if _is_same(errors, output):
        raise InvalidRequest("--errors is the output itself")
    if _is_same(errors, lines):
        raise InvalidRequest(f"--errors is {lines.name}, which the output is made of")
    for place in (beside.manifest, beside.draft):
        if _is_same(errors, place):
            raise InvalidRequest(f"--errors is {place.name}, which says what the run was")


def _is_same(one: Path, other: Path) -> bool:
    """Whether both are one file, by whatever name, and whether or not it is there yet."""
    if one.exists() and other.exists():
        return one.samefile(other)
    return one.resolve() == other.resolve()


def _written(args: dict[str, Any]) -> dict[str, Path]:
    """Every file that a run writes, by what the user knows it as."""
    found = {f"--{name}": args[name] for name in ("output", "errors") if args[name] is not None}
    if args["output"] is not None:
        lines = lines_of(args)
        beside = SidecarPaths.of(lines)
        found.setdefault("--errors", SidecarPaths.of(args["output"]).errors)
        found["the draft of --output"] = lines
        found["what lies beside --output"] = beside.manifest
        found["the draft of what lies beside --output"] = beside.draft
    return found


def _columns(args: dict[str, Any]) -> Columns | None:
    if args["context_column"] is None and args["candidate_columns"] is None:
        return None
    named = (args["candidate_columns"] or "").split(",")
    candidates = tuple(name.strip() for name in named if name.strip())
    if args["candidate_columns"] is not None and not candidates:
        raise InvalidRequest("--candidate-columns names no column")
    return Columns(args["context_column"] or "context", candidates)
