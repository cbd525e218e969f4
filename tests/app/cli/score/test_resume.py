"""``chainrule score`` ended in the middle and run again: nothing lost, nothing scored twice."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.schemas.models import ModelCard
from app.schemas.score_response import ScoreResponse
from tests.app.cli.scoring import RECORDS, answer_from, read_jsonl, run, write_jsonl
from tests.app.fake_engine import FakeEngine
from tests.app.stub_server import await_true

MANY = RECORDS * 3
FILES = ("out", "out.errors.jsonl")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """Whoever is asked, it answers."""
    engine = FakeEngine()
    answer_from(monkeypatch, engine)
    return engine


@pytest.fixture
def done(tmp_path: Path, engine: FakeEngine) -> dict[str, bytes]:
    """Both files after a run that was not interrupted."""
    run(write_jsonl(tmp_path / "in", MANY), "-o", tmp_path / "out", "--local", status=3)
    engine.queries.clear()
    return {name: (tmp_path / name).read_bytes() for name in FILES}


def test_every_way_to_be_cut_off_is_made_good(
    tmp_path: Path, engine: FakeEngine, done: dict[str, bytes]
) -> None:
    """Whatever is left of the two files, the same command makes them whole."""
    dice = random.Random(3)
    for _ in range(12):
        for name, whole in done.items():
            (tmp_path / name).write_bytes(whole[: dice.randint(0, len(whole))])
        run(tmp_path / "in", "-o", tmp_path / "out", "--local", status=3)
        assert {name: (tmp_path / name).read_bytes() for name in FILES} == done


def test_what_is_done_is_not_scored_again(
    tmp_path: Path, engine: FakeEngine, done: dict[str, bytes]
) -> None:
    """Of a file that lacks a part of its last line, only that line is asked about."""
    (tmp_path / "out").write_bytes(done["out"][:-5])
    run(tmp_path / "in", "-o", tmp_path / "out", "--local", status=3)
    assert len(engine.queries) == len(RECORDS[-1]["candidates"])
    assert (tmp_path / "out").read_bytes() == done["out"]


def test_a_run_that_is_done_asks_nothing(
    tmp_path: Path, engine: FakeEngine, done: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what was done, with the same status."""
    run(tmp_path / "in", "-o", tmp_path / "out", "--local", status=3)
    assert engine.queries == []
    assert "18 lines: 12 scored, 6 not" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [("options", "options differ"), ("input", "input differ"), ("model", "model differ")],
)
def test_another_run_does_not_go_on_with_it(
    change: str,
    words: str,
    tmp_path: Path,
    engine: FakeEngine,
    done: dict[str, bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Other options, another input or another model are refused, and nothing is touched."""
    flags = ["--append-eos"] if change == "options" else []
    if change == "input":
        write_jsonl(tmp_path / "in", MANY[1:])
    if change == "model":
        object.__setattr__(engine.info, "fingerprint", "other")
    run(tmp_path / "in", "-o", tmp_path / "out", "--local", *flags, status=1)
    assert words in capsys.readouterr().err
    assert (tmp_path / "out").read_bytes() == done["out"]
    run(tmp_path / "in", "-o", tmp_path / "out", "--local", *flags, "--overwrite", status=3)
    assert (tmp_path / "out").read_bytes() != done["out"]


def test_a_file_of_somebody_else_is_kept(
    tmp_path: Path, engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a manifest beside it, an output that is not empty is none of ours."""
    (tmp_path / "out").write_text("precious\n")
    given = write_jsonl(tmp_path / "in", RECORDS[:1])
    run(given, "-o", tmp_path / "out", "--local", status=1)
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "precious\n"


def test_two_runs_do_not_write_to_one_file(
    tmp_path: Path, engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second is told so."""
    given = write_jsonl(tmp_path / "in", RECORDS[:1])
    with (tmp_path / "out").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        run(given, "-o", tmp_path / "out", "--local", status=1)
    assert "another process" in capsys.readouterr().err


def test_standard_input_is_not_gone_on_with(
    tmp_path: Path, engine: FakeEngine, done: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    """It cannot be read again, so an output that is there is refused."""
    run("-", "-o", tmp_path / "out", "--local", status=2)
    assert "stdin" in capsys.readouterr().err
    assert (tmp_path / "out").read_bytes() == done["out"]


class _Counting(BaseHTTPRequestHandler):
    """A server whose answers are recorded ones; after some of them it hangs."""

    asked: list[str]
    limit: int
    card: dict[str, Any]
    answer: dict[str, Any]
    reached: threading.Event
    released: threading.Event

    def do_GET(self) -> None:
        """What is served."""
        self._send({"object": "list", "data": [self.card]})

    def do_POST(self) -> None:
        """Any score."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if len(self.asked) >= self.limit:
            self.reached.set()
            self.released.wait()
            return
        self.asked.append(body["context"])
        self._send(self.answer)

    def log_message(self, *_: Any) -> None:
        """Nothing is logged."""

    def _send(self, value: dict[str, Any]) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def recorded() -> Iterator[tuple[str, type[_Counting]]]:
    """The address of such a server, and its handler."""
    card = ModelCard.model_config["json_schema_extra"]["examples"][0]  # type: ignore[index,call-overload]
    answer = ScoreResponse.model_config["json_schema_extra"]["examples"][0]  # type: ignore[index,call-overload]
    made = {"asked": [], "limit": 30, "card": card, "answer": answer}
    made |= {name: threading.Event() for name in ("reached", "released")}
    handler = type("Handler", (_Counting,), made)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    handler.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.process
def test_kill_9(tmp_path: Path, recorded: tuple[str, type[_Counting]]) -> None:
    """A process that is killed has written what was answered; the next one asks for the rest."""
    url, handler = recorded
    lines = [{"context": f"line {n}", "candidates": ["x"]} for n in range(60)]
    given = write_jsonl(tmp_path / "in", lines)
    argv = ["score", str(given), "-o", str(tmp_path / "out"), "--url", url, "--concurrency", "1"]
    process = subprocess.Popen([sys.executable, "-m", "app", *argv], stderr=subprocess.DEVNULL)
    try:
        assert handler.reached.wait(20)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    written = (tmp_path / "out").read_bytes()
    assert written.count(b"\n") == 30
    handler.limit = 100
    run(*argv[1:])
    assert handler.asked == [line["context"] for line in lines]
    assert (tmp_path / "out").read_bytes().startswith(written)
    assert [one["line"] for one in read_jsonl(tmp_path / "out")] == list(range(1, 61))


@pytest.mark.process
def test_ctrl_c_at_an_input_that_stays_open(
    tmp_path: Path, recorded: tuple[str, type[_Counting]]
) -> None:
    """It ends at once with 130, and what was answered stands in whole lines."""
    url, _ = recorded
    out = tmp_path / "out"
    process = _started("-", "-o", out, "--url", url, stdin=subprocess.PIPE)
    try:
        _give(process, 3)
        await_true(lambda: out.exists() and out.read_bytes().count(b"\n") == 3)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr is not None
        said = process.stderr.read()
        assert b"Traceback" not in said
        assert b"standard input cannot be gone on with" in said
    finally:
        _ended(process)
    assert [one["line"] for one in read_jsonl(out)] == [1, 2, 3]


@pytest.mark.process
def test_ctrl_c_is_gone_on_after(tmp_path: Path, recorded: tuple[str, type[_Counting]]) -> None:
    """Of a file, the same command asks for the rest and for nothing twice."""
    url, handler = recorded
    lines = [{"context": f"line {n}", "candidates": ["x"]} for n in range(40)]
    given = write_jsonl(tmp_path / "in", lines)
    argv = (given, "-o", tmp_path / "out", "--url", url, "--concurrency", "1")
    process = _started(*argv)
    try:
        assert handler.reached.wait(20)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr is not None
        words = f"what was answered is in {tmp_path / 'out'}; the same command goes on from there"
        assert process.stderr.read().decode() == f"\nchainrule: stopped; {words}\n"
    finally:
        _ended(process)
    handler.limit = 100
    run(*argv)
    assert handler.asked == [line["context"] for line in lines]
    assert [one["line"] for one in read_jsonl(tmp_path / "out")] == list(range(1, 41))


@pytest.mark.process
def test_a_reader_that_leaves(recorded: tuple[str, type[_Counting]]) -> None:
    """As with `| head -1`: no words, and the status of a program that SIGPIPE has ended."""
    url, _ = recorded
    process = _started("-", "--url", url, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        _give(process, 1)
        assert process.stdout.readline().startswith(b'{"line":1,')
        process.stdout.close()
        _give(process, 1)
        assert process.wait(20) == 141
        assert process.stderr.read() == b""
    finally:
        _ended(process)


@pytest.mark.parametrize(
    ("flags", "there", "words"),
    [
        ((), "out", "what was answered is in {out}; the same command goes on from there"),
        (
            ("--overwrite",),
            "out",
            "what was answered is in {out}; the same command without --overwrite goes on from "
            "there",
        ),
        ((), None, "nothing was answered yet"),
        (
            ("--output-format", "parquet"),
            "out.draft.jsonl",
            "what was answered is in {out}.draft.jsonl; the same command goes on from there",
        ),
    ],
    ids=["plain", "overwrite", "nothing", "parquet"],
)
def test_how_to_go_on_is_said_so_that_nothing_is_lost(
    flags: tuple[str, ...],
    there: str | None,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """After Ctrl+C, by what lies there."""

    def stop(*_: object) -> None:
        if there is not None:
            (tmp_path / there).write_text("")
        raise KeyboardInterrupt

    given = write_jsonl(tmp_path / "in", MANY)
    monkeypatch.setattr("app.cli.score.command.find_server", stop)
    run(given, "-o", tmp_path / "out", *flags, status=130)
    said = words.format(out=tmp_path / "out")
    assert capsys.readouterr().err == f"\nchainrule: stopped; {said}\n"


@pytest.mark.process
@pytest.mark.parametrize("package", ["pydantic_core", "_ssl"])
def test_ctrl_c_is_quiet_while_imports_run(package: str) -> None:
    """What they take is no reason for a traceback."""
    process = _started("-", "--url", "http://127.0.0.1:9", stdin=subprocess.PIPE)
    maps = Path(f"/proc/{process.pid}/maps")
    try:
        while package not in maps.read_text() and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
    finally:
        _ended(process)


def _started(*argv: object, **pipes: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "app", "score", *map(str, argv)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, **pipes)  # type: ignore[call-overload,no-any-return]


def _give(process: subprocess.Popen[bytes], count: int) -> None:
    if process.stdin is None:
        raise RuntimeError("it was started without an input")
    process.stdin.write(b'{"context": "a", "candidates": ["x"]}\n' * count)
    process.stdin.flush()


def _ended(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
