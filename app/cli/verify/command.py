"""``chainrule verify``: compute a receipt's scores again, and say whether they hold.

Exit status: 0 they hold to the bit, 1 it could not be found out, 2 a wrong command line or setting,
3 they differ, 4 they cannot be compared here.
"""

from __future__ import annotations

import argparse
from typing import Any, Final

import httpx

from app.cli.failure import fail
from app.cli.server_address import find_server
from app.cli.single_request import GRACE_S, RETRIES
from app.cli.tables import Page
from app.cli.verify.receipt_file import NoReceipt, OtherFormat, read_receipt
from app.cli.verify.report import Verification, show
from app.cli.verify.verification import verify
from app.client import Client, ClientError
from app.environment import env_name
from app.schemas.bounds import MAX_TIMEOUT_MS
from app.settings import SettingsError

ATTEMPT_S: Final = MAX_TIMEOUT_MS / 1000 + GRACE_S
"""Of one question, which gives itself all the time there is."""

EPILOG: Final = """\
Exit status: 0 the scores hold to the bit, 1 it could not be found out (the file holds no receipt,
the model cannot be loaded, the server does not answer), 2 a wrong command line or setting, 3 they
differ, 4 they cannot be compared: the fingerprint is another one, or a path cannot be scored here.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give the parser of ``chainrule verify`` its flags and its command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.set_defaults(command=verify_command)
    parser.add_argument(
        "file",
        metavar="FILE",
        help="a receipt, or an answer of /v1/score that holds one, as JSON; - for stdin",
    )
    parser.add_argument(
        "--any-fingerprint",
        action="store_true",
        help="compare also where the model's fingerprint is another one",
    )
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    group = parser.add_argument_group("who computes")
    group.add_argument(
        "--model",
        default=argparse.SUPPRESS,
        help="what to load here; with --url the served model's name, as a check "
        f"[{env_name('model')}]",
    )
    group.add_argument(
        "--url",
        help="address of a server; default: the model is loaded here, set up as a server would be "
        f"by its variables, {env_name('dtype')} and so on",
    )
    group.add_argument(
        "--api-key", metavar="KEY", help=f"the server's key [{env_name('client_api_key')}]"
    )


def verify_command(args: dict[str, Any]) -> int:
    """Run it; the exit status."""
    if args["url"] is None and args["api_key"] is not None:
        raise SettingsError("--api-key goes with --url")
    try:
        found = _found(args)
    except (NoReceipt, ClientError) as error:
        return fail(error, 1)
    page = Page()
    if args["json"]:
        page.line(found.model_dump_json())
    else:
        show(page, found)
    page.write()
    return found.exit_status


def _found(args: dict[str, Any]) -> Verification:
    try:
        receipt = read_receipt(args["file"])
    except OtherFormat as error:
        return Verification(verdict="not_comparable", reason=str(error))
    is_local = args["url"] is None
    with (
        find_server({**args, "local": is_local}) as server,
        server.client(Client, httpx.HTTPTransport, timeout_s=ATTEMPT_S, retries=RETRIES) as client,
    ):
        return verify(
            client,
            receipt,
            model=None if is_local else args.get("model"),
            any_fingerprint=args["any_fingerprint"],
        )
