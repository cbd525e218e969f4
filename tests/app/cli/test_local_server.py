"""The server of ``--local``."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import httpx
import pytest

from app.cli.local_server import local_server
from app.settings import Settings
from tests.app.cli.command_line import answer_locally, field_error, logging_as_before, printed
from tests.app.fake_engine import FakeEngine


@pytest.fixture(autouse=True)
def _law(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_locally(monkeypatch, FakeEngine(kernels_reason="no compiler"))


def test_it_lives_as_long_as_it_is_needed_and_is_its_users() -> None:
    """A socket in a folder that nobody else can enter; neither is left, nor the thread."""
    with logging_as_before():
        with local_server(Settings()) as path:
            assert Path(path).parent.stat().st_mode & 0o077 == 0
            with httpx.Client(transport=httpx.HTTPTransport(uds=path)) as client:
                assert client.get("http://localhost/v1/models").is_success
        assert not Path(path).parent.exists()
        assert "chainrule-server" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CHAINRULE_API_KEYS", "s3cret"),
        ("CHAINRULE_API_KEY_FILE", "/nowhere"),
        ("CHAINRULE_HOST", "0.0.0.0"),
        ("HTTP_PROXY", "http://127.0.0.1:9"),
    ],
)
def test_variables_about_the_way_are_of_no_matter(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever they say of addresses, keys and proxies: nothing leaves the process."""
    monkeypatch.setenv(name, value)
    assert '" yes"' in printed(capsys, "next", "it is", "--local")


def test_no_place_for_the_socket_is_one_line_and_status_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said before a model is loaded: the name of a socket is at most some hundred bytes long."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setattr("app.cli.local_server.Engine", None)
    words = field_error(capsys, "next", "it is", "--local", status=1)
    assert words.startswith("no place for a socket in the temporary folder: ")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("flag", ["--url", "--api-key"])
def test_a_server_to_ask_and_none_to_ask_do_not_go_together(
    flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody is told of a server that was not asked."""
    words = field_error(capsys, "next", "it is", "--local", flag, "x", status=2)
    assert words == f"--local asks no server: leave {flag} out"


def test_model_info_is_what_is_served(capsys: pytest.CaptureFixture[str]) -> None:
    """The card of /v1/models, from a server that is up for as long as it takes."""
    with logging_as_before():
        card = json.loads(printed(capsys, "model", "info"))
    assert card["fingerprint"] == FakeEngine().info.fingerprint
    assert (card["kernels"], card["kernels_reason"]) == ("torch", "no compiler")
    assert card["limits"]["max_candidates"] == 131_072
