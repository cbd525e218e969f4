"""What an answer warns of: a space that may be missing, and a candidate that begins another."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import pytest

from app.client import Client
from app.schemas.score_response import WARNED_CANDIDATES, ScoreWarning
from app.scoring import missing_space
from model_runtime import Engine, EngineConfig, join
from tests.app.in_process import client_over
from tests.conftest import TinyFolder

CONTEXT = "it is"
WORDS = ["the", "yes", "a", "cold"]


@pytest.fixture(scope="module")
def client(tiny_folder: TinyFolder) -> Iterator[Client]:
    """Of a Llama with a tokenizer that knows words behind spaces."""
    config = EngineConfig(model=str(tiny_folder("llama")), kv_cache_bytes=8 << 20)
    with client_over(Engine.load(config)) as client:
        yield client


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warn wherever there is something to compare."""
    monkeypatch.setattr(missing_space, "FAR_MORE_PROBABLE", -math.inf)


def warned(answer: Any, code: str) -> list[ScoreWarning]:
    """The warnings of a kind."""
    return [one for one in answer.warnings if one.code == code]


def spaces(client: Client, **fields: Any) -> list[str]:
    """The candidates of which an answer says that a space may be missing."""
    asked = {"context": CONTEXT, "candidates": WORDS, **fields}
    return [one.param for one in warned(client.score(**asked), "missing_space")]


def first_logprob(client: Client, text: str, boundary: Any = "joint") -> float:
    """Of the first token behind the context, by another request."""
    answer = client.score(
        context=CONTEXT, candidates=[text], boundary=boundary, token_logprobs=True
    )
    assert answer.boundary.shift_bytes == 0
    return (answer.results[0].tokens or [])[0].logprob


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("boundary", ["joint", "separate"])
def test_the_factor_is_that_of_the_two_first_tokens(client: Client, boundary: Any) -> None:
    """As other requests give them."""
    answer = client.score(context=CONTEXT, candidates=WORDS, boundary=boundary)
    found = warned(answer, "missing_space")
    assert found
    for one in found:
        word = WORDS[int(one.param.removeprefix("candidates."))]
        times = float(re.findall(r"would be ([\d,.]+) times", one.message)[0].replace(",", ""))
        ahead = first_logprob(client, f" {word}", boundary) - first_logprob(client, word, boundary)
        assert times == pytest.approx(math.exp(ahead), rel=0.06, abs=0.6)


def test_only_what_is_far_more_probable_is_told(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On either side of the threshold."""
    ahead = {
        word: first_logprob(client, f" {word}") - first_logprob(client, word) for word in WORDS
    }
    middle = sorted(ahead.values())[1:3]
    monkeypatch.setattr(missing_space, "FAR_MORE_PROBABLE", sum(middle) / 2)
    expected = [f"candidates.{n}" for n, word in enumerate(WORDS) if ahead[word] > sum(middle) / 2]
    assert spaces(client) == expected


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(
    "fields",
    [
        {"context": "it is "},
        {"context": "it is:"},
        {"context": [5, 6, 7]},
        {"candidates": [" the", "...", "1"]},
        {"candidates": [[5], [6]]},
        {"candidates": ["n"]},
        {"boundary": "marginal"},
        {"top_n": 1},
    ],
    ids=repr,
)
def test_nothing_is_said_elsewhere(client: Client, fields: dict[str, Any]) -> None:
    """Behind a blank or a sign, of ids, where the two merge ("isn"), and where others search."""
    assert spaces(client, **fields) == []


@pytest.mark.usefixtures("always")
def test_the_numbers_are_those_without_it(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, and at the same price."""
    fields = {"context": CONTEXT, "candidates": WORDS, "cache_salt": "with"}
    answer = client.score(**fields)
    assert answer.warnings
    monkeypatch.setattr(missing_space, "WARNED_CANDIDATES", 0)
    plain = client.score(**{**fields, "cache_salt": "without"})
    assert not plain.warnings
    assert plain.results == answer.results
    assert plain.usage == answer.usage


@pytest.mark.usefixtures("always")
def test_what_was_asked_before_is_not_computed_again(tiny_folder: TinyFolder) -> None:
    """Whichever candidates it is asked with, and in whichever order; each counts once."""
    config = EngineConfig(model=str(tiny_folder("llama")), kv_cache_bytes=8 << 20)
    with client_over(Engine.load(config), score_cache_bytes=1 << 20) as client:
        first = client.score(context=CONTEXT, candidates=WORDS)
        assert first.usage.reused_scores == 0
        for words in (WORDS, WORDS[:2], WORDS[::-1], WORDS[3:]):
            answer = client.score(context=CONTEXT, candidates=words)
            assert answer.usage.computed_tokens == 0
            assert answer.usage.reused_scores == len(words)
            assert len(warned(answer, "missing_space")) == len(words)


@pytest.mark.parametrize(
    ("context", "candidate"), [("日本", "語"), ("ภาษา", "ไทย"), ("一", "a"), ("1", "a"), ("a", "")]
)
def test_scripts_without_spaces_lack_none(context: str, candidate: str) -> None:
    """And what is no letter lacks none either."""
    assert missing_space.spaceless(context, [candidate]) == []
    assert missing_space.spaceless("it is", ["the"]) == [0]


@pytest.mark.usefixtures("always")
def test_a_space_that_is_a_token_of_its_own_is_not_compared(tiny_folder: TinyFolder) -> None:
    """It would be as probable as all words together."""
    tokenizer = Engine.load(
        EngineConfig(model=str(tiny_folder("llama")), kv_cache_bytes=8 << 20)
    ).tokenizer
    joined = join(tokenizer, CONTEXT, ["x"])
    alone = [t for t in ("q", "z", "j") if tokenizer.encode(f" {t}")[0] == tokenizer.encode(" ")[0]]
    assert alone
    assert missing_space.missing_spaces(tokenizer, joined, dict(enumerate(alone))) is None


@pytest.mark.usefixtures("always")
def test_the_first_candidates_are_looked_at(client: Client) -> None:
    """And no more, however many there are; the same where the list is split."""
    candidates = ["the", *(f" {n}" for n in range(WARNED_CANDIDATES - 2)), "cold", "yes"]
    expected = ["candidates.0", f"candidates.{WARNED_CANDIDATES - 1}"]
    assert spaces(client, candidates=candidates) == expected
    split = client.score_split(context=CONTEXT, candidates=candidates, size=7)
    assert split.warnings == client.score(context=CONTEXT, candidates=candidates).warnings


@pytest.mark.usefixtures("always")
def test_one_that_fails_is_not_spoken_of(client: Client) -> None:
    """Its error says enough."""
    assert spaces(client, candidates=["", "cold"]) == ["candidates.1"]


def test_a_candidate_that_begins_others_is_named(client: Client) -> None:
    """Not where an end is scored, which makes them alternatives."""
    fields = {"context": CONTEXT, "candidates": [" no", " no no", " no no no", " yes"]}
    found = warned(client.score(**fields), "beginning_of_another")
    assert [one.param for one in found] == ["candidates.0", "candidates.1"]
    assert "candidates.1 and 1 more" in found[0].message
    split = client.score_split(**fields, size=1)
    assert warned(split, "beginning_of_another") == found
    assert client.score(**fields, append_eos=True).warnings == []


def test_equal_candidates_begin_nothing(client: Client) -> None:
    """They are one."""
    assert client.score(context=CONTEXT, candidates=[" no", " no"]).warnings == []
