"""Whom a command asks: a server, or with ``--local`` a model in this very process."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from app.cli.backend import Backend, RemoteBackend
from app.cli.request_flags import add_request_flags, read_text, request_fields
from app.cli.server_address import ServerAddress, add_address_flags
from app.cli.tables import Page
from app.client import Client, ClientError, InvalidRequest, Retries
from app.environment import bound_compiled_products, env_name, let_idle_threads_sleep
from app.schemas.bounds import MAX_TIMEOUT_MS
from app.schemas.request import Request
from app.settings import Settings

R = TypeVar("R", bound=BaseModel)

RETRIES: Final = Retries(attempts=3, first_wait_s=0.2, longest_wait_s=2.0, total_s=None)
"""Somebody is waiting in front of a screen."""

GRACE_S: Final = 10.0
"""Seconds that a server's answer may be late; when the work itself ends is the server's affair."""


def add_flags(parser: argparse.ArgumentParser, request: type[Request], *own: str) -> None:
    """Every flag of a command that asks one request: where, what, and how to print it."""
    where = parser.add_argument_group("whom to ask")
    add_address_flags(where)
    where.add_argument(
        "--local",
        action="store_true",
        help="ask no server: load a model here, set up as a server would be by its "
        f"variables, {env_name('model')} and so on",
    )
    where.add_argument(
        "--model",
        default=argparse.SUPPRESS,
        help="the served model's name, as a check; with --local what to load",
    )
    add_request_flags(parser, request, "context", "model", *own)
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def run_request(
    args: dict[str, Any],
    request: type[Request],
    put: Callable[[Backend, dict[str, Any]], R],
    show: Callable[[Page, R], None],
) -> int:
    """Put the question, print the answer; the exit status.

    Args:
        args: as parsed.
        request: what is asked.
        put: to whom, with which fields.
        show: the answer, as lines.
    """
    try:
        fields = request_fields({**args, "context": read_text(args["context"])}, request)
    except ValueError as error:
        return _failed(error, 2)
    if args["local"]:
        fields.pop("model", None)
    try:
        with open_backend(args) as asker:
            reply = put(asker, fields)
    except ClientError as error:
        return _failed(error, 2 if isinstance(error, InvalidRequest) else 1)
    page = Page()
    if args["json"]:
        page.line(reply.model_dump_json())
    else:
        show(page, reply)
    page.write()
    return 0


@contextmanager
def open_backend(args: dict[str, Any]) -> Iterator[Backend]:
    """Somebody who answers.

    Raises:
        SettingsError: the address, or a setting of the model, is unfit.
        ClientError: the model cannot be loaded.
    """
    if args["local"]:
        settings = Settings.read({name: args[name] for name in ("model",) if name in args})
        let_idle_threads_sleep()
        bound_compiled_products()
        # This brings torch, which takes seconds; whoever asks a server need not wait.
        from app.cli.in_process import InProcessBackend

        with InProcessBackend(settings) as local:
            yield local
    else:
        found = ServerAddress.find(args["url"], args["api_key"])
        timeout_s = args.get("timeout_ms", MAX_TIMEOUT_MS) / 1000 + GRACE_S
        with Client(
            base_url=found.url, api_key=found.key, timeout_s=timeout_s, retries=RETRIES
        ) as client:
            yield RemoteBackend(client)


def _failed(error: Exception, status: int) -> int:
    sys.stderr.write(f"chainrule: error: {' '.join(str(error).split())}\n")
    return status
