"""A field that there is not, and the one that may be meant."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from app.errors.suggestion import known_fields, suggestion
from app.schemas.decode import DecodeRequest
from app.schemas.score import ScoreRequest
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine

SCORE = TypeAdapter(ScoreRequest).json_schema()
FIELDS = known_fields(SCORE, {}, [])


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("temprature", "temperature"),
        ("Candidates", "candidates"),
        ("add-bos", "add_bos"),
        ("prompt", "context"),
        ("messages", "context"),
        ("documents", "candidates"),
        ("choices", "candidates"),
        ("timeout", "timeout_ms"),
        ("zzz", None),
        ("colour", None),
        ("x" * 1000, None),
        ("", None),
    ],
)
def test_what_is_meant(name: str, want: str | None) -> None:
    """A slip of the pen, another API's name, or nothing near."""
    assert suggestion(name, FIELDS, {name: 1}) == want


def test_what_was_given_is_not_meant() -> None:
    """Somebody who has both knows the right one."""
    assert suggestion("prompt", FIELDS, {"prompt": "x", "context": "y"}) is None


@given(st.text(max_size=60), st.sets(st.sampled_from(FIELDS)))
def test_a_suggestion_is_a_field_that_is_free(name: str, given_fields: set[str]) -> None:
    """Whatever is written."""
    found = suggestion(name, FIELDS, dict.fromkeys(given_fields))
    assert found is None or (found in FIELDS and found not in given_fields)


def test_fields_are_those_of_the_place() -> None:
    """Of a message within the context, not of the request."""
    body: dict[str, Any] = {"context": [{"role": "user", "text": "x"}]}
    fields = known_fields(SCORE, body, ["context", 0])
    assert {"role", "content"} <= set(fields)
    assert "candidates" not in fields
    assert known_fields(SCORE, body, ["context", 5, "nothing"]) == []
    assert "num_beams" in known_fields(TypeAdapter(DecodeRequest).json_schema(), {}, [])


REFUSALS: list[tuple[str, dict[str, Any], str, str]] = [
    ("/v1/score", {"prompt": "x", "candidates": ["a"]}, "prompt", "context"),
    ("/v1/score", {"context": "x", "texts": ["a"]}, "texts", "candidates"),
    ("/v1/next_token", {"messages": [{"role": "user", "content": "x"}]}, "messages", "context"),
    ("/v1/decode", {"context": "x", "max_new_tokens": 3}, "max_new_tokens", "max_tokens"),
    ("/v1/audit", {"contxt": "x", "candidates": ["a"]}, "contxt", "context"),
    ("/v1/completions", {"model": "org/toy", "promt": "x"}, "promt", "prompt"),
    (
        "/v1/decisions",
        {"input": "x", "questions": [{"type": "choice", "instructions": "q", "options": []}]},
        "questions.0.options",
        "choices",
    ),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("path", "body", "param", "meant"), REFUSALS)
async def test_every_route_says_it(path: str, body: dict[str, Any], param: str, meant: str) -> None:
    """Rather than that the right field is missing."""
    async with client_of(shell_app(FakeEngine())) as client:
        response: httpx.Response = await client.post(path, json=body)
    assert response.status_code in (400, 422)
    error = response.json()["error"]
    assert error["param"] == param
    assert error["message"].endswith(f"there is no such field; you may mean {meant}")
