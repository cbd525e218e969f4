"""The README's calls are made, and its answers are the ones that come back."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from app.cli import main
from tests.end_to_end.live_server import LiveServer

pytestmark = [pytest.mark.real_model, pytest.mark.process]

README = (Path(__file__).parents[2] / "README.md").read_text()
CALL = re.compile(
    r"```sh\ncurl -s localhost:8000(?P<path>\S+)(?: -H [^\n]*-d '\n\s*(?P<body>.*?)')?\n```\n+"
    r"```json\n(?P<answer>.*?)```",
    re.DOTALL,
)
STREAMED = re.compile(
    r"```sh\ncurl -sN localhost:8000(?P<path>\S+) -H [^\n]*-d '\n\s*(?P<body>.*?)'\n```\n+"
    r"```text\n(?P<answer>.*?)```",
    re.DOTALL,
)
EXAMPLE = re.compile(r"```python\n(?P<code>.*?)```\n```text\n(?P<shown>.*?)```", re.DOTALL)
COMMAND = re.compile(
    r"```sh\nchainrule (?P<line>[^\n]*)\n```\n```text\n(?P<shown>.*?)```", re.DOTALL
)
COMMANDS = [match.groups() for match in COMMAND.finditer(README)]
CALLS = [match.groupdict() for match in CALL.finditer(README)]

VARIES = {"id", "created", "fingerprint", "numeric_error", "usage", "timings_ms"}
VARIES |= {"system_fingerprint", "cached_tokens"}
"""Of the run or of the machine; everything else is the model's."""


def test_the_readme_has_its_calls() -> None:
    """Every route of the native API, and every family of the others, is shown with an answer."""
    shown = {call["path"] for call in CALLS}
    assert {
        "/v1/score",
        "/v1/next_token",
        "/v1/decode",
        "/v1/audit",
        "/v1/models",
        "/health",
        "/v1/completions",
        "/tokenize",
        "/v2/rerank",
        "/rerank",
        "/v1/decisions",
    } <= shown


@pytest.mark.parametrize("call", CALLS, ids=lambda call: str(call["path"]))
def test_the_answer_is_the_one_that_is_shown(call: dict[str, str], real_server: LiveServer) -> None:
    """Same fields, same texts, same ranks; numbers agree to what another machine may round."""
    if call["body"] is None:
        got = real_server.client.get(call["path"]).json()
    else:
        headers = {"Content-Type": "application/json"}
        got = real_server.client.post(call["path"], content=call["body"], headers=headers).json()
    check_alike(got, json.loads(call["answer"]))


def test_the_stream_is_the_one_that_is_shown(real_server: LiveServer) -> None:
    """Same events in the same order; the last one, which the README cuts, by its name."""
    call = STREAMED.search(README)
    assert call is not None
    headers = {"Content-Type": "application/json"}
    got = real_server.client.post(call["path"], content=call["body"], headers=headers).text
    *tokens, (last, _) = events(got)
    *shown, (shown_last, _) = events(call["answer"])
    assert last == shown_last == "result"
    assert [name for name, _ in tokens] == [name for name, _ in shown]
    for (_, data), (_, shown_data) in zip(tokens, shown, strict=True):
        check_alike(json.loads(data), json.loads(shown_data))


def test_the_clients_example_prints_what_is_shown(
    real_server: LiveServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ranking pipeline runs as it stands, but for the server's port."""
    example = EXAMPLE.search(README)
    assert example is not None
    assert "http://127.0.0.1:8000" in example["code"]
    exec(example["code"].replace("http://127.0.0.1:8000", real_server.url), {})
    check_alike_text(capsys.readouterr().out, example["shown"])


@pytest.mark.parametrize(("line", "shown"), COMMANDS, ids=[line for line, _ in COMMANDS])
def test_a_command_prints_what_is_shown(
    line: str, shown: str, real_server: LiveServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tables as they come where nobody looks at a terminal."""
    assert main([*shlex.split(line), "--url", real_server.url]) == 0
    check_alike_text(capsys.readouterr().out, shown)


def test_commands_are_shown() -> None:
    """At least one of those that print tables."""
    assert {"next", "decode"} <= {line.split()[0] for line, _ in COMMANDS}


def events(text: str) -> list[tuple[str, str]]:
    """(name, data) of each event."""
    return re.findall(r"event: (\w+)\ndata: ([^\n]*)", text)


def check_alike(got: Any, shown: Any) -> None:
    if isinstance(shown, dict):
        assert list(got) == list(shown)
        for key in shown.keys() - VARIES:
            check_alike(got[key], shown[key])
    elif isinstance(shown, list):
        assert len(got) == len(shown)
        for one, other in zip(got, shown, strict=True):
            check_alike(one, other)
    elif isinstance(shown, str):
        check_alike_text(got, shown)
    elif isinstance(shown, float):
        assert got == pytest.approx(shown, rel=1e-3, abs=1e-3)
    else:
        assert got == shown


NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")


def check_alike_text(got: str, shown: str) -> None:
    """The same words; the numbers in them agree to what another machine may round."""
    assert NUMBER.sub("#", got) == NUMBER.sub("#", shown)
    for one, other in zip(NUMBER.findall(got), NUMBER.findall(shown), strict=True):
        assert float(one) == pytest.approx(float(other), rel=1e-3, abs=1e-3)
