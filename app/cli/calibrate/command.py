"""``chainrule calibrate``: fit a calibration to labelled questions.

Exit status: 0 it is written, 1 it could not be made, 2 a wrong command line, setting or line.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, Final, get_args

import httpx

from app.calibration.fit import METHODS
from app.calibration.store import write_calibration
from app.cli.calibrate.labelled_file import LabelledFile, read_labelled
from app.cli.calibrate.report import show
from app.cli.extras import check_extra
from app.cli.failure import fail
from app.cli.numbers import at_least
from app.cli.server_address import add_server_flags, find_server
from app.cli.single_request import GRACE_S, RETRIES
from app.cli.tables import Page
from app.client import ApiError, Client, ClientError, InvalidRequest
from app.schemas.bounds import MAX_TIMEOUT_MS
from app.schemas.calibration import FittedCalibration
from app.schemas.debias import Debias

OUTPUT: Final = Path("calibration.json")

EPILOG: Final = """\
A line of LABELLED is an object: an input and a question as /v1/decisions takes them, and the right
answer, which is true or false, the value of a choice, or the place or the label of a level:

  {"input": "...", "question": {"type": "predicate", "instructions": "..."}, "answer": true}

The calibration goes with the model's fingerprint, the server's prompts and --debias. A server finds
it by its file's name, NAME.json in the folder CHAINRULE_CALIBRATIONS, and a request uses it by
"calibration": NAME.

Exit status: 0 it is written, 1 it could not be made, 2 a wrong command line, setting or line.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give the parser of ``chainrule calibrate`` its flags and its command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.set_defaults(command=calibrate_command)
    parser.add_argument(
        "input", metavar="LABELLED", help="a file of JSONL, a labelled question a line; - for stdin"
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=OUTPUT, help=f"the calibration; default: {OUTPUT}"
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="PNG",
        help="draw how reliable probabilities are, before and after; needs the extra plot",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace OUTPUT, and --name on the server"
    )
    parser.add_argument("--json", action="store_true", help="print the calibration as JSON")
    _add_fit_flags(parser.add_argument_group("what is fitted"))
    add_server_flags(parser.add_argument_group("whom to ask"))


def _add_fit_flags(group: Any) -> None:
    group.add_argument(
        "--method",
        choices=("auto", *METHODS),
        default=argparse.SUPPRESS,
        help="auto, the default, takes what is better on folds held out, for each type of question",
    )
    group.add_argument(
        "--error-rate",
        type=at_least(0, itself=False),
        metavar="RATE",
        default=argparse.SUPPRESS,
        help="how many prediction sets may lack the right option (default: 0.1)",
    )
    group.add_argument(
        "--debias",
        choices=get_args(Debias),
        default=argparse.SUPPRESS,
        help="in which orders options are shown (default: none)",
    )
    group.add_argument(
        "--name",
        default=argparse.SUPPRESS,
        help="let the server keep it under this name, too, which takes a key",
    )
    group.add_argument(
        "--timeout-ms",
        type=at_least(1, whole=True),
        metavar="MS",
        default=MAX_TIMEOUT_MS,
        help="after which the server gives up (default: an hour)",
    )


def calibrate_command(args: dict[str, Any]) -> int:
    """Run it; the exit status."""
    try:
        if args["plot"] is not None:
            check_extra("matplotlib", "plot", "--plot")
        _check_places(args)
        labelled = read_labelled(args["input"])
        fitted = _fitted(args, labelled, labelled.check(_fields(args)))
        _write(args, fitted)
    except InvalidRequest as error:
        return fail(error, 2)
    except (ClientError, OSError) as error:
        return fail(error, 1)
    _tell(args, fitted)
    if fitted.not_kept is not None:
        return fail(ClientError(f"--name: {fitted.not_kept}"), 1)
    return 0


def _fields(args: dict[str, Any]) -> dict[str, Any]:
    """The request's fields among the flags. ``--local`` has loaded its model by name."""
    names = ["method", "error_rate", "debias", "name", "timeout_ms"]
    names += [] if args["local"] else ["model"]
    fields = {name: args[name] for name in names if name in args}
    return fields | ({"overwrite": args["overwrite"]} if "name" in args else {})


def _check_places(args: dict[str, Any]) -> None:
    """Whatever is to be written should be known to go before a model computes."""
    if args["plot"] is not None and args["plot"].resolve() == args["output"].resolve():
        raise InvalidRequest(f"--plot: {args['plot']} is where the calibration goes")
    for flag in ("output", "plot"):
        path: Path | None = args[flag]
        if path is None:
            continue
        if path.exists() and not path.is_file():
            raise InvalidRequest(f"--{flag}: {path} is no file")
        if path.exists() and not args["overwrite"]:
            raise InvalidRequest(f"--{flag}: {path} is there already; --overwrite replaces it")
        if not os.access(path.parent, os.W_OK):
            raise InvalidRequest(f"--{flag}: {path.parent} is no folder that can be written to")


def _fitted(
    args: dict[str, Any], labelled: LabelledFile, body: dict[str, Any]
) -> FittedCalibration:
    timeout_s = args["timeout_ms"] / 1000 + GRACE_S
    with (
        find_server(args) as server,
        server.client(Client, httpx.HTTPTransport, timeout_s=timeout_s, retries=RETRIES) as client,
    ):
        try:
            return client.calibrate(body)
        except ApiError as error:
            if error.status == 422:
                raise InvalidRequest(labelled.explain(error), code=error.code) from None
            raise


def _write(args: dict[str, Any], fitted: FittedCalibration) -> None:
    write_calibration(args["output"], fitted.calibration)
    if args["plot"] is not None:
        from app.cli.calibrate.reliability_plot import write_plot

        write_plot(args["plot"], fitted.calibration)


def _tell(args: dict[str, Any], fitted: FittedCalibration) -> None:
    page = Page()
    if args["json"]:
        page.line(fitted.calibration.model_dump_json())
    else:
        show(page, fitted.calibration)
        kept = [] if fitted.name is None else [f"kept by the server: {fitted.name}"]
        written = [f"written: {path}" for path in (args["output"], args["plot"]) if path]
        for line in written + kept:
            page.line(line)
    page.write()
