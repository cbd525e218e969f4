"""``chainrule verify`` as somebody types it: what it prints, and how it ends."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from app import version
from app.client import Client
from app.schemas.score_response import ScoreResponse
from model_runtime import Engine
from tests.app.calls import YES
from tests.app.cli.command_line import answer_locally, field_error, printed, rows
from tests.app.fake_engine import FakeEngine
from tests.app.in_process import client_over
from tests.conftest import TinyFolder

CONTEXT = "it is"


@pytest.fixture(autouse=True)
def _law(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_locally(monkeypatch, FakeEngine(numeric_error=(1e-3, 1e-3)))


@pytest.fixture(scope="module")
def response() -> ScoreResponse:
    """An answer with a receipt."""
    with client_over(FakeEngine(numeric_error=(1e-3, 1e-3))) as client:
        return client.score(context=CONTEXT, candidates=[YES, " no", ""], receipt=True)


@pytest.fixture
def receipt(response: ScoreResponse) -> dict[str, Any]:
    """Its receipt, to be changed at will."""
    assert response.receipt is not None
    return response.receipt.model_dump()


def saved(folder: Path, value: Any) -> str:
    """The name of a file that holds it."""
    file = folder / "receipt.json"
    file.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(file)


def test_a_receipt_that_holds(
    receipt: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who computed, who computes, the verdict; status 0."""
    out = printed(capsys, "verify", saved(tmp_path, receipt)).splitlines()
    computer = f"org/toy, fingerprint {'f' * 24}, float32, torch kernels, chainrule {version()}"
    assert out[:2] == [f"receipt  {computer}", f"here     {computer}"]
    assert out[2:] == [
        "the receipt says nothing of 1 candidate of its request",
        "holds: all 2 log-probabilities are the same to the bit",
    ]


def test_an_answer_from_standard_input(
    response: ScoreResponse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A whole answer of /v1/score, as a pipe brings it."""
    content = io.BytesIO(response.model_dump_json().encode())
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=content))
    assert "holds: " in printed(capsys, "verify", "-")


def test_a_line_of_a_scored_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``chainrule score --receipt`` writes receipts as well, those of split lists too."""
    (tmp_path / "in.jsonl").write_text(
        json.dumps({"context": CONTEXT, "candidates": [YES, " no", " maybe"]})
    )
    output = str(tmp_path / "out.jsonl")
    flags = ("--local", "--receipt", "--split", "2", "-o", output)
    printed(capsys, "score", str(tmp_path / "in.jsonl"), *flags)
    assert "all 3 log-probabilities" in printed(capsys, "verify", output)


def test_a_receipt_that_differs(
    receipt: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which candidate, from what to what, by how much; status 3."""
    receipt["candidates"][1].update(logprobs=[-1.5], logprob=-1.5, score=-1.5)
    out = printed(capsys, "verify", saved(tmp_path, receipt), status=3)
    table = rows(out)
    assert table[3][:4] == ["1", "-1.5", "-1.38629436", "1.1e-01"]
    assert out.splitlines()[-1] == (
        "differs: 1 of 2 candidates; a token's log-probability differs by at most 1.1e-01 nats, "
        "beyond what the numeric error explains (2 x 1.0e-03)"
    )


def test_a_receipt_of_another_model(
    receipt: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 4, unless it is compared all the same."""
    file = saved(tmp_path, {**receipt, "fingerprint": "0" * 24, "model": "\x1b[31mred"})
    out = printed(capsys, "verify", file, status=4)
    assert out.splitlines()[-1].startswith("not comparable: the fingerprint is another one: model ")
    assert "\x1b" not in out
    out = printed(capsys, "verify", file, "--any-fingerprint")
    assert out.splitlines()[-1].endswith("to the bit, though the fingerprint is another one")


def test_a_receipt_of_a_newer_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It may well hold: status 4, and no model is loaded."""
    out = printed(capsys, "verify", saved(tmp_path, {"format_version": 2}), status=4)
    assert out.startswith("not comparable: the receipt is of format 2;")


@pytest.mark.parametrize(
    ("change", "status", "verdict"),
    [
        ({}, 0, "holds"),
        ({"prefixes": [[97]]}, 3, "differs"),
        ({"fingerprint": "0" * 24}, 4, "not_comparable"),
    ],
)
def test_the_verdict_as_json(
    change: dict[str, Any],
    status: int,
    verdict: str,
    receipt: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One object; what has no value is absent."""
    file = saved(tmp_path, {**receipt, **change})
    found = json.loads(printed(capsys, "verify", file, "--json", status=status))
    assert found["verdict"] == verdict
    assert found["receipt"]["fingerprint"] == receipt["fingerprint"] or "fingerprint" in change
    assert found["here"]["model"] == "org/toy"
    assert ("findings" in found) is (verdict == "differs")
    assert None not in found.values()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"receipt": {"format_version": 1, "prefixes": [[5', "the file is not JSON"),
        ("[" * 100_000, "the file is nested too deep"),
        ('{"format_version": 1, "gnmt_alpha": NaN}', "NaN is not a number"),
        ('{"results": []}', "the file holds no receipt"),
        ('{"format_version": 1, "model": 5}', "chainrule_version: "),
    ],
)
def test_what_is_no_receipt_is_one_line_and_status_1(
    content: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Told before a model is loaded."""
    monkeypatch.setattr("app.cli.local_server.Engine", None)
    assert field_error(capsys, "verify", saved(tmp_path, content), status=1).startswith(words)


def test_a_file_that_is_not_there_is_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The system's own words."""
    assert "No such file" in field_error(capsys, "verify", str(tmp_path / "none"), status=1)


def test_a_key_without_a_server_is_status_2(
    receipt: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody is told of a server that was not asked."""
    file = saved(tmp_path, receipt)
    assert field_error(capsys, "verify", file, "--api-key", "x", status=2) == (
        "--api-key goes with --url"
    )


def test_a_server_is_asked_in_ids(
    receipt: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By its URL and with its key; the model's name is a check. It is told no text."""
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        with client_over() as other:
            if request.url.path == "/v1/models":
                (card,) = other.models()
                return httpx.Response(200, json={"object": "list", "data": [card.model_dump()]})
            return httpx.Response(
                200, content=other.score(json.loads(request.content)).model_dump_json()
            )

    client = partial(Client, transport=httpx.MockTransport(answer))
    monkeypatch.setattr("app.cli.verify.command.Client", client)
    flags = ("--url", "http://there/v1", "--api-key", "s3cret", "--model", "org/toy")
    assert "holds: " in printed(capsys, "verify", saved(tmp_path, receipt), *flags)
    assert {request.url.host for request in asked} == {"there"}
    assert {request.headers["authorization"] for request in asked} == {"Bearer s3cret"}
    body = json.loads(asked[-1].content)
    assert (body["model"], body["boundary"]) == ("org/toy", "separate")
    assert all(type(one) is int for path in (body["context"], *body["candidates"]) for one in path)


def test_a_server_that_is_not_there_is_status_1(
    receipt: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, with its address."""
    file = saved(tmp_path, receipt)
    words = field_error(capsys, "verify", file, "--url", "http://127.0.0.1:9", status=1)
    assert "127.0.0.1:9" in words


@pytest.mark.process
def test_what_another_process_scored_is_verified(
    tiny_folder: TinyFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is found to the bit; a changed bit is seen; another model is another fingerprint."""
    asked = {"context": "what is ", "candidates": ["the end", " a b", "c"], "append_eos": True}
    scored = subprocess.run(
        [sys.executable, "-m", "app", "score", "-", "--local", "--receipt"],
        env={**os.environ, "CHAINRULE_MODEL": str(tiny_folder("llama"))},
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    assert scored.returncode == 0, scored.stderr
    monkeypatch.setattr("app.cli.local_server.Engine", Engine)
    monkeypatch.setenv("CHAINRULE_MODEL", str(tiny_folder("llama")))
    found = printed(capsys, "verify", saved(tmp_path, scored.stdout))
    assert found.splitlines()[-1].startswith("holds: all ")
    answer = json.loads(scored.stdout)
    answer["receipt"]["candidates"][0]["logprobs"][0] *= 1 + 2**-23
    printed(capsys, "verify", saved(tmp_path, answer), status=3)
    monkeypatch.setenv("CHAINRULE_MODEL", str(tiny_folder("qwen2")))
    printed(capsys, "verify", saved(tmp_path, scored.stdout), status=4)
