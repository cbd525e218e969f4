"""``chainrule serve`` on a terminal: what it says, and that Ctrl+C is no failure."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.cli.serve import EXAMPLE, greeting
from app.settings import Settings
from tests.conftest import TinyFolder

COLOURS = re.compile(r"\x1b\[\d+m")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:7"),
        ("0.0.0.0", "http://127.0.0.1:7"),
        ("::", "http://[::1]:7"),
        ("fe80::1", "http://[fe80::1]:7"),
        ("fe80::1%eth0", "http://[fe80::1%25eth0]:7"),
        ("box.example", "http://box.example:7"),
    ],
)
def test_the_address_is_one_to_open(host: str, url: str) -> None:
    """Also where every address is listened on."""
    text = greeting(Settings(host=host), 7, has_keys=False)
    assert f"answers at {url}." in text
    assert f"{url}/playground" in text
    assert f"{url}/docs" in text


def test_a_page_that_is_off_is_not_offered() -> None:
    """The API is."""
    assert "/playground" not in greeting(Settings(playground=False), 7, has_keys=False)


def test_the_request_to_begin_with_is_one_to_paste() -> None:
    """A shell reads it as it is meant; a key is taken from the environment."""
    for has_keys in (False, True):
        _, _, command = greeting(Settings(), 7, has_keys=has_keys).partition("to begin with:\n")
        words = shlex.split(command.replace("\\\n", " "))
        assert words[:3] == ["curl", "-s", "http://127.0.0.1:7/v1/score"]
        assert json.loads(words[words.index("-d") + 1]) == EXAMPLE
        assert ("Authorization: Bearer $CHAINRULE_API_KEY" in words) == has_keys


class OnTerminal:
    """`chainrule serve` with a terminal of its own."""

    def __init__(self, *argv: str) -> None:
        self._terminal, theirs = pty.openpty()
        command = [sys.executable, "-m", "app", "serve", "--port", "0", *argv]
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        self.shown = ""

    def read_to(self, words: str | None) -> str:
        """What is shown up to these words; None for the end."""
        give_up = time.monotonic() + 60
        while words is None or words not in self.shown:
            assert time.monotonic() < give_up, self.shown
            try:
                part = os.read(self._terminal, 65_536)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                part = b""
            if not part:
                break
            self.shown += COLOURS.sub("", part.decode())
        assert words is None or words in self.shown
        return self.shown.replace("\r\n", "\n")

    def end(self) -> None:
        """Whatever state it is in."""
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)


@pytest.mark.process
def test_people_read_what_to_do(tiny_folder: TinyFolder) -> None:
    """No JSON; the pasted request is answered, logged in words, and Ctrl+C ends it with 0."""
    server = OnTerminal("--model", str(tiny_folder("llama")))
    try:
        shown = server.read_to("Ctrl+C stops it.")
        shown = server.read_to('" London"]}\'\n'.replace("\n", "\r\n"))
        assert "{" not in shown.partition("Ctrl+C")[0]
        assert re.search(r"^\d\d:\d\d:\d\d ready model=llama", shown, re.MULTILINE)
        command = shown.partition("to begin with:\n")[2].replace("\\\n", " ")
        run = subprocess.run(shlex.split(command), capture_output=True, check=True)
        assert len(json.loads(run.stdout)["results"]) == 2
        server.read_to("POST /v1/score 200 in ")
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) == 0
        assert "Traceback" not in server.read_to(None)
    finally:
        server.end()


@pytest.mark.process
def test_ctrl_c_while_it_starts() -> None:
    """Is no failure either."""
    server = OnTerminal("--model", "nothing-of-that-name")
    maps = Path(f"/proc/{server.process.pid}/maps")
    try:
        while "pydantic_core" not in maps.read_text():
            time.sleep(0.001)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) in (0, 130)
        assert "Traceback" not in server.read_to(None)
    finally:
        server.end()
