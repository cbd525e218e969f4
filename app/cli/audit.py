"""``chainrule audit``: what scores are made of, and what decides between candidates, as tables."""

from __future__ import annotations

import argparse
from typing import Any

from app.cli.diagnose.report import show_explanations
from app.cli.request_flags import add_context
from app.cli.single_request import add_flags, run_request
from app.cli.tables import Cell, Page, number, quoted
from app.client import Client
from app.schemas.audit import AuditRequest
from app.schemas.audit_response import (
    AuditedCandidate,
    AuditedCompletion,
    AuditedToken,
    AuditResponse,
    CandidateJoin,
    PairAudit,
    RankedScore,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give the parser what the command takes."""
    add_context(parser)
    parser.add_argument("candidates", metavar="CANDIDATE", nargs="+", help="text to be audited")
    add_flags(parser, AuditRequest, "candidates")
    parser.set_defaults(command=audit_command)


def audit_command(args: dict[str, Any]) -> int:
    """``chainrule audit``."""
    return run_request(args, AuditRequest, _send, show)


def show(page: Page, reply: AuditResponse) -> None:
    """Rankings, joins, tokens, pairs, completions and a diagnosis, in this order."""
    heads = ["candidate", ">logprob", ">rank", ">mean", ">rank", ">per byte", ">rank", "error"]
    # Where nobody failed, the room is the candidates'.
    count = len(heads) - all(one.error is None for one in reply.candidates)
    page.table(heads[:count], [_ranked(one)[:count] for one in reply.candidates])
    page.line(reply.views, "dim")
    _show_joins(page, reply.candidates)
    for one in reply.candidates:
        if one.tokens:
            _show_tokens(page, one)
    for pair in reply.pairs:
        _show_pair(page, pair)
    for favourite in (reply.among_candidates, reply.among_completions):
        if favourite is not None:
            page.line(favourite.explanation, "yellow" if favourite.loses else "")
    _show_completions(page, reply.completions)
    if reply.diagnosis is not None:
        page.line()
        page.line("the reported numbers", "bold")
        show_explanations(page, reply.diagnosis)


def _send(client: Client, fields: dict[str, Any]) -> AuditResponse:
    return client.audit(**fields)


def _ranked(one: AuditedCandidate) -> list[Cell]:
    name = quoted(one.text)
    if one.ranking is None:
        message = "" if one.error is None else one.error.message
        return [name, *[""] * 6, (message, "red")]
    sums = one.ranking.sum
    return [
        (name, "bold green" if sums.rank == 1 else ""),
        *(text for view in (sums, one.ranking.mean, one.ranking.per_byte) for text in _place(view)),
        "",
    ]


def _place(view: RankedScore) -> tuple[str, str]:
    return number(view.score), "" if view.rank is None else str(view.rank)


def _show_joins(page: Page, candidates: list[AuditedCandidate]) -> None:
    page.line()
    page.table(
        ["candidate", ">own start", "tokens at the join", ">joint", ">separate", ">marginal"],
        [_join(quoted(one.text), one.join) for one in candidates if one.join is not None],
    )


def _join(name: str, join: CandidateJoin) -> list[Cell]:
    tokens = " ".join(quoted(token.text) for token in join.tokens)
    marginal = join.policies.marginal
    return [
        name,
        str(join.own_start_token),
        (tokens, "yellow" if join.merged else ""),
        number(join.policies.joint),
        number(join.policies.separate),
        "" if marginal is None else number(marginal.lower),
    ]


def _show_tokens(page: Page, one: AuditedCandidate) -> None:
    page.line()
    page.line(f"tokens of {quoted(one.text)}", "bold")
    page.table(
        ["token", ">logprob", ">sum", ">rank", ">entropy", "best other token"],
        [_token(token) for token in one.tokens],
    )


def _token(token: AuditedToken) -> list[Cell]:
    other = token.alternative
    rank = "" if token.rank is None else str(token.rank)
    return [
        quoted(token.text),
        number(token.logprob),
        number(token.cumulative),
        (rank, "" if rank == "1" else "yellow"),
        number(token.entropy),
        ("" if other is None else f"{quoted(other.text)} {other.logprob:.4f}", "dim"),
    ]


def _show_pair(page: Page, pair: PairAudit) -> None:
    page.line()
    page.line(f"#{pair.better} against #{pair.worse}", "bold")
    page.line(pair.explanation)


def _show_completions(page: Page, completions: list[AuditedCompletion]) -> None:
    if not completions:
        return
    page.line()
    page.table(
        ["search", "finds", ">logprob", ">above best", ">search error", "reason"],
        [
            [
                (one.strategy, "bold"),
                "" if one.text is None else quoted(one.text),
                number(one.logprob),
                number(one.above_best_candidate),
                number(one.search_error),
                one.reason or "",
            ]
            for one in completions
        ],
    )
