"""``chainrule score CONTEXT CANDIDATE ...``: a few candidates on the spot."""

from __future__ import annotations

from typing import Any

from app.cli.score.rows import (
    chosen_rows,
    tell_warnings,
    write_rows,
    write_table,
    written_rows,
)
from app.cli.single_request import run_request
from app.cli.tables import Page
from app.client import Client
from app.schemas.score import ScoreRequest
from app.schemas.score_response import ScoreResponse


def score_candidates(args: dict[str, Any], context: str, candidates: list[str]) -> int:
    """Ask once and write a row for each candidate, best first; the exit status.

    Raises:
        InvalidRequest: a flag is unfit.
    """
    kind, fields = chosen_rows(args, is_file=False)
    asked = {**args, "context": context, "json": False}

    def send(client: Client, given: dict[str, Any]) -> ScoreResponse:
        return client.score(candidates=candidates, **given)

    def show(page: Page, reply: ScoreResponse) -> None:
        if kind is None or kind == "table":
            write_table(page, reply, candidates)
            return
        write_rows(written_rows(kind, fields, reply, candidates, {}, head=True))
        tell_warnings(reply)

    return run_request(asked, ScoreRequest, send, show)
