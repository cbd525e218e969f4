"""What POST /v1/calibrations cannot fit is refused by name."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.schemas.bounds import (
    MAX_CALIBRATION_LINES,
    MAX_CALIBRATION_OPTIONS,
    MAX_CALIBRATION_PATHS,
)
from tests.app.compat.decisions.decision_calls import (
    chat_engine,
    choice,
    labelled,
    predicate,
    score,
)
from tests.app.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine() -> FakeEngine:
    """The law of letters, with a chat template."""
    return chat_engine(max_model_len=2_000)


GOOD = labelled(1)[0]


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        ({"lines": []}, "lines", "at least 1"),
        ({"lines": [GOOD] * (MAX_CALIBRATION_LINES + 1)}, "lines", "at most"),
        ({"lines": [GOOD] * 3}, "lines", "3 of type choice are too few"),
        ({"lines": [{**GOOD, "answer": "pink"}]}, "lines.0.answer", "'pink' is none of its"),
        ({"lines": [{**GOOD, "answer": True}]}, "lines.0.answer", "true is none of its"),
        (
            {"lines": [{**GOOD, "question": predicate(), "answer": 1}]},
            "lines.0.answer",
            "1 is none of its",
        ),
        (
            {"lines": [GOOD, {**GOOD, "question": score("a", "b"), "answer": 2}]},
            "lines.1.answer",
            "2 is none of its",
        ),
        ({"lines": [{**GOOD, "weight": 1}]}, "lines.0.weight", "no such field"),
        ({"lines": [{**GOOD, "input": "a" * 3_000}] * 20}, "lines.0.input", "tokens are too many"),
        ({"lines": labelled(10), "error_rate": 0.01}, "lines", "takes 198 labelled questions"),
        ({"error_rate": 0}, "error_rate", "greater than or equal"),
        ({"error_rate": 0.6}, "error_rate", "less than or equal"),
        ({"method": "platt"}, "method", "'auto', 'temperature' or 'isotonic'"),
        ({"name": "../etc"}, "name", "pattern"),
        ({"name": ".hidden"}, "name", "pattern"),
        ({"debias": "some"}, "debias", "'none', 'cyclic' or 'all'"),
    ],
)
async def test_what_cannot_be_fitted_is_refused_by_field(
    client: httpx.AsyncClient, change: dict[str, Any], param: str, message: str
) -> None:
    """Bounds, answers that are no options, lines that the model cannot take."""
    response = await client.post("/v1/calibrations", json={"lines": labelled(), **change})
    assert response.status_code == 422, response.text
    error = response.json()["error"]
    assert error["param"] == param
    assert message in error["message"]


async def test_options_are_bounded_together(client: httpx.AsyncClient) -> None:
    """However they are spread over the lines."""
    many = choice(*(f"{place}" for place in range(255)))
    line = {"input": "it", "question": many, "answer": "7"}
    lines = [line] * (MAX_CALIBRATION_OPTIONS // 255 + 1)
    response = await client.post("/v1/calibrations", json={"lines": lines})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (422, "lines")
    assert f"may have {MAX_CALIBRATION_OPTIONS} options" in error["message"]


async def test_options_are_bounded_in_all_their_orders(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """``cyclic`` shows each as often as there are options; the model is asked nothing."""
    many = choice(*(f"{place}" for place in range(130)))
    lines = [{"input": "it", "question": many, "answer": "7"}] * 504
    body = {"lines": lines, "debias": "cyclic"}
    response = await client.post("/v1/calibrations", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (422, "lines")
    assert f"are {504 * 130 * 130}; there may be {MAX_CALIBRATION_PATHS}" in error["message"]
    assert engine.queries == []


async def test_too_few_labels_are_refused_before_the_model_is_asked(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """Of the rarer type too, however many there are of the other one."""
    lines = [*labelled(30)[::2], labelled(1)[1]]
    response = await client.post("/v1/calibrations", json={"lines": lines})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (422, "lines")
    assert "1 of type predicate are too few" in error["message"]
    assert engine.queries == []
