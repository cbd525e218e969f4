"""``chainrule decode``."""

from __future__ import annotations

import json

import httpx
import pytest

from app.schemas.decode_response import EVENTS_EXAMPLE
from tests.app.cli.command_line import answer_locally, answer_with, field_error, printed, rows
from tests.app.fake_engine import FakeEngine


@pytest.fixture(autouse=True)
def _law(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_locally(monkeypatch, FakeEngine())


def decoded(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    return printed(capsys, "decode", "it is", "--local", *flags)


def test_the_table_lists_sequences_best_first(capsys: pytest.CaptureFixture[str]) -> None:
    """Text, tokens, log-probability, score and how each ended."""
    out = decoded(capsys, "--strategy", "beam", "--num-return-sequences", "2", "--max-tokens", "2")
    table = rows(out)
    assert table[0] == ["#", "text", "tokens", "logprob", "score", "finish", "candidate"]
    assert table[1] == ["0", '"', 'yes"', "2", "-1.3863", "-0.6931", "stop"]
    assert table[2][0] == "1"


def test_tokens_are_listed_where_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Each with its rivals, best first."""
    out = decoded(capsys, "--max-tokens", "1", "--top-logprobs", "2")
    assert "tokens of #0" in out
    assert '" yes" -0.6931, " no" -1.3863' in out


def test_strategies_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    """Each with what it missed, and in words what was proven."""
    flags = ("--compare", "greedy", "--compare", "exact", "--max-tokens", "2")
    out = decoded(capsys, *flags)
    assert [row[0] for row in rows(out)[:3]] == ["strategy", "greedy", "exact"]
    assert "proven: these are the best" in out


def test_a_search_that_ran_out_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """Not proven, and by how much others may be better."""
    flags = ("--strategy", "exact", "--max-expansions", "1", "--max-tokens", "8")
    assert "not proven: others may be better by up to " in decoded(capsys, *flags)


def test_a_stream_is_printed_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    """The text first, then the table of the whole."""
    out = decoded(capsys, "--stream", "--max-tokens", "2")
    assert out.startswith(" yes\n\n#  text")


def test_a_servers_stream_is_printed_as_it_comes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Events become text, the result a table."""
    headers = {"content-type": "text/event-stream"}
    response = httpx.Response(200, text=EVENTS_EXAMPLE, headers=headers)
    bodies = answer_with(monkeypatch, lambda _request: response)
    out = printed(capsys, "decode", "it is", "--stream")
    assert bodies == [{"context": "it is", "stream": True}]
    assert out.startswith(" Paris\n\n#  text")


def test_a_stream_as_json_is_its_result(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is printed but one JSON object."""
    answer = json.loads(decoded(capsys, "--stream", "--max-tokens", "1", "--json"))
    assert answer["sequences"][0]["text"] == " yes"


def test_candidates_are_repeated_flags(capsys: pytest.CaptureFixture[str]) -> None:
    """The table says which of them was chosen."""
    flags = ("--candidates", " no", "--candidates", " yes", "--strategy", "exact")
    assert rows(decoded(capsys, *flags))[1][-1] == "1"


@pytest.mark.parametrize(
    ("flags", "fields"),
    [
        (("--strategy", "beam", "--early-stopping", "never"), {"early_stopping": "never"}),
        (("--strategy", "beam", "--early-stopping", "true"), {"early_stopping": True}),
        (("--stop", "a", "--stop", "b"), {"stop": ["a", "b"]}),
        (("--stop-token-ids", "1,2"), {"stop_token_ids": [1, 2]}),
        (("--json-schema", '{"type": "null"}'), {"json_schema": {"type": "null"}}),
        (("--strategy", "beam", "--length-penalty", "-1"), {"length_penalty": -1.0}),
        (("--from-json", "--candidates", "[1]"), {"candidates": [[1]]}),
    ],
)
def test_flags_of_every_kind_reach_the_request(
    flags: tuple[str, ...],
    fields: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Choices, repeated texts, numbers with commas, JSON: each as the API reads it."""
    bodies = answer_with(monkeypatch, lambda _request: httpx.Response(404, json={}))
    field_error(capsys, "decode", '"it is"', *flags, status=1)
    assert bodies[0].items() >= fields.items()


@pytest.mark.parametrize(
    "flags",
    [
        ("--stop-token-ids", "1;2"),
        ("--json-schema", "{"),
        ("--strategy", "best"),
        ("--max-tokens", "many"),
    ],
)
def test_an_unreadable_flag_is_status_2(
    flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """The flag is named."""
    with pytest.raises(SystemExit) as caught:
        decoded(capsys, *flags)
    assert caught.value.code == 2
    assert flags[0] in capsys.readouterr().err.splitlines()[-1]
