"""``chainrule next``: which tokens may come next, as a table."""

from __future__ import annotations

import argparse
from typing import Any

from app.cli.request_flags import add_context
from app.cli.single_request import add_flags, run_request
from app.cli.tables import Cell, Page, bar, number, percent, quoted
from app.client import Client
from app.schemas.next_token import NextTokenRequest, NextTokenResponse, TokenProbability


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give the parser what the command takes."""
    add_context(parser)
    add_flags(parser, NextTokenRequest)
    parser.set_defaults(command=next_command)


def next_command(args: dict[str, Any]) -> int:
    """``chainrule next``."""
    return run_request(args, NextTokenRequest, _send, show)


def show(page: Page, reply: NextTokenResponse) -> None:
    """The distribution's best tokens, then those that were asked for."""
    if reply.tokens:
        page.table(_heads(page), [_row(page, token) for token in reply.tokens])
        rest = percent(reply.remaining_probability)
        page.line(f"all other tokens: {rest}", "dim")
    if reply.chosen:
        page.line()
        page.line("asked for", "bold")
        page.table(_heads(page), [_row(page, token) for token in reply.chosen])
    page.line(f"entropy {reply.entropy:.4f} nats", "dim")


def _send(client: Client, fields: dict[str, Any]) -> NextTokenResponse:
    return client.next_token(**fields)


def _heads(page: Page) -> list[str]:
    return [
        ">rank",
        "token",
        ">id",
        ">logprob",
        ">probability",
        *([""] if page.is_terminal else ()),
    ]


def _row(page: Page, token: TokenProbability) -> list[Cell]:
    row: list[Cell] = [
        str(token.rank),
        (quoted(token.text), "bold green" if token.rank == 1 else ""),
        (str(token.id), "dim"),
        number(token.logprob),
        percent(token.probability),
    ]
    # Elsewhere a program or a file may be reading: there bars are noise.
    return [*row, (bar(token.probability), "cyan")] if page.is_terminal else row
