"""Properties of beam search on random tables, against definitions and brute force."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_runtime.decoding.beam import BeamSearch
from model_runtime.decoding.constraints.stop_strings import StopMatcher, StopStrings
from model_runtime.decoding.greedy import GreedySearch
from model_runtime.decoding.limits import DecodingLimits
from model_runtime.types import TokenLogprob, total
from tests.model_runtime.decoding.table import (
    PROMPT,
    NextLogprobs,
    beam,
    bigrams,
    letters,
    random_table,
    run,
)


def completions(
    table: NextLogprobs,
    limits: DecodingLimits,
    vocab_size: int,
    path: tuple[int, ...] = (),
    stop: StopMatcher | None = None,
) -> Iterator[tuple[int, ...]]:
    """Every completion under ``limits``, by the definition."""
    stop = limits.stop if not path else stop
    for token_id in range(vocab_size):
        longer = (*path, token_id)
        if token_id in limits.end_token_ids:
            if len(longer) > limits.min_tokens:
                yield longer
            continue
        after = stop.push(token_id) if stop is not None else None
        stopped = after is not None and after.matched and len(longer) > limits.min_tokens
        if stopped or len(longer) == limits.max_tokens:
            yield longer
        else:
            yield from completions(table, limits, vocab_size, longer, after)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    length_penalty=st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]),
    min_tokens=st.integers(0, 4),
    ends=st.sets(st.integers(0, 3), max_size=2).map(frozenset),
    stops=st.lists(st.text("abcd", min_size=1, max_size=3), max_size=2),
)
def test_a_beam_wide_enough_for_everything_is_exhaustive(
    seed: int, length_penalty: float, min_tokens: int, ends: frozenset[int], stops: list[str]
) -> None:
    """With room for all paths and no early stop it returns the true best completions."""
    table = random_table(seed, 4)
    matcher = StopStrings([stop.encode() for stop in stops], letters) if stops else None
    limits = DecodingLimits(4, min_tokens, ends, matcher)
    found = beam(
        table,
        limits,
        vocab_size=4,
        num_beams=256,
        num_return_sequences=256,
        length_penalty=length_penalty,
        early_stopping="never",
    )
    logprobs = {
        path: total([table(path[:i])[token] for i, token in enumerate(path)])
        for path in completions(table, limits, 4)
    }
    scores = {path: value / len(path) ** length_penalty for path, value in logprobs.items()}
    assert {h.token_ids: h.score for h in found} == scores
    assert [h.score for h in found] == sorted(scores.values(), reverse=True)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    min_tokens=st.integers(0, 4),
    ends=st.sets(st.integers(0, 5), max_size=3).map(frozenset),
    stop=st.text("abcdef", max_size=2),
    early_stopping=st.sampled_from([False, True, "never"]),
)
def test_one_beam_is_greedy(
    seed: int, min_tokens: int, ends: frozenset[int], stop: str, early_stopping: Any
) -> None:
    """With one beam the tokens, ranks and reason are those of greedy search."""
    table = random_table(seed, 6)
    matcher = StopStrings((stop.encode(),), letters) if stop else None
    limits = DecodingLimits(6, min_tokens, ends, matcher, top_logprobs=2)
    (found,) = beam(table, limits, vocab_size=6, num_beams=1, early_stopping=early_stopping)
    (greedy,) = run(GreedySearch(PROMPT, limits, vocab_size=6), table).hypotheses
    assert found.score == greedy.logprob / len(greedy.token_ids)
    for name in ("token_ids", "token_logprobs", "token_ranks", "top", "finish_reason", "stop_span"):
        assert getattr(found, name) == getattr(greedy, name)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), num_beams=st.integers(2, 5), min_tokens=st.integers(0, 3))
def test_numbers_of_every_token_are_the_models_own(
    seed: int, num_beams: int, min_tokens: int
) -> None:
    """Log-prob, rank and top of each token are those after its own path, never renormalised."""
    table = random_table(seed, 8)
    limits = DecodingLimits(5, min_tokens, frozenset({1, 6}), top_logprobs=3)
    options = {"num_beams": num_beams, "num_return_sequences": num_beams}
    for found in beam(table, limits, vocab_size=8, **options):
        for length, token_id in enumerate(found.token_ids):
            row = table(found.token_ids[:length])
            best = sorted(range(8), key=lambda i: -row[i])[:3]
            assert found.token_logprobs[length] == row[token_id]
            assert found.token_ranks[length] == 1 + sum(value > row[token_id] for value in row)
            assert found.top[length] == tuple(TokenLogprob(i, row[i]) for i in best)


class WholeRows(BeamSearch):
    """Reads every next token of every live prefix."""

    def _row_need(self, length: int) -> int:
        return self._vocab_size


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 10**6),
    sharpness=st.sampled_from([0.2, 1.5, 5.0]),
    num_beams=st.integers(1, 7),
    min_tokens=st.integers(0, 4),
    ends=st.sets(st.integers(0, 11), max_size=5).map(frozenset),
    stop=st.text("abcdef", max_size=2),
    early_stopping=st.sampled_from([False, True, "never"]),
)
def test_the_part_of_a_row_that_is_read_is_enough(
    seed: int,
    sharpness: float,
    num_beams: int,
    min_tokens: int,
    ends: frozenset[int],
    stop: str,
    early_stopping: Any,
) -> None:
    """What a search finds is what it finds with all rows whole."""
    table = random_table(seed, 12, sharpness)
    matcher = StopStrings((stop.encode(),), letters) if stop else None
    limits = DecodingLimits(4, min_tokens, ends, matcher)
    options: dict[str, Any] = {
        "vocab_size": 12,
        "num_beams": num_beams,
        "num_return_sequences": num_beams,
        "early_stopping": early_stopping,
    }
    whole = run(WholeRows(PROMPT, limits, **options), table)
    assert run(BeamSearch(PROMPT, limits, **options), table) == whole


@pytest.mark.parametrize("num_beams", [2, 5])
def test_the_worst_prefix_may_give_all_the_best_continuations(num_beams: int) -> None:
    """So no row can be read less far: with one token less the result is another."""

    class NarrowRows(BeamSearch):
        def _row_need(self, length: int) -> int:
            return super()._row_need(length) - 1 if length else self._vocab_size

    # The first token decides: after the least likely of the live ones the mass lies on
    # num_beams tokens, after all others it is spread evenly over everything.
    flat = [1 / 40] * 40
    peaked = [0.9 / num_beams] * num_beams + [0.1 / (40 - num_beams)] * (40 - num_beams)
    start = [0.02] * num_beams + [0.001] * (40 - num_beams)
    start[num_beams - 1] = 0.0199
    after = [peaked if token == num_beams - 1 else flat for token in range(40)]
    table, limits = bigrams(start, after), DecodingLimits(2)
    options = {
        "vocab_size": 40,
        "num_beams": num_beams,
        "num_return_sequences": num_beams,
    }
    found = run(BeamSearch(PROMPT, limits, **options), table).hypotheses
    assert {h.token_ids[0] for h in found} == {num_beams - 1}
    assert run(NarrowRows(PROMPT, limits, **options), table).hypotheses != found
