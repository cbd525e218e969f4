"""The command line of ``chainrule score --ray``, as far as no cluster is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.app.cli.scoring import run, write_jsonl


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("in", "-o", "out", "--ray", "--local"), "--ray does without --local"),
        (("in", "-o", "out", "--ray", "--url", "http://x"), "--ray does without --url"),
        (("in", "-o", "out", "--ray", "--errors", "e"), "--ray does without --errors"),
        (("-", "-o", "out", "--ray"), "not standard input"),
        (("in", "--ray"), "--ray needs --output, a folder"),
        (("in", "-o", "in/in.jsonl", "--ray"), "--ray needs --output, a folder"),
        (("in", "-o", "in/out", "--ray"), "--output lies in the input's folder"),
        (("in", "-o", "out", "--ray", "--output-format", "jsonl"), "--ray writes Parquet"),
        (("in", "-o", "out", "--ray", "--session", "context"), "--ray does without --session"),
        (("in", "-o", "out", "--ray", "--retry-for", "5"), "--ray does without --retry-for"),
        (("in/in.jsonl", "-o", "out", "--actors", "2"), "--actors goes with --ray"),
        (("in/in.jsonl", "-o", "out", "--block-rows", "2"), "--block-rows goes with --ray"),
        (("in/in.jsonl", "-o", "out", "--ray-address", "a"), "--ray-address goes with --ray"),
    ],
)
def test_a_wrong_command_line(
    argv: tuple[str, ...],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line that names the flag, and status 2; nothing is written."""
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in/in.jsonl", [])
    monkeypatch.chdir(tmp_path)
    run(*argv, status=2)
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that says what to install."""
    monkeypatch.setattr("app.cli.extras.find_spec", lambda _name: None)
    run(write_jsonl(tmp_path / "in", []), "-o", tmp_path / "out", "--ray", status=2)
    assert capsys.readouterr().err == (
        "chainrule: error: --ray needs ray: pip install 'chainrule[ray]'\n"
    )
