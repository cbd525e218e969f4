"""``chainrule decode``: the continuations that a search finds, as tables."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from typing import Any

from app.cli.request_flags import add_context
from app.cli.single_request import add_flags, run_request
from app.cli.tables import Cell, Page, number, printable, quoted
from app.client import Client
from app.schemas.decode import DecodeRequest
from app.schemas.decode_response import (
    CertificateReport,
    ComparedStrategy,
    DecodedSequence,
    DecodedToken,
    DecodeResponse,
)
from app.schemas.response import TokenDetail


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give the parser what the command takes."""
    add_context(parser)
    add_flags(parser, DecodeRequest)
    parser.set_defaults(command=decode_command)


def decode_command(args: dict[str, Any]) -> int:
    """``chainrule decode``."""

    def send(client: Client, fields: dict[str, Any]) -> DecodeResponse:
        if not fields.pop("stream", False):
            return client.decode(**fields)
        with closing(client.stream(**fields)) as events:
            for event in events:
                if isinstance(event, DecodeResponse):
                    break
                if not args["json"]:
                    _print_token(event)
            else:
                raise RuntimeError("this is a bug: a stream has ended without its result")
        if not args["json"]:
            sys.stdout.write("\n\n")
        return event

    return run_request(args, DecodeRequest, send, show)


def show(page: Page, reply: DecodeResponse) -> None:
    """The sequences, what was proven of them, and how strategies compare."""
    if reply.sequences:
        page.table(
            [">#", "text", ">tokens", ">logprob", ">score", "finish", ">candidate"],
            [_sequence(sequence) for sequence in reply.sequences],
        )
    elif reply.compared is None:
        page.line("nothing was found", "yellow")
    for sequence in reply.sequences:
        if sequence.tokens is not None:
            _show_tokens(page, sequence, sequence.tokens)
    if reply.compared is not None:
        page.table(
            ["strategy", "text", ">logprob", ">search error", "reason"],
            [_compared(entry) for entry in reply.compared],
        )
    if reply.certificate is not None:
        _show_certificate(page, reply.certificate)


def _print_token(token: DecodedToken) -> None:
    sys.stdout.write(printable(token.text, keep="\n\t"))
    sys.stdout.flush()


def _sequence(one: DecodedSequence) -> list[Cell]:
    return [
        str(one.index),
        (quoted(one.text), "bold green" if one.index == 0 else ""),
        str(len(one.token_ids)),
        number(one.logprob),
        number(one.score),
        one.finish_reason,
        "" if one.candidate is None else str(one.candidate),
    ]


def _show_tokens(page: Page, sequence: DecodedSequence, tokens: list[TokenDetail]) -> None:
    page.line()
    page.line(f"tokens of #{sequence.index}", "bold")
    page.table(
        ["token", ">id", ">logprob", ">rank", "most probable here"],
        [_token(token) for token in tokens],
    )


def _token(token: TokenDetail) -> list[Cell]:
    others = ", ".join(f"{quoted(top.text, 20)} {top.logprob:.4f}" for top in token.top_logprobs)
    rank = "" if token.rank is None else str(token.rank)
    return [
        quoted(token.text),
        (str(token.id), "dim"),
        number(token.logprob),
        (rank, "" if rank == "1" else "yellow"),
        (others, "dim"),
    ]


def _compared(entry: ComparedStrategy) -> list[Cell]:
    error = entry.search_error
    text = "" if entry.sequence is None else quoted(entry.sequence.text)
    colour = "green" if error == 0 else "yellow"
    return [
        (entry.strategy, "bold"),
        text,
        number(entry.total),
        (number(error), colour),
        entry.reason or "",
    ]


def _show_certificate(page: Page, found: CertificateReport) -> None:
    page.line()
    bound = "" if found.upper_bound is None else f", no score is above {found.upper_bound:.4f}"
    asked = f"after {found.expanded} prefixes{bound}"
    if found.optimal:
        page.line(f"proven: these are the best {asked}", "green")
    else:
        gap = "" if found.gap is None else f" by up to {found.gap:.4f}"
        page.line(f"not proven: others may be better{gap}, {asked}", "yellow")
