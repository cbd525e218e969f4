"""A command that sends one request and prints the answer."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final, TypeVar

import httpx
from pydantic import BaseModel

from app.cli.failure import fail
from app.cli.request_flags import add_request_flags, read_text, request_fields
from app.cli.server_address import add_server_flags, find_server, with_advice
from app.cli.tables import Page
from app.client import Client, ClientError, InvalidRequest, Retries
from app.schemas.bounds import MAX_TIMEOUT_MS
from app.schemas.request import Request

R = TypeVar("R", bound=BaseModel)

RETRIES: Final = Retries(attempts=3, first_wait_s=0.2, longest_wait_s=2.0, total_s=None)
"""Somebody is waiting in front of a screen."""

GRACE_S: Final = 10.0
"""Seconds that a server's answer may be late; when the work itself ends is the server's affair."""


def add_flags(parser: argparse.ArgumentParser, request: type[Request], *own: str) -> None:
    """Every flag of a command that sends one request: where, what, and how to print it."""
    add_server_flags(parser.add_argument_group("whom to ask"))
    add_request_flags(parser, request, "context", "model", *own)
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def run_request(
    args: dict[str, Any],
    request: type[Request],
    send: Callable[[Client, dict[str, Any]], R],
    show: Callable[[Page, R], None],
) -> int:
    """Send the request, print the answer; the exit status.

    Args:
        args: as parsed.
        request: what is sent.
        send: by which client, with which fields.
        show: the answer, as lines.
    """
    try:
        fields = request_fields({**args, "context": read_text(args["context"])}, request)
    except ValueError as error:
        return fail(error, 2)
    timeout_s = args.get("timeout_ms", MAX_TIMEOUT_MS) / 1000 + GRACE_S
    try:
        with (
            find_server(args) as server,
            server.client(
                Client, httpx.HTTPTransport, timeout_s=timeout_s, retries=RETRIES
            ) as client,
        ):
            reply = send(client, fields)
    except ClientError as error:
        return fail(with_advice(error), 2 if isinstance(error, InvalidRequest) else 1)
    page = Page()
    if args["json"]:
        page.line(reply.model_dump_json())
    else:
        show(page, reply)
    page.write()
    return 0
