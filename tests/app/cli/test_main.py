"""The command line: help that documents every setting, one-line errors, exit statuses."""

from __future__ import annotations

import json
import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli import main as cli
from app.cli.main import main
from app.environment import env_name
from app.schemas.audit import AuditRequest
from app.schemas.decode import DecodeRequest
from app.schemas.next_token import NextTokenRequest
from app.schemas.score import ScoreRequest
from app.settings import Settings, flag_name
from app.telemetry.log_writer import LogWriter
from tests.app.stub_server import await_true

LOGGERS = (None, "app", "model_runtime")


@pytest.fixture(autouse=True)
def _leave_no_trace() -> Iterator[None]:
    """A command's signal handler and log handlers do not outlive its test."""
    handler = signal.getsignal(signal.SIGTERM)
    root = logging.getLogger()
    handlers, levels = root.handlers[:], {name: logging.getLogger(name).level for name in LOGGERS}
    yield
    signal.signal(signal.SIGTERM, handler)
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def test_help_documents_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    """Each setting appears in ``serve --help`` with its flag, its variable and what it does."""
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--help"])
    assert caught.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, field in Settings.model_fields.items():
        assert flag_name(name) in shown
        assert env_name(name) in shown.replace("- ", "-")
        assert " ".join((field.description or "").split()[:4]) in shown


ASKING = {
    "score": ScoreRequest,
    "next": NextTokenRequest,
    "decode": DecodeRequest,
    "audit": AuditRequest,
}
"""The commands that put one request, and the request."""


@pytest.mark.parametrize("command", sorted(ASKING))
def test_help_documents_every_field(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What a request can say, its command can: each field has a flag, and its own words."""
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, field in ASKING[command].model_fields.items():
        assert flag_name(name) in shown or name in ("context", "candidates")
        if name not in ("context", "candidates", "model"):
            words = (field.description or "").replace("`", "").split()
            assert " ".join(words[:3]) in shown, name


@pytest.mark.parametrize("command", sorted(ASKING))
def test_help_speaks_of_flags(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Not of nulls, of which a command line has none, nor of fields that are flags here."""
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "null" not in shown.lower()
    assert "where --add-bos is not true" in shown
    assert " [] " not in shown


@pytest.mark.parametrize(
    "command", ["score", "next", "decode", "audit", "diagnose", "selftest", "bench"]
)
def test_abbreviated_flags_are_refused(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A flag that a later version adds must not change what an old command line means."""
    with pytest.raises(SystemExit) as caught:
        main([command, "x", "y", "--ur", "http://far.example"])
    assert caught.value.code == 2
    assert "--ur" in capsys.readouterr().err


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """With a line on what it does."""
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    asking = ("score", "next", "decode", "audit", "diagnose", "selftest", "bench")
    for command in ("serve", *asking, "model", "version"):
        assert f"\n    {command} " in shown


@pytest.mark.process
def test_a_command_brings_only_what_it_needs() -> None:
    """The version costs no HTTP client, and asking a server no torch."""
    program = (
        "import sys; from app.cli.main import main\n"
        "main(['version']); print({'httpx', 'torch'} & sys.modules.keys())\n"
        "main(['next', 'x', '--url', 'far']); print({'httpx', 'torch'} & sys.modules.keys())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout.splitlines()[1:] == ["set()", "{'httpx'}"]


@pytest.mark.process
def test_a_reader_that_leaves_is_no_error() -> None:
    """As with `| head`: no traceback, and the status of a program that SIGPIPE has ended."""
    run = subprocess.run(
        f"{sys.executable} -m app version | true; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stderr) == (141, "")


def test_flags_reach_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags of every kind are read; flags that are not given are not passed on."""
    given: list[dict[str, object]] = []
    monkeypatch.setattr(cli, "serve_command", lambda flags: given.append(flags) or 0)
    assert main(["serve", "--port", "1", "--no-allow-unauthenticated"]) == 0
    assert given == [{"port": "1", "allow_unauthenticated": False}]


@pytest.mark.parametrize(
    "argv",
    [
        ["serve", "--port", "http"],
        ["serve", "--host", "0.0.0.0"],
        ["model", "info", "--dtype", "int8"],
        ["serve", "--kernels", "fast"],
    ],
)
def test_a_bad_setting_is_one_line_and_status_2(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback: the line names the setting, and nothing has been loaded."""
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("chainrule: error: CHAINRULE_")


@pytest.mark.parametrize("argv", [["dance"], ["serve", "--prot", "1"], ["model"]])
def test_a_wrong_command_line_is_status_2(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Unknown commands and flags are refused, abbreviations too."""
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert "usage: chainrule" in capsys.readouterr().err


def test_alone_it_helps(capsys: pytest.CaptureFixture[str]) -> None:
    """What commands there are; nothing is wrong."""
    assert main([]) == 0
    assert "commands:" in capsys.readouterr().out


def test_the_version_is_a_flag_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    """As of most programs."""
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    flag = capsys.readouterr().out
    main(["version"])
    assert capsys.readouterr().out == flag


def test_a_taken_port_is_one_line_and_status_1(capfd: pytest.CaptureFixture[str]) -> None:
    """The address is named; the model was not loaded for nothing."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 1
    err = capfd.readouterr().err
    assert (
        err == f"chainrule: error: cannot listen on 127.0.0.1 port {port}: Address already in use\n"
    )


def test_what_is_ignored_is_in_the_servers_log(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables that are no settings are named there, those that Kubernetes sets apart."""
    monkeypatch.setenv("CHAINRULE_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("CHAINRULE_REPLICAS", "3")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        main(["serve", "--port", str(taken.getsockname()[1])])
    (handler,) = [one for one in logging.getLogger().handlers if isinstance(one, LogWriter)]
    handler.flush()
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line[0] == "{"]
    assert [(line["level"], line["message"].partition(": ")[2]) for line in lines] == [
        ("warning", "CHAINRULE_REPLICAS"),
        ("info", "CHAINRULE_SERVICE_HOST"),
    ]


def test_a_foreign_address_is_one_line_and_status_1(capfd: pytest.CaptureFixture[str]) -> None:
    """An address that this machine does not have is refused the same way."""
    argv = ["serve", "--host", "192.0.2.7", "--port", "0", "--allow-unauthenticated"]
    assert main(argv) == 1
    err = capfd.readouterr().err
    assert err.startswith("chainrule: error: cannot listen on 192.0.2.7 port 0: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["fetch", "info"])
def test_a_model_that_is_not_there_is_one_line_and_status_1(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the loader says is the whole answer."""
    assert main(["model", command, "no such model"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("chainrule: error: ")
    assert err.count("\n") == 1


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """``chainrule version`` names the program and its version."""
    assert main(["version"]) == 0
    assert capsys.readouterr().out.startswith("chainrule 0")


@pytest.mark.process
def test_sigterm_before_the_server_listens_exits_cleanly() -> None:
    """While the process is still importing there is nothing to finish: exit 0, no traceback."""
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "serve", "--port", "0", "--model", "/nowhere"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        await_true(lambda: catches_sigterm(process.pid))
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, err) == (0, "")


def catches_sigterm(pid: int) -> bool:
    """Whether a process has a handler for SIGTERM."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (caught,) = [line.split()[1] for line in lines if line.startswith("SigCgt:")]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)
