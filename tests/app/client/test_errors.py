"""A field that does not fit: the client says of it what the server would say."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import httpx
import pytest

from app.client import InvalidRequest
from app.client.endpoints import build_request
from app.schemas.audit import AuditRequest
from app.schemas.decode import DecodeRequest
from app.schemas.next_token import NextTokenRequest
from app.schemas.request import Request
from app.schemas.score import ScoreRequest
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine

TEXTS: dict[str, Any] = {"context": "it is", "candidates": [" yes"]}
SCHEMAS: dict[str, type[Request]] = {
    "score": ScoreRequest,
    "next_token": NextTokenRequest,
    "decode": DecodeRequest,
    "audit": AuditRequest,
}
BAD: list[tuple[str, dict[str, Any]]] = [
    ("score", {}),
    ("score", {"context": "it is"}),
    ("score", {**TEXTS, "tempo": 1, "speed": 2}),
    ("score", {**TEXTS, "x" * 300: 1}),
    ("score", {**TEXTS, "normalization": "medium"}),
    ("score", {**TEXTS, "normalization": "pmi"}),
    ("score", {**TEXTS, "temperature": 0, "append_eos": "yes", "tempo": 1}),
    ("score", {**TEXTS, "temperature": True}),
    ("score", {**TEXTS, "context": {"text": "it is"}}),
    ("score", {**TEXTS, "context": [1, "2"]}),
    ("score", {**TEXTS, "context": [{"role": "user"}]}),
    ("score", {**TEXTS, "candidates": []}),
    ("score", {**TEXTS, "candidates": [" yes", [1, None], {}]}),
    ("next_token", {"context": "it is", "top_k": -1}),
    ("next_token", {"context": None}),
    ("decode", {"context": "it is", "stop": [1]}),
    ("decode", {"context": "it is", "early_stopping": 3}),
    ("decode", {"context": "it is", "json_schema": 7}),
    ("audit", {**TEXTS, "pairs": [[0]]}),
    ("audit", {**TEXTS, "pairs": [[0, "1"]]}),
]


@pytest.mark.anyio
async def test_the_client_complains_as_the_server_does() -> None:
    """The same field first, with the same message, param and code, for every kind of mistake."""
    here, there = [], []
    async with client_of(shell_app(FakeEngine())) as client:
        for verb, body in BAD:
            here.append(complaint_about(verb, body))
            there.append(_object(await client.post(f"/v1/{verb}", json=body)))
    assert here == there
    assert {code for _, _, code in here} == {"missing_field", "unknown_field", "invalid_value"}


@pytest.mark.process
def test_the_client_knows_the_servers_words_without_the_server() -> None:
    """What it takes to start costs neither a web framework nor a model."""
    program = "import sys, app.client; print({'fastapi', 'torch', 'transformers'} & {*sys.modules})"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout == "set()\n"


def complaint_about(verb: str, body: dict[str, Any]) -> tuple[str, str | None, str | None]:
    """Of the client, which sends nothing."""
    with pytest.raises(InvalidRequest) as caught:
        build_request(SCHEMAS[verb], body, {})
    return caught.value.message, caught.value.param, caught.value.code


def _object(response: httpx.Response) -> tuple[str, str | None, str | None]:
    assert response.status_code == 422, response.text
    error = response.json()["error"]
    return error["message"], error["param"], error["code"]
