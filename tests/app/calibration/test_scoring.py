"""Labelled questions, scored a bounded number of tokens at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import pytest

from app.calibration import scoring
from app.calibration.scoring import LabelledInput, score_labelled
from app.decisions.plan import plan_decisions
from app.decisions.question import Option, Question
from app.schemas.debias import Debias
from app.schemas.request import ServingOptions
from app.service import ScoringService
from model_runtime import LogprobQuery
from tests.app.compat.decisions.decision_calls import chat_engine, plain_engine

OPTIONS = (Option("a", "the first one"), Option("ab"), Option("x", "é" * 40))
QUESTION = Question("choice", "Which?", OPTIONS, "lines.0.question")
LINE = LabelledInput("it " * 300, QUESTION, 0, "lines.0")


def tokens(queries: Sequence[LogprobQuery]) -> int:
    """Of all of them."""
    return sum(len(query.tokens) for query in queries)


@pytest.mark.parametrize("debias", get_args(Debias))
@pytest.mark.parametrize("engine", [chat_engine(), plain_engine()])
def test_the_room_that_is_taken_is_enough(engine: Any, debias: Debias) -> None:
    """A plan never holds more tokens than were counted before it was made."""
    plan = plan_decisions(LINE.text, [QUESTION], debias, engine.tokenizer, engine.info)
    counted = scoring._most_tokens(LINE, debias)
    assert tokens(plan.queries) <= counted <= 3 * tokens(plan.queries)


@pytest.mark.anyio
@pytest.mark.parametrize(("room", "most"), [(1, 1), (2.5, 2), (100, scoring.LINES_AT_ONCE)])
async def test_lines_go_together_as_there_is_room(
    monkeypatch: pytest.MonkeyPatch, anyio_backend: str, room: float, most: int
) -> None:
    """What is planned and not answered yet never holds more than that."""
    service = ScoringService(chat_engine())
    held: list[int] = []
    highest = 0
    score_paths = ScoringService.score_paths

    async def counted(self: ScoringService, *args: Any) -> Any:
        nonlocal highest
        held.append(1)
        highest = max(highest, len(held))
        try:
            return await score_paths(self, *args)
        finally:
            held.pop()

    monkeypatch.setattr(ScoringService, "score_paths", counted)
    size = int(room * scoring._most_tokens(LINE, "cyclic"))
    monkeypatch.setattr(scoring, "MAX_PATH_TOKENS", size)
    decisions, _ = await score_labelled(service, ServingOptions(), [LINE] * 40, "cyclic")
    assert len(decisions) == 40
    assert highest == most
