"""Beam search on hand-written tables."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

from model_runtime.decoding.beam import BeamSearch
from model_runtime.decoding.constraints.stop_strings import StopStrings
from model_runtime.decoding.greedy import GreedySearch
from model_runtime.decoding.hypothesis import FinishReason
from model_runtime.decoding.limits import DecodingLimits
from model_runtime.errors import ForwardFailed, InvalidQuery, NonFiniteLogits
from model_runtime.types import LogprobResult, total
from tests.model_runtime.decoding.table import (
    PROMPT,
    NextLogprobs,
    answer,
    beam,
    bigrams,
    letters,
    random_table,
    run,
)

END = 2
ENDS = frozenset({END})
GARDEN_PATH = bigrams(
    start=[0.55, 0.45, 0.0],
    after=[[0.4, 0.3, 0.3], [0.05, 0.05, 0.9], [0.3, 0.3, 0.4]],
)
"""Greedy begins with 0; the most probable completion is (1, END)."""


def test_finds_the_completion_that_greedy_misses() -> None:
    """Two beams see past a first token that looks better than it is."""
    limits = DecodingLimits(max_tokens=4, end_token_ids=ENDS)
    (found,) = beam(GARDEN_PATH, limits, num_beams=2, length_penalty=0.0)
    greedy = run(GreedySearch(PROMPT, limits, vocab_size=3), GARDEN_PATH).hypotheses[0]
    assert found.token_ids == (1, END)
    assert found.score == found.logprob == math.log(0.45) + math.log(0.9)
    assert greedy.token_ids[0] == 0
    assert greedy.logprob < found.logprob


@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_score_divides_by_the_length_with_the_end_token(length_penalty: float) -> None:
    """Score = sum / length ** length_penalty, and the end token counts in the length."""
    limits = DecodingLimits(max_tokens=5, end_token_ids=ENDS)
    options = {"num_beams": 3, "num_return_sequences": 3, "length_penalty": length_penalty}
    found = beam(GARDEN_PATH, limits, **options)
    assert any(hypothesis.finish_reason is FinishReason.END for hypothesis in found)
    for hypothesis in found:
        length = len(hypothesis.token_ids)
        assert hypothesis.score == total(hypothesis.token_logprobs) / length**length_penalty
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


def test_early_stopping_true_ends_with_the_first_full_set() -> None:
    """It stops as soon as ``num_beams`` completions are finished, though longer ones win."""
    late_bloomer = bigrams([0.1, 0.5, 0.4], [[0.98, 0.01, 0.01], [0.1, 0.3, 0.6], [1, 0, 0]])
    limits = DecodingLimits(max_tokens=12, end_token_ids=ENDS)
    options: dict[str, Any] = {"num_beams": 2, "length_penalty": 1.0}
    (eager,) = beam(late_bloomer, limits, early_stopping=True, **options)
    (patient,) = beam(late_bloomer, limits, early_stopping="never", **options)
    assert eager.token_ids == (1, END)
    assert len(patient.token_ids) == 12
    assert patient.score > eager.score


def steps(table: NextLogprobs, limits: DecodingLimits, **options: Any) -> int:
    """How often a search asks before it is done."""
    search = BeamSearch(PROMPT, limits, vocab_size=3, **options)
    count = 0
    while not search.done:
        search.advance([answer(query, table) for query in search.queries()])
        count += 1
    return count


def test_early_stopping_orders_the_effort() -> None:
    """True stops no later than false, and false, a heuristic, no later than "never"."""
    table = bigrams([0.6, 0.1, 0.3], [[0.6, 0.1, 0.3]] * 3)
    limits = DecodingLimits(max_tokens=20, end_token_ids=ENDS)
    counts = {
        early: steps(table, limits, num_beams=2, length_penalty=0.5, early_stopping=early)
        for early in (True, False, "never")
    }
    assert counts == {True: 2, False: 6, "never": 11}


def test_never_bounds_a_live_prefix_by_its_present_length_where_short_ones_win() -> None:
    """With a negative exponent scores only fall with length, so the present length bounds."""
    table = bigrams([0.6, 0.02, 0.38], [[0.03, 0.67, 0.3], [0.02, 0.03, 0.95], [1, 0, 0]])
    limits = DecodingLimits(max_tokens=10, end_token_ids=ENDS)
    options: dict[str, Any] = {"num_beams": 2, "num_return_sequences": 2, "length_penalty": -1.0}
    found = beam(table, limits, early_stopping="never", **options)
    assert [h.token_ids for h in found] == [(END,), (0, 1, END)]


def test_beams_survive_several_end_tokens_above_them() -> None:
    """Enough candidates are kept that the ends of all live prefixes do not crowd out the rest."""
    row = [0.1, 0.05, 0.4, 0.45]
    limits = DecodingLimits(max_tokens=3, end_token_ids=frozenset({2, 3}))
    found = beam(
        bigrams(row, [row] * 4),
        limits,
        vocab_size=4,
        num_beams=2,
        num_return_sequences=2,
        length_penalty=4.0,
        early_stopping="never",
    )
    assert [h.token_ids for h in found] == [(0, 0, 3), (0, 0, 2)]


def test_only_the_best_num_beams_candidates_may_finish() -> None:
    """An end token ranked below the best ``num_beams`` candidates is not a completion."""
    table = bigrams([0.5, 0.3, 0.2], [[0.5, 0.5, 0.0]] * 3)
    limits = DecodingLimits(max_tokens=2, end_token_ids=ENDS)
    found = beam(table, limits, num_beams=2, num_return_sequences=2)
    assert [h.token_ids for h in found] == [(0, 0), (0, 1)]
    wider = beam(table, limits, num_beams=3, num_return_sequences=3, length_penalty=0.0)
    assert (END,) in [h.token_ids for h in wider]


def test_beam_with_a_stop_is_finished() -> None:
    """A beam whose text contains a stop ends there, with the stop's place in its bytes."""
    limits = DecodingLimits(max_tokens=4, stop=StopStrings((b"ba",), letters))
    table = bigrams([0.5, 0.5, 0.0], [[0.3, 0.7, 0.0], [0.6, 0.4, 0.0], [0.5, 0.5, 0.0]])
    found = beam(table, limits, num_beams=8, num_return_sequences=8, length_penalty=0.0)
    stopped = [h for h in found if h.finish_reason is FinishReason.STOP]
    assert stopped
    for hypothesis in found:
        text = b"".join(map(letters, hypothesis.token_ids))
        if hypothesis in stopped:
            assert text.index(b"ba") == len(text) - 2
            assert hypothesis.stop_span == (len(text) - 2, len(text))
        else:
            assert b"ba" not in text
            assert hypothesis.stop_span is None


def test_asks_once_at_first_and_then_once_per_live_beam() -> None:
    """All beams begin equal, so the first step is one query; no path is asked twice."""
    limits = DecodingLimits(max_tokens=3)
    search = BeamSearch(PROMPT, limits, vocab_size=8, num_beams=4)
    table = random_table(1, 8)
    sizes = []
    while not search.done:
        queries = search.queries()
        assert len({query.tokens for query in queries}) == len(queries)
        sizes.append(len(queries))
        search.advance([answer(query, table) for query in queries])
    assert sizes == [1, 4, 4]
    assert search.cost == len(PROMPT) + 4 * 2


def test_fewer_paths_than_beams_gives_fewer_completions() -> None:
    """Nothing is made up to fill the result where the search space is small."""
    limits = DecodingLimits(max_tokens=1)
    found = beam(GARDEN_PATH, limits, num_beams=5, num_return_sequences=5)
    assert [h.token_ids for h in found] == [(0,), (1,)]


def test_impossible_next_token_is_an_error() -> None:
    """Where nothing that may come next has any probability the search fails."""
    table = bigrams([0, 0, 1], [[0, 0, 1]] * 3)
    with pytest.raises(NonFiniteLogits):
        beam(table, DecodingLimits(2, min_tokens=1, end_token_ids=ENDS), num_beams=2)


def test_one_failed_query_ends_the_search() -> None:
    """A beam that cannot be extended fails the request instead of vanishing."""
    search = BeamSearch(PROMPT, DecodingLimits(max_tokens=3), vocab_size=3, num_beams=2)
    search.advance([answer(search.queries()[0], GARDEN_PATH)])
    good = answer(search.queries()[0], GARDEN_PATH)
    with pytest.raises(ForwardFailed):
        search.advance([good, ForwardFailed("no")])


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"num_beams": 0}, "num_beams"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences"),
        ({"num_beams": 2, "num_return_sequences": 0}, "num_return_sequences"),
        ({"num_beams": 2, "length_penalty": math.nan}, "length_penalty"),
        ({"num_beams": 2, "length_penalty": math.inf}, "length_penalty"),
        ({"num_beams": 2, "length_penalty": 1e4}, "length_penalty"),
        ({"num_beams": 2, "length_penalty": -1e4}, "length_penalty"),
        ({"num_beams": 2, "early_stopping": "always"}, "early_stopping"),
        ({"num_beams": 2, "early_stopping": 1}, "early_stopping"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], param: str) -> None:
    """Each refusal names the field at fault."""
    with pytest.raises(InvalidQuery) as caught:
        BeamSearch(PROMPT, DecodingLimits(max_tokens=8), vocab_size=9, **options)
    assert caught.value.param == param


def test_wide_beams_advance_in_milliseconds() -> None:
    """A step of 512 beams costs far less than the forward between two steps."""
    width, ends = 512, frozenset({1, 6})
    table = random_table(3, 600)
    limits = DecodingLimits(max_tokens=6, end_token_ids=ends)
    search = BeamSearch(PROMPT, limits, vocab_size=600, num_beams=width)
    wide_row = answer(search.queries()[0], table).choices
    spent = 0.0
    while not search.done:
        began = time.process_time()
        queries = search.queries()
        spent += time.process_time() - began
        rows = [LogprobResult(choices=wide_row)] * len(queries)
        began = time.process_time()
        search.advance(rows)
        spent += time.process_time() - began
    assert len(search.result().hypotheses[0].token_ids) in range(1, 7)
    assert spent / 6 < 0.25
