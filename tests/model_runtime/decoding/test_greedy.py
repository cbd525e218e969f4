"""Greedy decoding on hand-written tables."""

from __future__ import annotations

import math
from typing import Any

import pytest

from model_runtime.decoding.constraints.stop_strings import StopStrings
from model_runtime.decoding.greedy import GreedySearch
from model_runtime.decoding.hypothesis import FinishReason, Hypothesis
from model_runtime.decoding.limits import DecodingLimits
from model_runtime.errors import InvalidQuery, NonFiniteLogits, PathTooLong
from model_runtime.types import TokenLogprob, total
from tests.model_runtime.decoding.table import PROMPT, NextLogprobs, bigrams, random_table, run

END = 2
TABLE = bigrams(
    start=[0.5, 0.3, 0.2],
    after=[[0.1, 0.6, 0.3], [0.25, 0.25, 0.5], [0.2, 0.7, 0.1]],
)
"""Greedy path: 0, 1, END."""


def greedy(table: NextLogprobs = TABLE, *, vocab_size: int = 3, **limits: Any) -> Hypothesis:
    """The one completion under ``limits``."""
    search = GreedySearch(PROMPT, DecodingLimits(**limits), vocab_size=vocab_size)
    (hypothesis,) = run(search, table).hypotheses
    return hypothesis


def test_ends_with_the_end_token() -> None:
    """The end token is part of the completion and of its log-probability."""
    found = greedy(max_tokens=9, end_token_ids=frozenset({END}))
    assert found.token_ids == (0, 1, END)
    assert found.token_logprobs == (math.log(0.5), math.log(0.6), math.log(0.5))
    assert found.finish_reason is FinishReason.END
    assert found.score == found.logprob == total(found.token_logprobs)


def test_ends_at_max_tokens() -> None:
    """Without an end it has exactly ``max_tokens`` tokens."""
    found = greedy(max_tokens=2, end_token_ids=frozenset({END}))
    assert found.token_ids == (0, 1)
    assert found.finish_reason is FinishReason.LENGTH


def test_end_token_in_last_place_is_an_end() -> None:
    """An end token at ``max_tokens`` counts as an end, not as a cut."""
    found = greedy(max_tokens=3, end_token_ids=frozenset({END}))
    assert found.finish_reason is FinishReason.END


def test_ends_are_ignored_when_there_are_none() -> None:
    """With no end ids the model's end token is a token like any other."""
    found = greedy(max_tokens=5)
    assert found.token_ids == (0, 1, END, 1, END)
    assert found.finish_reason is FinishReason.LENGTH


def test_min_tokens_masks_ends_and_keeps_the_models_own_numbers() -> None:
    """The best other token is taken with its own log-prob and rank, not renormalised."""
    found = greedy(max_tokens=4, min_tokens=3, end_token_ids=frozenset({END}))
    assert found.token_ids == (0, 1, 0, 1)
    assert found.token_logprobs[2] == math.log(0.25)
    assert found.token_ranks == (1, 1, 2, 1)


def test_equal_tokens_go_to_the_smallest_id() -> None:
    """A tie is broken by id, and tied tokens share a rank."""
    found = greedy(bigrams([0.2, 0.4, 0.4], [[1, 0, 0]] * 3), max_tokens=1)
    assert found.token_ids == (1,)
    masked = greedy(
        bigrams([0.2, 0.4, 0.4], [[1, 0, 0]] * 3),
        max_tokens=1,
        min_tokens=1,
        end_token_ids=frozenset({1}),
    )
    assert (masked.token_ids, masked.token_ranks) == ((2,), (1,))


def test_top_logprobs_are_given_for_every_token() -> None:
    """Each step reports as many tokens as were asked for, masked ones included."""
    found = greedy(max_tokens=2, min_tokens=2, end_token_ids=frozenset({0, 1}), top_logprobs=2)
    assert found.token_ids == (2, 2)
    assert found.top == (
        (TokenLogprob(0, math.log(0.5)), TokenLogprob(1, math.log(0.3))),
        (TokenLogprob(1, math.log(0.7)), TokenLogprob(0, math.log(0.2))),
    )
    assert greedy(max_tokens=2).top == ()


def test_stop_string_ends_it_and_reports_where() -> None:
    """The token that completes the stop is kept, and the span tells where to cut the text."""
    texts = [b"the ", b"en", b"d."]
    found = greedy(max_tokens=9, stop=StopStrings((b"end",), texts.__getitem__))
    assert found.token_ids == (0, 1, 2)
    assert found.finish_reason is FinishReason.STOP
    assert found.stop_span == (4, 7)


def test_stop_does_not_reach_into_the_prompt() -> None:
    """A stop that the prompt's last token began is not completed by generated text."""
    texts = {PROMPT[-1]: b"e", 0: b"nd", 1: b"-", 2: b"-"}
    found = greedy(max_tokens=2, stop=StopStrings((b"end",), texts.__getitem__))
    assert found.finish_reason is FinishReason.LENGTH


def test_text_of_the_end_token_is_no_text() -> None:
    """An end token never completes a stop."""
    found = greedy(
        max_tokens=9,
        end_token_ids=frozenset({END}),
        stop=StopStrings((b"c",), lambda token_id: b"abc"[token_id : token_id + 1]),
    )
    assert found.finish_reason is FinishReason.END
    assert found.stop_span is None


def test_stop_within_min_tokens_does_not_count() -> None:
    """The first ``min_tokens`` tokens complete no stop; one that ends beyond them does."""
    stop = StopStrings((b"b",), lambda token_id: b"abc"[token_id : token_id + 1])
    assert greedy(max_tokens=9, stop=stop).token_ids == (0, 1)
    late = greedy(max_tokens=9, min_tokens=2, stop=stop)
    assert late.token_ids == (0, 1, 2, 1)
    assert late.stop_span == (3, 4)


def test_stop_in_last_place_is_a_stop() -> None:
    """A stop completed by token ``max_tokens`` is reported as a stop."""
    stop = StopStrings((b"b",), lambda token_id: b"abc"[token_id : token_id + 1])
    assert greedy(max_tokens=2, stop=stop).finish_reason is FinishReason.STOP


@pytest.mark.parametrize("seed", range(20))
def test_every_token_is_the_best_that_may_come_next(seed: int) -> None:
    """On random tables each token is the argmax of what is allowed, with its true rank."""
    table = random_table(seed, 6)
    ends = frozenset({4, 5})
    found = greedy(table, vocab_size=6, max_tokens=8, min_tokens=3, end_token_ids=ends)
    for length, token_id in enumerate(found.token_ids):
        row = table(found.token_ids[:length])
        allowed = [i for i in range(6) if length >= 3 or i not in ends]
        assert token_id == max(allowed, key=lambda i: (row[i], -i))
        assert found.token_logprobs[length] == row[token_id]
        assert found.token_ranks[length] == 1 + sum(value > row[token_id] for value in row)


def test_cost_is_the_prompt_and_all_but_the_last_token() -> None:
    """The last generated token is never fed to the model."""
    search = GreedySearch(PROMPT, DecodingLimits(max_tokens=5), vocab_size=3)
    assert search.cost == len(PROMPT) + 4


def test_failed_query_ends_the_search() -> None:
    """What a query failed with is raised."""
    search = GreedySearch(PROMPT, DecodingLimits(max_tokens=5), vocab_size=3)
    with pytest.raises(PathTooLong):
        search.advance([PathTooLong("too long")])


def test_impossible_next_token_is_an_error() -> None:
    """Where all tokens that may come next have probability zero, nothing is made up."""
    with pytest.raises(NonFiniteLogits):
        greedy(
            bigrams([0, 0, 1], [[0, 0, 1]] * 3),
            max_tokens=2,
            min_tokens=1,
            end_token_ids=frozenset({END}),
        )


def test_empty_prompt_is_refused() -> None:
    """A first token is conditional on something."""
    with pytest.raises(InvalidQuery) as caught:
        GreedySearch((), DecodingLimits(max_tokens=1), vocab_size=3)
    assert caught.value.param == "context"


def test_result_before_the_end_is_a_bug() -> None:
    """Taking a result from a search that is not done raises."""
    search = GreedySearch(PROMPT, DecodingLimits(max_tokens=5), vocab_size=3)
    with pytest.raises(RuntimeError, match="report"):
        search.result()
