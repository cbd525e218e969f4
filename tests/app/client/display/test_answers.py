"""What the client returns, as tables, HTML and plots: against the numbers of the answer itself."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import polars as pl
import pytest

from app.client import AuditAnswer, Client, DecodeAnswer, NextTokenAnswer, ScoreAnswer
from app.client.display import frames
from app.client.display.html import MAX_ROWS
from tests.app.in_process import client_over

CANDIDATES = [" yes", " no", " yes no", "<b>&'\"\n", ""]
"""Of the last one nothing can be scored."""


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Of an app whose engine gives probabilities by a law."""
    with client_over() as client:
        yield client


@pytest.fixture(scope="module")
def scored(client: Client) -> ScoreAnswer:
    """With all that can be listed."""
    return client.score(context="it is", candidates=CANDIDATES, token_logprobs=True, top_logprobs=2)


@pytest.fixture(scope="module")
def decoded(client: Client) -> DecodeAnswer:
    """Of every strategy, with tokens and trees."""
    return client.decode(
        context="it is",
        compare=["greedy", "beam", "exact"],
        max_tokens=2,
        token_logprobs=True,
        search_tree=True,
    )


@pytest.fixture(autouse=True)
def no_window() -> Iterator[None]:
    """Plots are drawn where nobody looks, and thrown away."""
    matplotlib.use("Agg")
    yield
    plt.close("all")


class Tags(HTMLParser):
    """The tags and texts of a piece of HTML; all that is opened must be closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.texts: list[str] = []
        self.titles: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self._open.append(tag)
        self.titles += [value or "" for name, value in attrs if name == "title"]
        assert {name for name, _ in attrs} <= {"style", "title", "role", "aria-label"}

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        """All of it."""
        return " ".join(self.texts)


def test_candidates_as_a_frame(scored: ScoreAnswer) -> None:
    """In the request's order, with what could not be scored."""
    frame = scored.to_pandas()
    assert list(frame["candidate"]) == CANDIDATES
    for row, one in zip(frame.to_dict("records"), scored.results, strict=True):
        if one.error is None:
            assert row["score"] == one.score
            assert row["rank"] == one.rank
            assert row["token_count"] == one.token_count
            assert pd.isna(row["error"])
        else:
            assert row["error"] == one.error.message
            assert math.isnan(row["score"])
            assert pd.isna(row["rank"])
    assert frame["rank"].dtype == "Int64"
    assert frame["score"].dtype == "float64"


def test_tokens_as_a_frame(scored: ScoreAnswer) -> None:
    """The last of each candidate has its sum."""
    frame = scored.to_pandas("token")
    last = frame.groupby("index").tail(1).set_index("index")["cumulative"]
    assert dict(last) == {one.index: one.logprob for one in scored.results if one.error is None}
    assert list(frame["text"])[:1] == [(scored.results[0].tokens or [])[0].text]


@pytest.mark.parametrize("level", ["candidate", "token"])
def test_both_kinds_of_frames_hold_the_same(scored: ScoreAnswer, level: Any) -> None:
    """Names, types, values, and what is missing."""
    polars = scored.to_polars(level)
    pandas = scored.to_pandas(level)
    assert polars.columns == list(pandas.columns)
    for name in polars.columns:
        values = [None if pd.isna(value) else value for value in pandas[name]]
        assert polars[name].to_list() == values
    assert polars.schema["index"] == pl.Int64
    assert polars.schema["logprob"] == pl.Float64


def test_columns_are_the_same_whatever_is_missing(client: Client, scored: ScoreAnswer) -> None:
    """Of a compact answer, of the best ones only, of nothing but numbers."""
    whole = scored.to_polars().schema
    for more in ({"compact": True}, {"top_n": 1}, {"top_n": 1, "compact": True}, {}):
        frame = client.score(context="it is", candidates=CANDIDATES, **more).to_polars()
        assert frame.schema == whole
        assert frame["index"].to_list() == list(range(len(CANDIDATES)))
        assert frame["candidate"].to_list() == CANDIDATES
        assert frame["score"][0] == scored.results[0].score
        assert frame["error"].to_list()[-1]


def test_ids_are_shown_as_ids(client: Client) -> None:
    """In brackets."""
    answer = client.score(context=[1, 2], candidates=[[3], [4, 5]])
    assert answer.to_polars()["candidate"].to_list() == ["[3]", "[4, 5]"]
    assert "[4, 5]" in Tags(answer._repr_html_()).text


def test_a_list_that_was_split_is_shown_whole(client: Client) -> None:
    """With its own candidates, not with those of its first part."""
    answer = client.score_split(context="it is", candidates=CANDIDATES, size=1)
    assert answer.to_polars()["candidate"].to_list() == CANDIDATES
    (one,) = client.score_many([{"context": "it is", "candidates": CANDIDATES}], size=2)
    assert one.to_polars()["candidate"].to_list() == CANDIDATES


def test_a_distribution(client: Client) -> None:
    """Listed tokens and those that were asked for."""
    answer = client.next_token(context="it is", top_k=3, token_ids=[7])
    assert isinstance(answer, NextTokenAnswer)
    frame = answer.to_polars()
    assert frame["id"].to_list() == [*(one.id for one in answer.tokens), 7]
    assert frame["chosen"].to_list() == [False, False, False, True]
    assert answer.to_pandas()["probability"][0] == answer.tokens[0].probability
    assert "Entropy" in Tags(answer._repr_html_()).text
    assert [bar.get_width() for bar in answer.plot().patches] == [
        one.probability for one in answer.tokens
    ]


def test_strategies(decoded: DecodeAnswer) -> None:
    """A row for each, and for each token and each node of the trees."""
    frame = decoded.to_polars()
    assert frame["strategy"].to_list() == ["greedy", "beam", "exact"]
    assert frame["search_error"].to_list() == [one.search_error for one in decoded.compared or ()]
    tokens = decoded.to_polars("token")
    assert set(tokens["strategy"]) == {"greedy", "beam", "exact"}
    nodes = decoded.to_pandas("node")
    assert len(nodes) == sum(
        len(one.search_tree.nodes) for one in decoded.compared or () if one.search_tree
    )
    assert len(decoded.plot().lines) == 3
    shown = Tags(decoded._repr_html_()).text
    assert "greedy" in shown
    assert "Proven" in shown


def test_sequences(client: Client) -> None:
    """Without strategies beside each other."""
    answer = client.decode(
        context="it is", strategy="beam", num_beams=2, num_return_sequences=2, max_tokens=2
    )
    frame = answer.to_polars()
    assert frame["text"].to_list() == [one.text for one in answer.sequences]
    assert frame["strategy"].to_list() == [None, None]
    assert Tags(answer._repr_html_()).names.count("tr") == 3
    for level in ("token", "node"):
        with pytest.raises(ValueError, match="ask for"):
            answer.to_pandas(level)
    with pytest.raises(ValueError, match="ask for token_logprobs"):
        answer.plot()


def test_an_audit(client: Client) -> None:
    """Its entropies are in the frame of tokens."""
    answer = client.audit(context="it is", candidates=[" yes", " no"])
    assert isinstance(answer, AuditAnswer)
    tokens = answer.to_polars("token")
    assert tokens["entropy"].to_list() == [t.entropy for c in answer.candidates for t in c.tokens]
    assert answer.to_pandas()["sum_rank"].to_list() == [
        one.ranking.sum.rank for one in answer.candidates if one.ranking
    ]
    assert answer.views in Tags(answer._repr_html_()).text
    assert len(answer.plot().lines) == 2


def test_html_holds_texts_as_texts(scored: ScoreAnswer) -> None:
    """Whatever they spell; blanks can be seen."""
    page = Tags(scored._repr_html_())
    assert set(page.names) <= {"div", "p", "table", "thead", "tbody", "tr", "th", "td", "b", "span"}
    assert "<b>&'\"↵" in page.text
    assert "·yes" in page.text
    assert any("rank" in title and "sum so far" in title for title in page.titles)


def test_html_tells_what_the_answer_warns_of(scored: ScoreAnswer) -> None:
    """In its words."""
    assert [one.code for one in scored.warnings] == ["beginning_of_another"]
    assert scored.warnings[0].message in Tags(scored._repr_html_()).text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u3000b", "a⍽b"),
        ("\u00a0x", "⍽x"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),
        ("\u202eabc", "\\u202eabc"),
        ("a\x1bb", "a\\u001bb"),
        (" a b\n", "·a b↵"),
    ],
)
def test_what_cannot_be_seen_is_drawn(client: Client, text: str, shown: str) -> None:
    """And letters stay what they are; in names for screen readers, too."""
    page = client.score(context="it is", candidates=[text], token_logprobs=True)._repr_html_()
    assert shown in Tags(page).text
    assert "\u202e" not in page
    assert "\x1b" not in page


@pytest.mark.parametrize("fields", [{"compact": True}, {"top_n": 1}, {"boundary": "marginal"}])
def test_every_kind_of_answer_shows_itself(client: Client, fields: dict[str, Any]) -> None:
    """Also where numbers are missing; that a ranking is certified is said."""
    answer = client.score(context="it is", candidates=[" yes", " no", " yes no"], **fields)
    page = Tags(answer._repr_html_())
    assert "·yes" in page.text
    assert ("certified; " in page.text) == ("top_n" in fields)
    assert len(answer.plot().get_yticklabels()) >= 1


def test_a_list_of_notes_is_short(client: Client) -> None:
    """The others are counted."""
    candidates = [" yes" + " no" * n for n in range(12)]
    answer = client.score(context="it is", candidates=candidates)
    page = Tags(answer._repr_html_())
    assert len(answer.warnings) == 11
    assert page.text.count("is the beginning of") == 8
    assert "and 3 more notes" in page.text


def test_html_of_a_long_list_is_short(client: Client) -> None:
    """The best are shown, the others counted."""
    candidates = [f" {n}" for n in range(3 * MAX_ROWS)]
    page = Tags(client.score(context="it is", candidates=candidates)._repr_html_())
    assert page.names.count("tr") == MAX_ROWS + 1
    assert f"and {2 * MAX_ROWS} more" in page.text


def test_plots_of_scores(scored: ScoreAnswer) -> None:
    """The ranking, best first, and sums that grow; on axes of one's own, too."""
    axes = scored.plot()
    names = [label.get_text() for label in axes.get_yticklabels()]
    best = sorted(
        (one for one in scored.results if one.score is not None), key=lambda one: -(one.score or 0)
    )
    assert names == [json.dumps(CANDIDATES[one.index]) for one in best]
    mine = plt.subplots()[1]
    assert scored.plot("token", axes=mine) is mine
    ends = {line.get_label(): float(line.get_ydata()[-1]) for line in mine.lines}
    assert ends['" yes"'] == scored.results[0].logprob


def test_an_unknown_level_is_refused(scored: ScoreAnswer) -> None:
    """By name, with those that there are."""
    for attempt in (scored.to_pandas, scored.to_polars, scored.plot):
        with pytest.raises(ValueError, match="candidate, token; not 'word'"):
            attempt("word")  # type: ignore[arg-type]


def test_tokens_must_have_been_asked_for(client: Client) -> None:
    """The error says how."""
    answer = client.score(context="it is", candidates=[" yes"])
    with pytest.raises(ValueError, match="token_logprobs=True"):
        answer.to_pandas("token")
    with pytest.raises(ValueError, match="token_logprobs=True"):
        answer.plot("token")


def test_a_missing_package_is_named(scored: ScoreAnswer, monkeypatch: pytest.MonkeyPatch) -> None:
    """And how to install it."""

    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(frames, "import_module", missing)
    with pytest.raises(ImportError, match=r"to_pandas needs pandas: pip install pandas"):
        scored.to_pandas()
    with pytest.raises(ImportError, match=r"plot needs matplotlib: .*chainrule\[notebook\]"):
        scored.plot()
