"""The calls of README and docs/ are made, and the answers are the ones that come back."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from app.cli.main import main
from tests.app.calibration import labelled_decisions
from tests.documentation import GUIDE, Block, blocks
from tests.end_to_end.live_server import LiveServer

pytestmark = [pytest.mark.real_model, pytest.mark.process]

CURL = re.compile(
    r"curl -sN? localhost:8000(?P<path>\S+)(?: -H [^\n]*-d '\n\s*(?P<body>.*?)')?\n", re.DOTALL
)
COMMAND = re.compile(r"chainrule (?P<line>[^\n]*)\n")

SAVING = re.compile(
    r"(?P<call>curl .*) > (?P<file>[\w.]+)\nchainrule (?P<line>[^\n]*)\n", re.DOTALL
)
COMPUTER = re.compile(r"fingerprint \w+, float32, \w+ kernels, chainrule [\w.+]+")
"""Of the machine and of the checkout."""

BLOCKS = [block for page in GUIDE for block in blocks(page)]
LABELLED = Path(labelled_decisions.__file__).with_name("labelled.jsonl")
SHELL = [block for block in BLOCKS if block.language == "sh"]
CALLS = [block for block in SHELL if block.shows("json")]
SAVED = [block for block in SHELL if block.shows("text") and " > " in block.text]
STREAMS = [
    block
    for block in SHELL
    if block.shows("text") and block.text.startswith("curl") and block not in SAVED
]
COMMANDS = [block for block in SHELL if block.shows("text") and block not in (*STREAMS, *SAVED)]
EXAMPLES = [block for block in BLOCKS if block.language == "python" and block.shows("text")]

VARIES = {"id", "request_id", "created", "fingerprint", "numeric_error", "usage", "timings_ms"}
VARIES |= {"system_fingerprint", "cached_tokens", "kernels", "chainrule_version", "release_date"}
"""Of the run or of the machine; everything else is the model's."""
ABSENT = {"kernels_reason"}
"""Of a machine that the pages do not show."""


def label(block: Block) -> str:
    """A block as pytest names its test: the page, and the route or the command's line."""
    call = CURL.fullmatch(block.text)
    return f"{block.page}:{call['path'] if call else block.text.splitlines()[0]}"


def answer(block: Block) -> str:
    """What the page shows behind it."""
    assert block.answer is not None
    return block.answer.text


def test_the_pages_have_their_calls() -> None:
    """Every route of the native API, and every family of the others, is shown with an answer."""
    shown = {label(block).partition(":")[2] for block in CALLS}
    assert {
        "/v1/score",
        "/v1/next_token",
        "/v1/decode",
        "/v1/audit",
        "/v1/models",
        "/health",
        "/v1/completions",
        "/v1/chat/completions",
        "/tokenize",
        "/detokenize",
        "/v2/rerank",
        "/rerank",
        "/generative_scoring",
        "/v1/decisions",
        "/v1/systemone",
    } <= shown
    assert STREAMS and EXAMPLES
    assert {"next", "decode"} <= {block.text.split()[1] for block in COMMANDS}
    assert SAVED


def test_every_answer_that_is_shown_is_compared() -> None:
    """A block of JSON or of output stands behind the call that it answers, or it is no answer."""
    answers = [block for block in BLOCKS if block.language in ("json", "text")]
    asked = [*CALLS, *STREAMS, *COMMANDS, *SAVED, *EXAMPLES]
    assert {id(block) for block in answers} == {id(block.answer) for block in asked}


@pytest.mark.parametrize("block", CALLS, ids=label)
def test_the_answer_is_the_one_that_is_shown(block: Block, real_server: LiveServer) -> None:
    """Same fields, same texts, same ranks; numbers agree to what another machine may round."""
    check_alike(json.loads(ask(block, real_server)), json.loads(answer(block)))


@pytest.mark.parametrize("block", STREAMS, ids=label)
def test_the_stream_is_the_one_that_is_shown(block: Block, real_server: LiveServer) -> None:
    """Same events in the same order; the last one, which the page cuts, by its name."""
    *tokens, (last, _) = events(ask(block, real_server))
    *shown, (shown_last, _) = events(answer(block))
    assert last == shown_last == "result"
    assert [name for name, _ in tokens] == [name for name, _ in shown]
    for (_, data), (_, shown_data) in zip(tokens, shown, strict=True):
        check_alike(json.loads(data), json.loads(shown_data))


@pytest.mark.parametrize("block", EXAMPLES, ids=label)
def test_an_example_prints_what_is_shown(
    block: Block, real_server: LiveServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """It runs as it stands, but for the server's port."""
    assert "http://127.0.0.1:8000" in block.text
    exec(block.text.replace("http://127.0.0.1:8000", real_server.url), {})
    check_alike_text(capsys.readouterr().out, answer(block))


@pytest.mark.parametrize("block", COMMANDS, ids=label)
def test_a_command_prints_what_is_shown(
    block: Block,
    real_server: LiveServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Tables as they come where nobody looks at a terminal; files are those that pages link to, or
    show before the command that reads them."""
    shutil.copy(LABELLED, tmp_path)
    for name in re.findall(r"\w+\.csv", block.text):
        shown = [one for one in BLOCKS if (one.page, one.language) == (block.page, "csv")]
        (tmp_path / name).write_text(shown[0].text)
    monkeypatch.chdir(tmp_path)
    command = COMMAND.fullmatch(block.text)
    assert command is not None, f"no single command: {block.text}"
    assert main([*shlex.split(command["line"]), "--url", real_server.url]) == 0
    check_alike_text(capsys.readouterr().out, answer(block))


@pytest.mark.parametrize("block", SAVED, ids=label)
def test_a_saved_answer_is_read_by_the_command_behind_it(
    block: Block,
    real_server: LiveServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A call whose answer goes to a file, and a command that takes the file."""
    saving = SAVING.fullmatch(block.text)
    assert saving is not None, f"no call and command: {block.text}"
    monkeypatch.chdir(tmp_path)
    call = Block(block.page, block.language, f"{saving['call']}\n", block.answer)
    (tmp_path / saving["file"]).write_text(ask(call, real_server))
    assert main([*shlex.split(saving["line"]), "--url", real_server.url]) == 0
    check_alike_text(COMPUTER.sub("#", capsys.readouterr().out), COMPUTER.sub("#", answer(block)))


def ask(block: Block, server: LiveServer) -> str:
    """The body that comes back when the call is made."""
    call = CURL.fullmatch(block.text)
    assert call is not None, f"no single call of curl: {block.text}"
    if call["body"] is None:
        return server.client.get(call["path"]).text
    headers = {"Content-Type": "application/json"}
    return server.client.post(call["path"], content=call["body"], headers=headers).text


def events(text: str) -> list[tuple[str, str]]:
    """(name, data) of each event."""
    return re.findall(r"event: (\w+)\ndata: ([^\n]*)", text)


def check_alike(got: Any, shown: Any) -> None:
    if isinstance(shown, dict):
        assert [key for key in got if key not in ABSENT] == list(shown)
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
