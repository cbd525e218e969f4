"""The exact-search table, on a tiny model. Nothing is timed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import pytest

from benchmarks import exact_table
from benchmarks.exact_table import Case, Searches, cell, miss_cells, spread
from benchmarks.in_process import InProcess
from benchmarks.prompts import EIGHT, varied
from model_runtime import DecodingLimits
from tests.conftest import TinyFolder


@pytest.fixture(scope="module")
def searches(tiny_folder: TinyFolder) -> Iterator[Searches]:
    """Searches on an engine of small memory."""
    settings = {"model": str(tiny_folder("llama")), "kv_cache_bytes": 8 << 20}
    with InProcess(**settings, max_batch_tokens=512) as ours:
        yield Searches(ours, max_expansions=2000)


def test_the_prompts_are_many_and_different() -> None:
    """At least fifty, none twice, the known eight first, and every kind among the first ones."""
    prompts = varied()
    assert len(prompts) >= 50
    assert max(Counter(prompts).values()) == 1
    assert prompts[:8] == EIGHT
    assert "<|im_start|>" in "".join(prompts[8:20])


def test_a_case_is_the_same_set_searched_three_ways(searches: Searches) -> None:
    """Nothing that greedy or beam search finds is better than a proven optimum."""
    case = searches.case("The sky is", 3)
    assert case.proven
    assert case.exact >= max(case.greedy, case.beam) - 1e-5
    assert 1 <= case.expanded <= 2000


def test_a_search_without_budget_is_not_called_proven(searches: Searches) -> None:
    """What ran out of expansions is reported as it is."""
    short, none = (Searches(searches._ours, max_expansions=budget) for budget in (25, 1))
    assert not short.case("Is the", 6).proven
    assert none.case("Is the", 6).exact == -math.inf


def test_an_optimum_that_is_beaten_ends_the_benchmark(
    searches: Searches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table is not printed over a wrong proof: here completions of one token beat it."""
    approximations = searches._approximations
    short = DecodingLimits(1)
    monkeypatch.setattr(searches, "_approximations", lambda ids, _: approximations(ids, short))
    with pytest.raises(SystemExit, match="is beaten"):
        searches.case("The sky is", 3)


def test_misses_are_counted_beyond_the_numeric_error() -> None:
    """Equal sums are no miss; of the misses the median and the largest are given."""
    assert miss_cells([0.0, 1e-6, -1e-6]) == ["0 of 3", "-", "-"]
    assert miss_cells([0.0, 1.0, 3.0, 2.0]) == ["3 of 4", "2.00", "3.00"]
    assert miss_cells([]) == ["0 of 0", "-", "-"]
    assert spread([3.0, 1.0, 2.0]) == (2.0, 3.0, 3.0)


def test_the_table_has_a_row_a_length(
    searches: Searches, capsys: pytest.CaptureFixture[str]
) -> None:
    """Subsets of prompts and lengths are tables of the same shape."""
    exact_table.by_length(searches, varied()[:2], (1, 2))
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [row.split(" | ")[:2] for row in rows[2:]] == [["| 1", "2 of 2"], ["| 2", "2 of 2"]]
    assert len({row.count("|") for row in rows}) == 1


def test_the_prompts_of_one_length_are_told_apart(
    searches: Searches, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row a prompt with its totals, then the median and the worst."""
    case = Case("a|b`\n", exact=-1.0, greedy=-2.5, beam=-1.25, proven=True, expanded=7, seconds=0.5)
    monkeypatch.setattr(searches, "case", lambda prompt, length: case)
    exact_table.the_eight(searches, ["one", "two"])
    out = capsys.readouterr().out
    assert f"| `'one'` | -2.50 | -1.25 | -1.00 | {cell(case.text)} | yes | 7 | 0.50 |" in out
    assert "| median |  |  |  |  |  | 7 | 0.50 |" in out
    assert "| worst |  |  |  |  |  |  | 0.50 |" in out


def test_text_in_a_cell_breaks_no_table() -> None:
    """Bars, ticks and line ends are written out, so a cell stays one cell on one line."""
    assert cell("a|b`\n") == r"`'a\x7cb\x60\n'`"
