"""Exact search on random tables: brute force agrees, and no certificate ever lies."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_runtime.decoding.best_first import expansion_queries
from model_runtime.decoding.best_first.exact import ExactSearch
from model_runtime.decoding.constraints.closed_set import ClosedSet
from model_runtime.decoding.constraints.stop_strings import StopStrings
from model_runtime.decoding.hypothesis import DecodingResult, FinishReason
from model_runtime.decoding.limits import DecodingLimits
from tests.model_runtime.decoding.brute_force import Completion, completions, k_best
from tests.model_runtime.decoding.table import (
    PROMPT,
    NextLogprobs,
    answer,
    beam,
    letters,
    random_table,
    run,
)

TABLES_A_SEED = 250
ALPHAS = [-1.0, -0.3, 0.0, 0.0, 0.5, 1.0, 2.0]


class Case:
    """A random table, limits, and how it is searched."""

    def __init__(self, source: random.Random) -> None:
        self.vocab_size = source.randint(2, 4)
        longest = 5 if self.vocab_size < 4 else 4
        max_tokens = source.randint(1, longest)
        ends = source.sample(range(self.vocab_size), source.randint(0, min(2, self.vocab_size - 1)))
        stops = ["".join(source.choices("abcd", k=source.randint(1, 2))) for _ in range(2)]
        self.limits = DecodingLimits(
            max_tokens,
            source.randint(0, max_tokens) if source.random() < 0.4 else 0,
            frozenset(ends),
            StopStrings([s.encode() for s in stops], letters) if source.random() < 0.4 else None,
        )
        self.table = random_table(source.randrange(10**9), self.vocab_size, source.choice([0.5, 2]))
        self.alpha = source.choice(ALPHAS)
        self.k = source.randint(1, 5)
        self.width = source.choice([1, 3, 32])
        may_end = (ends or self.limits.stop) and self.limits.min_tokens < max_tokens
        self.feasible = source.choice(["any", "ended"]) if may_end else "any"

    def search(self, **options: Any) -> ExactSearch:
        settings = {"num_return_sequences": self.k, "width": self.width, "num_beams": 2}
        return ExactSearch(
            PROMPT,
            self.limits,
            vocab_size=self.vocab_size,
            length_penalty=self.alpha,
            feasible=self.feasible,  # type: ignore[arg-type]
            **{"max_expansions": 10**5} | settings | options,
        )

    def everything(self) -> list[Completion]:
        found = completions(self.table, self.limits, self.vocab_size)
        return [each for each in found if each.ended or self.feasible == "any"]

    def truth(self) -> list[float]:
        return k_best(self.everything(), self.alpha, self.k)


def scores(result: DecodingResult) -> list[float]:
    return [hypothesis.score for hypothesis in result.hypotheses]


def step(search: ExactSearch, table: NextLogprobs) -> None:
    search.advance([answer(query, table) for query in search.queries()])


@pytest.mark.parametrize("count", [1, 2, 64])
@pytest.mark.parametrize("seed", range(4))
def test_the_k_best_are_those_of_brute_force(
    seed: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On thousands of random tables, however few continuations are asked for at a time."""
    monkeypatch.setattr(expansion_queries, "FIRST_COUNT", count)
    source = random.Random(f"{seed} {count}")
    for _ in range(TABLES_A_SEED):
        case = Case(source)
        result, truth = run(case.search(), case.table), case.truth()
        assert scores(result) == truth
        assert len({found.token_ids for found in result.hypotheses}) == len(truth)
        certificate = result.certificate
        assert certificate is not None
        assert certificate.optimal
        assert certificate.gap == (0.0 if truth else None)
        assert certificate.upper_bound == (truth[0] if truth else None)


@pytest.mark.parametrize("seed", range(3))
def test_a_search_that_is_ended_early_tells_the_truth(seed: int) -> None:
    """After any round the best lies between the best so far and the upper bound."""
    source = random.Random(f"early {seed}")
    for _ in range(200):
        case = Case(source)
        truth = case.truth()
        search = case.search(width=1, num_beams=source.randint(1, 3))
        assert not search.finish_early()
        for _ in range(source.randint(1, 6)):
            if not search.done:
                step(search, case.table)
        assert search.finish_early()
        check(search.result(), truth, case.k)


@pytest.mark.parametrize("seed", range(3))
def test_a_search_out_of_budget_tells_the_truth(seed: int) -> None:
    """With any budget it asks no more than that, and its certificate holds."""
    source = random.Random(f"budget {seed}")
    for _ in range(200):
        case = Case(source)
        budget = source.randint(1, 12)
        search = case.search(max_expansions=budget)
        asked = 0
        while not search.done:
            asked += len(search.queries())
            step(search, case.table)
        assert asked <= budget
        result = search.result()
        assert result.certificate is not None
        assert result.certificate.expanded <= asked
        check(result, case.truth(), case.k)


def check(result: DecodingResult, truth: Sequence[float], k: int) -> None:
    """Whether what is claimed of a result is true of the ``k`` best scores."""
    found, certificate = scores(result), result.certificate
    assert certificate is not None
    assert found == sorted(found, reverse=True)
    assert all(score <= best for score, best in zip(found, truth, strict=False))
    if certificate.optimal:
        assert found == truth
    if truth:
        assert certificate.upper_bound is not None
        assert certificate.upper_bound >= truth[0]
    if not found:
        assert certificate.gap is None
        return
    assert certificate.gap is not None
    # Whatever is missing among the best exceeds the last one returned by at most the gap.
    missing = [score for score in truth if score not in found]
    if len(found) == k:
        assert max(missing, default=found[-1]) <= found[-1] + certificate.gap + 1e-12
    if k == 1:
        assert certificate.upper_bound is not None
        assert certificate.gap == certificate.upper_bound - found[0]


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), num_beams=st.integers(1, 5))
def test_exact_is_never_worse_than_beam_search(seed: int, num_beams: int) -> None:
    """Both search the same set, and what the beam search finds is found at its own cost."""
    limits = DecodingLimits(5, 0, frozenset({1}))
    table = random_table(seed, 6)
    (best,) = beam(table, limits, vocab_size=6, num_beams=num_beams, length_penalty=0.0)
    search = ExactSearch(
        PROMPT, limits, vocab_size=6, num_beams=num_beams, max_expansions=1 + 4 * num_beams
    )
    (found,) = run(search, table).hypotheses
    assert found.score >= best.score


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 10**6),
    paths=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=9),
    end=st.booleans(),
    feasible=st.sampled_from(["any", "ended"]),
    alpha=st.sampled_from(ALPHAS),
    min_tokens=st.integers(0, 2),
)
def test_a_closed_set_is_ranked_as_if_each_candidate_were_scored(
    seed: int, paths: list[list[int]], end: bool, feasible: Any, alpha: float, min_tokens: int
) -> None:
    """All candidates come back in order, with the score that each has by itself."""
    table = random_table(seed, 5)
    constraint = ClosedSet(paths, 5, end=end)
    limits = DecodingLimits(5, min_tokens, frozenset({4}), constraint=constraint)
    whole = {tuple(path) + ((4,) if end else ()) for path in paths}
    whole = {path for path in whole if len(path) >= min_tokens + end}
    expected = {path: scored(table, path, alpha) for path in whole}
    search = ExactSearch(
        PROMPT,
        limits,
        vocab_size=5,
        num_return_sequences=20,
        length_penalty=alpha,
        feasible=feasible,
        max_expansions=1000,
    )
    result = run(search, table)
    assert {found.token_ids: found.score for found in result.hypotheses} == expected
    assert scores(result) == sorted(expected.values(), reverse=True)
    reason = FinishReason.END if end else FinishReason.COMPLETE
    assert all(found.finish_reason is reason for found in result.hypotheses)
    assert result.certificate is not None
    assert result.certificate.optimal


def scored(table: NextLogprobs, path: tuple[int, ...], alpha: float) -> float:
    logprob = 0.0
    for place, token_id in enumerate(path):
        logprob += table(path[:place])[token_id]
    return logprob / float(len(path) ** alpha)
