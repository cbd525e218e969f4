"""``chainrule bench``: what it sends, what it prints, what it saves."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cli.bench.load import Load
from app.cli.bench.sender import TIMEOUT, Record, Sent
from app.cli.main import main
from tests.app.cli.command_line import field_error, printed, rows

URL = ("--url", "http://far.example/")
MODEL = ("--model", "m")


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[Load]:
    """The loads that a command makes, each answered as ``record`` says."""
    loads: list[Load] = []

    def play(load: Load) -> Record:
        loads.append(load)
        return record(load)

    monkeypatch.setattr("app.cli.bench.command.run_load", play)
    return loads


def record(load: Load) -> Record:
    """Ten requests: eight answers in 10 ms, a timeout after a second, and a refusal."""
    outcomes = ["200"] * 8 + [TIMEOUT, "429"]
    seconds = [0.01] * 8 + [1.0, 0.001]
    start = load.warmup_s
    sent = [
        Sent(start, start, start + lasted, 0.0, outcome == TIMEOUT, outcome)
        for outcome, lasted in zip(outcomes, seconds, strict=True)
    ]
    return Record(sent, {"429": "slow\ndown"})


def test_the_table_has_a_row_for_each_rate(
    played: list[Load], capsys: pytest.CaptureFixture[str]
) -> None:
    """Counts, percentiles and goodput, lowest rate first; failures and waits in words."""
    out = printed(
        capsys, "bench", *URL, *MODEL, "--rate", "4,2", "--duration", "10", "--slo-ms", "20"
    )
    assert [load.rate for load in played] == [2.0, 4.0]
    table = [row for row in rows(out) if row and row[0] in ("rate", "2", "4")]
    assert table[0][:5] == ["rate", "sent", "ok", "answered/s", "p50"]
    assert table[1][:5] == ["2", "10", "8", "0.80", "10.0"]
    assert table[1][-3:] == ["1000", "80.0%", "0.80"]
    assert '1 x 429: "slow\\ndown"' in out
    assert "1 x timeout" in out
    assert "1 requests waited because 256 were on their way" in out


def test_replicas_of_different_models_are_told_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Numbers of a mixture are of no model, and the status says so."""
    two = Record(record(Load(url="")).sent, fingerprints={"b", "a"})
    monkeypatch.setattr("app.cli.bench.command.run_load", lambda _load: two)
    assert main(["bench", *URL, *MODEL]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert 'models of 2 fingerprints answered ("a", "b")' in out


def test_everything_asked_for_reaches_the_load(played: list[Load]) -> None:
    """Address, headers, key, shape, workload and times."""
    flags = {
        "--shape": "cohere-rerank",
        "--api-key": "k",
        "--header": "X-Tenant: a:b",
        "--model": "m",
        "--context-tokens": "5",
        "--candidates": "3",
        "--candidate-tokens": "2",
        "--max-tokens": "9",
        "--contexts": "7",
        "--label-token-ids": "4,5,6",
        "--rate": "0.5",
        "--duration": "2.5",
        "--warmup": "0",
        "--processes": "3",
        "--concurrency": "12",
        "--timeout": "1.5",
        "--seed": "8",
    }
    assert main(["bench", *URL, *[part for pair in flags.items() for part in pair]]) == 0
    (load,) = played
    assert load.url == "http://far.example/v2/rerank"
    assert load.headers == (("Authorization", "Bearer k"), ("X-Tenant", "a:b"))
    workload = load.workload
    assert (workload.context_tokens, workload.candidates, workload.candidate_tokens) == (5, 3, 2)
    assert (workload.max_tokens, workload.contexts, workload.model) == (9, 7, "m")
    assert workload.label_token_ids == (4, 5, 6)
    assert (load.rate, load.duration_s, load.warmup_s, load.timeout_s) == (0.5, 2.5, 0.0, 1.5)
    assert (load.processes, load.connections, load.seed) == (3, 12, 8)


def test_every_run_asks_anew_unless_told_otherwise(played: list[Load]) -> None:
    """A server's cache holds nothing for a run that nobody has made before."""
    for flags in ((), (), ("--seed", "3"), ("--seed", "3")):
        assert main(["bench", *URL, *MODEL, *flags]) == 0
    seeds = [load.seed for load in played]
    assert seeds[0] != seeds[1]
    assert seeds[2:] == [3, 3]


def test_bodies_of_a_file_go_to_any_route(
    played: list[Load], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As they stand there; blank lines are none."""
    file = tmp_path / "bodies.jsonl"
    file.write_text('{"a": 1}\n\n{"b":  2}\n')
    assert main(["bench", *URL, "--body", str(file), "--path", "v9/other"]) == 0
    (load,) = played
    assert load.url == "http://far.example/v9/other"
    assert load.bodies == (b'{"a": 1}', b'{"b":  2}')
    assert capsys.readouterr().out.startswith("bodies.jsonl at http://far.example/v9/other\n")


def test_the_url_may_end_as_other_clients_want_it(played: list[Load]) -> None:
    """A ``/v1`` at its end is not put before the route's own."""
    assert main(["bench", "--url", "http://far.example/v1", *MODEL]) == 0
    assert played[0].url == "http://far.example/v1/score"


def test_numbers_are_saved_without_secrets(played: list[Load], tmp_path: Path) -> None:
    """The load and its reports as JSON; neither key nor headers."""
    file = tmp_path / "bench.json"
    argv = ["bench", *URL, *MODEL, "--api-key", "s3cret", "--rate", "1,2", "--save", str(file)]
    assert main(argv) == 0
    text = file.read_text()
    saved = json.loads(text)
    assert [report["rate"] for report in saved["runs"]] == [1.0, 2.0]
    assert saved["runs"][0]["outcomes"] == {"200": 8, "429": 1, "timeout": 1}
    assert saved["load"]["workload"]["context_tokens"] == 200
    assert "s3cret" not in text


def test_json_prints_the_reports(played: list[Load], capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a table would round."""
    (report,) = json.loads(printed(capsys, "bench", *URL, *MODEL, "--json"))
    assert report["sent"] == 10
    assert report["kept_up"] is True


def test_a_file_that_cannot_be_written_is_known_before(
    played: list[Load], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody waits for numbers that have nowhere to go."""
    path = tmp_path / "missing" / "file"
    said = field_error(capsys, "bench", *URL, *MODEL, "--save", str(path), status=2)
    assert said == f"cannot write {path}: No such file or directory"
    assert played == []


@pytest.mark.parametrize("text", ["", "\n\n", '{"a": 1}\n{\n'])
def test_an_unfit_file_of_bodies_is_refused(
    text: str, played: list[Load], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is sent; a bad line is named by its number."""
    file = tmp_path / "bodies.jsonl"
    file.write_text(text)
    said = field_error(capsys, "bench", *URL, "--body", str(file), status=2)
    assert "line 2 of" in said if "{" in text else "holds no line" in said
    assert played == []


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--rate", "0"),
        ("--rate", "1,"),
        ("--rate", "inf"),
        ("--duration", "0"),
        ("--warmup", "-1"),
        ("--processes", "1.5"),
        ("--header", "no colon"),
        ("--shape", "soap"),
    ],
)
def test_a_bad_flag_is_status_2(flag: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The flag is named."""
    with pytest.raises(SystemExit) as caught:
        main(["bench", flag, value])
    assert caught.value.code == 2
    assert flag in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("content", "model"), [(b'{"data": [{"id": "found"}]}', "found"), (b"[]", None), (b"<", None)]
)
def test_the_model_is_the_first_that_the_server_lists(
    content: bytes, model: str | None, played: list[Load], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that lists none is not told a name."""
    response = httpx.Response(200, content=content)
    monkeypatch.setattr("app.cli.bench.command.httpx.get", lambda *_args, **_options: response)
    assert main(["bench", *URL]) == 0
    assert played[0].workload.model == model


def test_a_header_that_would_be_two_is_refused(
    played: list[Load], capsys: pytest.CaptureFixture[str]
) -> None:
    """No line break reaches the server."""
    said = field_error(capsys, "bench", *URL, *MODEL, "--header", "X: a\r\nY: b", status=2)
    assert said == "--header: X holds what a header cannot hold"
    assert played == []


def test_nobody_there_is_one_line_and_status_1(
    played: list[Load], capsys: pytest.CaptureFixture[str]
) -> None:
    """Found out before any load is made."""
    argv = ("bench", "--url", "http://127.0.0.1:1")
    assert "nobody answers at http://127.0.0.1:1" in field_error(capsys, *argv, status=1)
    assert played == []


class Answering(BaseHTTPRequestHandler):
    """Says yes to everybody, and keeps what it was sent."""

    protocol_version = "HTTP/1.1"
    bodies: list[Any]

    def do_POST(self) -> None:
        """Answer."""
        self.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def answering() -> Iterator[tuple[str, list[Any]]]:
    """A server's address, and the bodies that it is sent."""
    bodies: list[Any] = []
    handler = type("Handler", (Answering,), {"bodies": bodies})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", bodies
        server.shutdown()
        thread.join()


@pytest.mark.process
def test_processes_send_the_whole_load(capsys: pytest.CaptureFixture[str]) -> None:
    """Two real processes; as many requests reach the server as the report counts."""
    with answering() as (url, bodies):
        flags = ("--rate", "100", "--duration", "0.3", "--warmup", "0", "--processes", "2")
        argv = ("bench", "--url", url, "--model", "m", *flags, "--context-tokens", "3", "--json")
        (report,) = json.loads(printed(capsys, *argv))
    assert report["sent"] == len(bodies) > 0
    assert report["outcomes"] == {"200": len(bodies)}
    assert len({body["context"] for body in bodies}) > 1
    assert bodies[0]["model"] == "m"
