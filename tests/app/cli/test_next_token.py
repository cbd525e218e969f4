"""``chainrule next``."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import httpx
import pytest

from app.cli.next_token import show
from app.cli.tables import Page
from app.schemas.next_token import NextTokenResponse
from tests.app.calls import call
from tests.app.cli.command_line import (
    Terminal,
    answer_locally,
    answer_with,
    field_error,
    printed,
    rows,
)
from tests.app.conftest import client_of, shell_app
from tests.app.fake_engine import FakeEngine

EXAMPLE: dict[str, Any] = NextTokenResponse.model_config["json_schema_extra"]["examples"][0]  # type: ignore[index,call-overload]


@pytest.fixture(autouse=True)
def _law(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_locally(monkeypatch, FakeEngine())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")


def test_the_table_lists_the_best_tokens_first(capsys: pytest.CaptureFixture[str]) -> None:
    """Rank, text, id, log-probability and probability of each, then what is left and entropy."""
    out = printed(capsys, "next", "it is", "--local", "--top-k", "2")
    table = rows(out)
    assert table[0] == ["rank", "token", "id", "logprob", "probability"]
    assert table[1] == ["1", '"', 'yes"', "260", "-0.6931", "50.00%"]
    assert table[2] == ["2", '"', 'no"', "261", "-1.3863", "25.00%"]
    assert "all other tokens: 25.00%" in out
    assert table[-1][0] == "entropy"


def test_asked_tokens_have_a_table_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    """Labels and ids are reported whatever their rank; no text is printed but theirs."""
    argv = ("next", "it is", "--local", "--top-k", "0", "--labels", " no", "--token-ids", "260,97")
    table = rows(printed(capsys, *argv))
    assert table[1] == ["asked", "for"]
    assert [row[-3] for row in table[3:6]] == ["260", "97", "261"]


def test_json_is_the_answer_that_the_server_gives(capsys: pytest.CaptureFixture[str]) -> None:
    """In this process or over HTTP: the same numbers, to the bit."""
    here = json.loads(printed(capsys, "next", "it is", "--local", "--json", "--top-k", "3"))

    async def over_http() -> dict[str, Any]:
        async with client_of(shell_app(FakeEngine())) as client:
            return await call(client, "next_token", top_k=3)

    there = asyncio.run(over_http())
    varying = ("id", "created", "timings_ms")
    assert {name: here[name] for name in here if name not in varying} == {
        name: there[name] for name in there if name not in varying
    }


def test_a_server_is_sent_what_was_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Flags become the request's fields, only those that were given."""
    bodies = answer_with(monkeypatch, lambda _request: httpx.Response(200, json=EXAMPLE))
    argv = ("--top-k", "5", "--no-add-bos", "--temperature", "2", "--priority", "bulk")
    out = printed(capsys, "next", "it is", *argv, "--model", "m", "--url", "http://far:1/")
    assert bodies == [
        {
            "context": "it is",
            "top_k": 5,
            "add_bos": False,
            "temperature": 2.0,
            "priority": "bulk",
            "model": "m",
        }
    ]
    assert '" Paris"' in out


def test_address_and_key_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without flags the variables say where the server is and what opens it."""
    seen: list[tuple[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((str(request.url), request.headers["authorization"]))
        return httpx.Response(200, json=EXAMPLE)

    answer_with(monkeypatch, answer)
    monkeypatch.setenv("CHAINRULE_CLIENT_URL", "https://far.example")
    monkeypatch.setenv("CHAINRULE_CLIENT_API_KEY", "s3cret")
    printed(capsys, "next", "it is")
    assert seen == [("https://far.example/v1/next_token", "Bearer s3cret")]


@pytest.mark.parametrize(
    ("typed", "context"),
    [
        ("it is", "it is"),
        ("line\nline\n", "line\nline"),
        ("it is\n\n", "it is\n"),
        ("a\r\nb\r\n", "a\r\nb"),
        ("naïve \n", "naïve "),
        ("a\r", "a\r"),
    ],
)
def test_context_from_standard_input(
    typed: str, context: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dash reads all of it as it is, but for one line break at its end."""
    bodies = answer_with(monkeypatch, lambda _request: httpx.Response(200, json=EXAMPLE))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(typed.encode())))
    printed(capsys, "next", "-")
    assert bodies[0]["context"] == context


def test_standard_input_that_is_no_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is one line and status 2."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\n")))
    assert field_error(capsys, "next", "-", status=2) == "context: standard input is not UTF-8"


def test_context_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Messages and token ids are written as the API has them."""
    bodies = answer_with(monkeypatch, lambda _request: httpx.Response(200, json=EXAMPLE))
    chat = [{"role": "user", "content": "Hi"}]
    printed(capsys, "next", "--from-json", json.dumps(chat))
    printed(capsys, "next", "--from-json", "[1, 2]")
    assert [body["context"] for body in bodies] == [chat, [1, 2]]


def test_what_the_server_refuses_is_one_line_and_status_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The server's own words."""
    text = field_error(capsys, "next", "it is", "--local", "--labels", "maybe not", status=1)
    assert "labels.0" in text


@pytest.mark.parametrize(
    "argv",
    [
        ("--top-k", "100000"),
        ("--from-json",),
        ("--url", "far.example"),
        ("--url", "file:///etc"),
    ],
)
def test_a_wrong_request_is_one_line_and_status_2(
    argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be sent is refused here, and nothing has been asked."""
    field_error(capsys, "next", "it is", *argv, status=2)


def test_a_model_that_is_not_there_is_one_line_and_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --local the loader's words are the answer."""
    monkeypatch.undo()
    text = field_error(capsys, "next", "it is", "--local", "--model", "no such model", status=1)
    assert "no such model" in text


def test_a_terminal_gets_bars_and_colours() -> None:
    """The same table, with a bar as long as the probability behind each row."""
    out = Terminal()
    page = Page(out)
    show(page, NextTokenResponse.model_validate(EXAMPLE))
    page.write()
    assert "\x1b[36m████████████▏" in out.getvalue()
