"""The flags of ``chainrule score --ray``. Without them nothing of Ray is imported."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from app.cli.extras import check_extra
from app.cli.numbers import at_least
from app.cli.score.report import tell
from app.client import InvalidRequest
from app.environment import keep_ray_quiet
from app.settings import Settings

BLOCK_ROWS: Final = 1000
"""Records of a block, by default."""

_ONLY_WITHOUT: Final = (
    *("local", "url", "api_key", "errors", "retry_for", "session"),
    *("context_column", "candidate_columns"),
)
_ONLY_WITH: Final = ("ray_address", "actors", "block_rows")
_ONLY_THIS_PROCESS: Final = {"api_keys": (), "api_key_file": None}
"""Settings that need not leave this process."""


def add_ray_flags(parser: argparse.ArgumentParser) -> None:
    """``--ray`` and what belongs to it."""
    group = parser.add_argument_group("on a Ray cluster")
    group.add_argument(
        "--ray",
        action="store_true",
        help="ask no server: actors of a cluster load the model, set up by this machine's "
        "variables as with --local. INPUT is a file, a folder, or a pattern such as "
        "'data/*.jsonl', OUTPUT a folder of Parquet files; every node must see both",
    )
    group.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="of a running cluster, auto for that of this machine; default: RAY_ADDRESS, or a "
        "cluster of this machine that ends with the run",
    )
    group.add_argument(
        "--actors",
        type=at_least(1, whole=True),
        metavar="N",
        help="that load the model; default: one for each node, or GPU. Each has as many threads "
        "as CHAINRULE_THREADS says, or its share of its node",
    )
    group.add_argument(
        "--block-rows",
        type=at_least(1, whole=True),
        metavar="N",
        help=f"records that are scored together and lost together if a run ends ({BLOCK_ROWS})",
    )


def refuse_ray_flags(args: Mapping[str, Any]) -> None:
    """Raise ``InvalidRequest`` for a flag that only means something with ``--ray``."""
    for name in _ONLY_WITH:
        if args[name] is not None:
            raise InvalidRequest(f"--{name.replace('_', '-')} goes with --ray")


def score_on_ray(args: dict[str, Any], fields: dict[str, Any]) -> int:
    """Run it; the exit status.

    Raises:
        InvalidRequest, SettingsError: a wrong command line or setting.
        ClientError, OutputError, OSError: it could not go on.
    """
    _check(args)
    for package in ("ray", "pyarrow"):
        check_extra(package, "ray", "--ray")
    settings = Settings.read({name: args[name] for name in ("model",) if name in args})
    fields = {name: value for name, value in fields.items() if name != "model"}
    args = {**args, "block_rows": args["block_rows"] or BLOCK_ROWS}
    keep_ray_quiet()
    # This brings Ray, which takes seconds.
    from app.cli.score.dataset.job import score_dataset

    counts = score_dataset(args, fields, settings.model_copy(update=_ONLY_THIS_PROCESS))
    return tell(counts, "records", args["output"] / "errors")


def _check(args: Mapping[str, Any]) -> None:
    for name in _ONLY_WITHOUT:
        if args[name]:
            raise InvalidRequest(f"--ray does without --{name.replace('_', '-')}")
    if args["input"] == "-":
        raise InvalidRequest("--ray reads files, not standard input")
    output: Path | None = args["output"]
    if output is None or output.is_file():
        raise InvalidRequest("--ray needs --output, a folder")
    if args["output_format"] == "jsonl":
        raise InvalidRequest("--ray writes Parquet")
    if Path(args["input"]).is_dir() and _lies_in(output, Path(args["input"])):
        raise InvalidRequest("--output lies in the input's folder")


def _lies_in(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
