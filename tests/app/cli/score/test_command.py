"""``chainrule score``: what it reads, what it writes, how it ends."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_runtime import EngineOverloaded, ForwardFailed
from tests.app.calls import NO, YES, log
from tests.app.cli.scoring import (
    RECORDS,
    AppTransport,
    answer_from,
    read_jsonl,
    run,
    send_through,
    write_jsonl,
)
from tests.app.fake_engine import FakeEngine


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """Whoever is asked, it answers."""
    engine = FakeEngine()
    answer_from(monkeypatch, engine)
    return engine


@pytest.fixture
def given(tmp_path: Path, engine: FakeEngine) -> Path:
    """A file of records of all kinds."""
    return write_jsonl(tmp_path / "in.jsonl", RECORDS)


def test_results_and_errors(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each line has its result or its error, under its number and its own id."""
    run(given, "-o", tmp_path / "out", status=3)
    found = read_jsonl(tmp_path / "out")
    assert [one["line"] for one in found] == [1, 2, 4, 6]
    assert found[0]["id"] == "first"
    assert "id" not in found[1]
    assert found[0]["results"][0]["token_count"] == 2
    assert found[1]["results"][0]["score"] == pytest.approx((log(0.5) * 2 + log(0.125)) / 3)
    refused, bad = read_jsonl(tmp_path / "out.errors.jsonl")
    assert (refused["line"], refused["id"]) == (3, 3)
    assert (refused["error"]["param"], refused["error"]["code"]) == (
        "candidates.0",
        "invalid_value",
    )
    assert (bad["line"], bad["id"], bad["error"]["param"]) == (5, None, "candidate")
    assert capsys.readouterr().err == (
        f"chainrule: 6 lines: 4 scored, 2 not, see {tmp_path / 'out.errors.jsonl'}\n"
    )


def test_a_model_in_this_process_writes_the_same_file(given: Path, tmp_path: Path) -> None:
    """To the byte: what depends on the moment or on the way is not written."""
    run(given, "-o", tmp_path / "http", status=3)
    run(given, "-o", tmp_path / "here", "--local", status=3)
    for name in ("{}", "{}.errors.jsonl"):
        http, here = (tmp_path / name.format(way) for way in ("http", "here"))
        assert http.read_bytes() == here.read_bytes()


def test_flags_are_fields_that_lines_may_overrule(tmp_path: Path, engine: FakeEngine) -> None:
    """A line's own field wins over the flag."""
    plain = {"context": "it is", "candidates": [YES, NO]}
    given = write_jsonl(tmp_path / "in", [plain, {**plain, "normalization": "sum"}])
    run(given, "-o", tmp_path / "out", "--normalization", "per_char", "--top-n", "1")
    first, second = read_jsonl(tmp_path / "out")
    assert first["results"][0]["score"] == log(0.5) / 4
    assert second["results"][0]["score"] == log(0.5)
    assert first["top"]["requested"] == second["top"]["requested"] == 1


@pytest.mark.parametrize("way", [(), ("--local",)])
def test_long_lists_are_split(way: tuple[str, ...], tmp_path: Path, engine: FakeEngine) -> None:
    """Several requests write what one would have written."""
    long = {"context": "it is", "candidates": [YES, "n't", NO, "a", "ab", ""]}
    given = write_jsonl(tmp_path / "in", [long])
    run(given, "-o", tmp_path / "whole", *way)
    run(given, "-o", tmp_path / "split", "--split", "2", *way)
    assert (tmp_path / "split").read_bytes() == (tmp_path / "whole").read_bytes()


def test_standard_streams(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """From stdin to stdout; errors are said on stderr."""
    text = "\n".join(json.dumps(record) for record in RECORDS[:3]).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    run("-", status=3)
    out, err = capfdbinary.readouterr()
    assert [json.loads(line)["line"] for line in out.splitlines()] == [1, 2]
    assert b"chainrule: line 3: candidates.0: the candidate is empty\n" in err


def test_csv(tmp_path: Path, engine: FakeEngine) -> None:
    """Candidates in columns, empty cells left out; quoted lines count as one record."""
    given = tmp_path / "in.csv"
    given.write_bytes(
        b"\xef\xbb\xbfid,context,candidate_1,candidate_2,candidate_3\n"
        b'a,it is," yes",," no"\n'
        b'b,"it\nis",x,,\n'
        b"\n"
        b"c,it is,only three\n"
        b"d,\xff,x,,\n"
        b"e,it is, yes,,\n"
    )
    run(given, "-o", tmp_path / "out", status=3)
    found = read_jsonl(tmp_path / "out")
    assert [(one["line"], one["id"]) for one in found] == [(2, "a"), (3, "b"), (8, "e")]
    assert [one["logprob"] for one in found[0]["results"]] == [log(0.5), log(0.25)]
    errors = read_jsonl(tmp_path / "out.errors.jsonl")
    assert [(one["line"], one["error"]["message"]) for one in errors] == [
        (6, "it has 3 cells; the header has 5"),
        (7, "it is not UTF-8"),
    ]


def test_csv_with_lists(tmp_path: Path, engine: FakeEngine) -> None:
    """One column may hold all candidates as JSON."""
    given = tmp_path / "in"
    given.write_text('context,candidates\nit is,"["" yes"",[97]]"\nit is,[\n')
    run(given, "-o", tmp_path / "out", "--format", "csv", status=3)
    (found,) = read_jsonl(tmp_path / "out")
    assert len(found["results"]) == 2
    (error,) = read_jsonl(tmp_path / "out.errors.jsonl")
    assert error["error"]["message"].startswith("candidates: it is not JSON")


@pytest.mark.parametrize(
    "header",
    ["", "context", "candidate", "context,candidates,candidate_1", "context,candidates,note",
     "context,candidates,context"],
)  # fmt: skip
def test_a_csv_header_that_cannot_be_used(
    header: str, tmp_path: Path, engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is a wrong command line: nothing is written."""
    given = tmp_path / "in.csv"
    given.write_text(header + "\n")
    run(given, "-o", tmp_path / "out", status=2)
    assert "the CSV header" in capsys.readouterr().err
    assert (tmp_path / "out").read_bytes() == b""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "it is not JSON"),
        (b"[1]", "it is not a JSON object"),
        (b'{"context": "a", "context": "b"}', "context: This key stands twice"),
        (b'{"context": "a", "temperature": NaN}', "NaN is not a number"),
        (b'{"context": "\xff"}', "it is not UTF-8"),
        (b"[" * 100_000, "it is nested too deep"),
        (b'{"context": "\\ud800", "candidates": ["a"]}', "half of a surrogate pair"),
        (b'{"context": "a", "candidates": ["b"], "tempo": 1}', "tempo: there is no such field"),
    ],
)
def test_a_bad_line_is_reported(
    line: bytes, message: str, tmp_path: Path, engine: FakeEngine
) -> None:
    """It says what is wrong; blank lines are none, and the others are scored."""
    good = json.dumps(RECORDS[0]).encode()
    (tmp_path / "in").write_bytes(b"\n".join([good, b"", line, good]))
    run(tmp_path / "in", "-o", tmp_path / "out", status=3)
    assert [one["line"] for one in read_jsonl(tmp_path / "out")] == [1, 4]
    (error,) = read_jsonl(tmp_path / "out.errors.jsonl")
    assert error["line"] == 3
    assert message in error["error"]["message"]


def test_a_failure_at_one_line_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the model fails at is reported, and the rest is scored."""
    answer_from(monkeypatch, FakeEngine(failures={YES: ForwardFailed("inside")}))
    ask: list[dict[str, Any]] = [{"context": "it is", "candidates": [word]} for word in (YES, NO)]
    given = write_jsonl(tmp_path / "in", [{**ask[0], "all_or_nothing": True}, ask[1]])
    run(given, "-o", tmp_path / "out", status=3)
    assert [one["line"] for one in read_jsonl(tmp_path / "out")] == [2]
    (error,) = read_jsonl(tmp_path / "out.errors.jsonl")
    assert error["error"]["code"] == "forward_failed"


def test_what_is_no_lines_fault_ends_the_run(
    given: Path, tmp_path: Path, engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong model name would fail every line: it is said once, and no line is spent on it."""
    run(given, "-o", tmp_path / "out", "--model", "another", status=1)
    assert "another" in capsys.readouterr().err
    assert not (tmp_path / "out.errors.jsonl").exists()
    assert (tmp_path / "out").read_bytes() == b""


def test_a_model_that_changes_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scores of two models do not go into one file."""
    engine = FakeEngine()
    answer_from(monkeypatch, engine)
    given = write_jsonl(tmp_path / "in", RECORDS[:1])
    score = engine.score

    async def score_changed(*args: Any) -> Any:
        object.__setattr__(engine.info, "fingerprint", "other")
        return await score(*args)

    monkeypatch.setattr(engine, "score", score_changed)
    run(given, "-o", tmp_path / "out", status=1)
    assert "changed its model" in capsys.readouterr().err


def test_no_server(tmp_path: Path, given: Path, monkeypatch: pytest.MonkeyPatch,
                   capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    """Nobody there is one line and status 1; nothing is written."""

    def refuse(_request: httpx.Request) -> httpx.Response:
        raise httpx.UnsupportedProtocol("nobody there")

    send_through(monkeypatch, lambda: httpx.MockTransport(refuse))
    run(given, "-o", tmp_path / "out", status=1)
    assert capsys.readouterr().err == (
        "chainrule: error: no answer from http://127.0.0.1:8000/v1/models: nobody there\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_full_queue_here_is_waited_for(
    tmp_path: Path, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process as with a server: refused work is brought again."""
    refusals = [EngineOverloaded("full", retry_after_s=0.001)] * 2
    score = engine.score

    async def score_later(*args: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return await score(*args)

    monkeypatch.setattr(engine, "score", score_later)
    run(write_jsonl(tmp_path / "in", RECORDS[:2]), "-o", tmp_path / "out", "--local")
    assert len(read_jsonl(tmp_path / "out")) == 2


def test_lines_of_one_context_have_one_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--session context`` sends a hash of each line's own context; without it nothing is sent."""
    seen: list[str | None] = []

    class Watched(AppTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.method == "POST":
                seen.append(request.headers.get("X-Session-Id"))
            return await super().handle_async_request(request)

    send_through(monkeypatch, lambda: Watched(FakeEngine()))
    given = write_jsonl(tmp_path / "in", [RECORDS[0], RECORDS[1], RECORDS[5]])
    run(given, "-o", tmp_path / "with", "--session", "context", "--concurrency", 1)
    run(given, "-o", tmp_path / "without")
    assert seen[0] == seen[1] != seen[2]
    assert [one and len(one) for one in seen] == [32] * 3 + [None] * 3
    assert (tmp_path / "with").read_bytes() == (tmp_path / "without").read_bytes()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--gnmt-alpha", "99"), "gnmt_alpha"),
        (("--session", "é"), "session: it is 1 to 128 printable ASCII characters"),
        (("--max-expansions", "4"), "max_expansions"),
        (("--errors", "x"), "--errors goes with --output"),
        (("--output", "in.jsonl"), "--output is the input itself"),
        (("--output", "a", "--errors", "a"), "--errors is the output itself"),
        (("--output", "a", "--errors", "../{here}/a"), "--errors is the output itself"),
        (("--output", "a", "--errors", "a.run.json"), "--errors is a.run.json"),
        (("--output", "a", "--errors", "a.run.json.new"), "--errors is a.run.json.new"),
        (("--output", "a", "--errors", "./in.jsonl"), "--errors is the input itself"),
    ],
)
def test_a_wrong_command_line(
    flags: tuple[str, ...],
    words: str,
    given: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line that names the flag, and status 2."""
    monkeypatch.chdir(given.parent)
    run(given, *(flag.format(here=given.parent.name) for flag in flags), status=2)
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_a_flag_may_need_what_only_lines_have(tmp_path: Path, engine: FakeEngine) -> None:
    """``pmi`` from a flag, its context from each line."""
    ask = {"context": "it is", "candidates": [YES], "pmi_context": "it"}
    run(write_jsonl(tmp_path / "in", [ask]), "-o", tmp_path / "out", "--normalization", "pmi")
    assert read_jsonl(tmp_path / "out")[0]["results"][0]["baseline_logprob"] is not None


def test_an_input_that_is_not_there(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    """It is named."""
    run("/nowhere/in.jsonl", status=1)
    assert "/nowhere/in.jsonl" in capsys.readouterr().err
