"""What a ``TopKSelection`` lists: against definitions on random logits, and on real tiny models."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model_runtime.batching.batch import QueryProgress, results_from_output
from model_runtime.batching.planner import plan
from model_runtime.errors import NonFiniteLogits
from model_runtime.kv_cache.prefix_cache import PrefixCache
from model_runtime.loading.reference import reference_logprobs
from model_runtime.logprobs.reduce import reduce_head_rows
from model_runtime.logprobs.top_k import NARROWEST, top_tokens
from model_runtime.scheduling.query_validation import QueryValidator
from model_runtime.token_set import TokenSet
from model_runtime.types import (
    LogprobQuery,
    LogprobResult,
    RankedLogprob,
    TokenLogprob,
    TopKSelection,
)
from tests.conftest import TinyFolder
from tests.offline import Offline, eager_model
from tests.tiny_models import TINY_VOCAB

WIDE = 3 * NARROWEST + 5
"""A vocabulary that is searched block by block."""


def asks(path: tuple[int, ...], choice: TopKSelection | None, **also: object) -> LogprobQuery:
    """A choice after a path."""
    return LogprobQuery(path, len(path), (), choice=choice, **also)  # type: ignore[arg-type]


def reduce(logits: Tensor, queries: Sequence[LogprobQuery]) -> list[LogprobResult]:
    """Answers to queries on paths of one token, whose id is the row of ``logits`` they read."""
    works = [QueryProgress(query, 1) for query in queries]
    batch = plan(works, PrefixCache(256), 4096)
    rows = [batch.token_ids[row] for row in batch.head_rows]
    output = reduce_head_rows(logits[rows], lambda hidden: hidden, batch, logits.shape[1])
    return results_from_output(batch, output)  # type: ignore[return-value]


def listed(logits: Tensor, choice: TopKSelection) -> tuple[RankedLogprob, ...]:
    """The definition: one row, one token after the other."""
    row: list[float] = logits.tolist()
    logprobs: list[float] = (logits - logits.expand(2, -1).logsumexp(-1)[0]).tolist()
    found = [
        RankedLogprob(i, logprobs[i], 1 + sum(other > row[i] for other in row))
        for i in sorted(range(len(row)), key=lambda i: (-row[i], i))
        if (choice.allowed is None or i in choice.allowed)
        and logprobs[i] > -math.inf
        and (choice.floor is None or logprobs[i] >= choice.floor)
    ]
    return tuple(found[: choice.count])


def random_logits(seed: int, rows: int, vocab_size: int, *, ties: bool) -> Tensor:
    """Rows of logits; with ``ties`` of few different values, some of them impossible."""
    logits = 3 * torch.randn(rows, vocab_size, generator=torch.Generator().manual_seed(seed))
    return torch.where(logits < -4, -math.inf, logits.round()) if ties else logits


@st.composite
def choices(draw: st.DrawFn) -> TopKSelection:
    """Few or many tokens, of all, of nearly all, of half, or of a few."""
    ids = range(TINY_VOCAB)
    few = st.frozensets(st.sampled_from(ids), min_size=1, max_size=20).map(tuple)
    kept = draw(
        st.one_of(
            st.none(),
            few.map(lambda some: [i for i in ids if i not in some]),
            st.integers(2, 4).map(lambda step: ids[::step]),
            few,
        )
    )
    return TopKSelection(
        count=draw(st.sampled_from((1, 2, 9, 40, TINY_VOCAB + 1))),
        floor=draw(st.sampled_from((None, -4.0, -9.5, 0.0))),
        allowed=None if kept is None else TokenSet.of(kept, TINY_VOCAB),
    )


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    asked=st.lists(st.tuples(st.integers(0, 3), choices()), min_size=1, max_size=6),
    ties=st.booleans(),
)
def test_each_choice_is_listed_by_the_definition(
    seed: int, asked: list[tuple[int, TopKSelection]], ties: bool
) -> None:
    """Several choices of a row and several rows in a batch: each as if it were alone."""
    logits = random_logits(seed, 4, TINY_VOCAB, ties=ties)
    results = reduce(logits, [asks((row,), choice) for row, choice in asked])
    for (row, choice), result in zip(asked, results, strict=True):
        assert result.choices == listed(logits[row], choice)
        assert result.top == ()


@pytest.mark.parametrize("count", [1, 9, 100, 1500, WIDE])
@pytest.mark.parametrize("ties", [False, True])
def test_blocks_find_the_largest_of_a_wide_row(count: int, ties: bool) -> None:
    """In a wide vocabulary the same tokens come out as of sorting it, the last columns too."""
    logits = random_logits(count, 3, WIDE, ties=ties)
    logits[1, -1] = 99.0
    values, ids = top_tokens(logits, count)
    expected = logits.sort(dim=1, descending=True, stable=True)
    assert torch.equal(values, expected.values[:, :count])
    assert torch.equal(ids, expected.indices[:, :count])


@pytest.mark.parametrize("count", [1, 30])
def test_allowed_tokens_of_a_wide_row_have_their_ranks_in_all_of_it(count: int) -> None:
    """Few and many allowed ids, few and many listed: ranks count the tokens left out as well."""
    logits = random_logits(count, 2, WIDE, ties=False)
    sets = [range(3, 60, 9), range(0, WIDE, 3), [i for i in range(WIDE) if i % 700]]
    for ids in sets:
        choice = TopKSelection(count, allowed=TokenSet.of(ids, WIDE))
        results = reduce(logits, [asks((0,), choice), asks((1,), choice)])
        for row, result in zip(logits, results, strict=True):
            ranks = [1 + int((row > row[token.id]).sum()) for token in result.choices]
            assert [token.rank for token in result.choices] == ranks
            best = sorted(ids, key=lambda i: -float(row[i]))[:count]
            assert [token.id for token in result.choices] == best


def test_a_broken_row_fails_its_own_choice_alone() -> None:
    """A NaN among the logits is an error of the path it stands on, not of its neighbours."""
    logits = random_logits(3, 3, TINY_VOCAB, ties=False)
    logits[1, 7] = math.nan
    own = [TopKSelection(2), TopKSelection(1, allowed=TokenSet.of((4, 5), TINY_VOCAB))]
    results = reduce(logits, [asks((row,), choice) for choice in own for row in range(3)])
    for number, result in enumerate(results):
        row, choice = number % 3, own[number // 3]
        if row == 1:
            assert isinstance(result, NonFiniteLogits)
        else:
            assert result.choices == listed(logits[row], choice)


def test_nothing_above_the_floor_is_no_error() -> None:
    """A choice may list nothing."""
    logits = random_logits(5, 1, TINY_VOCAB, ties=False)
    (result,) = reduce(logits, [asks((0,), TopKSelection(9, floor=-1e-9))])
    assert result.choices == ()


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_choices_agree_with_the_reference(kind: str, tiny_folder: TinyFolder) -> None:
    """Of a real model, masked and not: log-probs within 1e-4 nats, and ranks, of float64."""
    path = tuple(random.Random(7).sample(range(TINY_VOCAB), 30))
    half = TokenSet.of(range(1, TINY_VOCAB, 2), TINY_VOCAB)
    offline = Offline(tiny_folder(kind))
    free, odd = offline.answer(
        [asks(path, TopKSelection(TINY_VOCAB)), asks(path, TopKSelection(50, -9.0, half))]
    )
    truth = reference_logprobs(eager_model(tiny_folder(kind), torch.float64), path)[-1].tolist()
    assert len(free.choices) == TINY_VOCAB
    for token in free.choices:
        assert token.logprob == pytest.approx(truth[token.id], abs=1e-4)
        assert abs(token.rank - 1 - sum(value > truth[token.id] for value in truth)) <= 1
    expected = [t for t in free.choices if t.id in half and t.logprob >= -9.0]
    assert odd.choices == tuple(expected[:50])


def test_numbers_are_those_of_the_same_ids_asked_by_name(tiny_folder: TinyFolder) -> None:
    """Log-prob and rank of a listed token are, to the bit, those of a target and of the top k."""
    path, ids = (5, 6, 7), tuple(range(TINY_VOCAB))
    query = LogprobQuery(path, 3, ids, top_k=9, choice=TopKSelection(TINY_VOCAB))
    (result,) = Offline(tiny_folder("smollm")).answer([query])
    named = zip(ids, result.target_logprobs, result.target_ranks, strict=True)
    assert sorted(result.choices) == [RankedLogprob(*token) for token in named]
    assert result.top[0] == tuple(TokenLogprob(t.id, t.logprob) for t in result.choices[:9])


def test_a_choice_is_the_same_alone_and_in_company(tiny_folder: TinyFolder) -> None:
    """Neighbours, other choices of the same row and chunks of the path change no bit of it."""
    rng, offline = random.Random(11), Offline(tiny_folder("llama"))
    trunk = tuple(rng.randrange(TINY_VOCAB) for _ in range(150))
    allowed = [None, TokenSet.of(range(0, 99, 7), TINY_VOCAB), TokenSet.of((3, 8), TINY_VOCAB)]
    queries = [
        asks(trunk[:cut], TopKSelection(count, floor, ids))
        for cut in (1, 40, 65, 150)
        for count, floor, ids in zip((1, 70, 3), (None, -8.0, None), allowed, strict=True)
    ]
    alone = [Offline(tiny_folder("llama")).answer([query])[0] for query in queries]
    assert offline.answer(queries) == alone
    assert offline.answer(queries[::-1], budget=37) == alone[::-1]


@pytest.mark.parametrize(
    ("choice", "targets", "param"),
    [
        (TopKSelection(0), (), "count"),
        (TopKSelection(1, floor=math.nan), (), "floor"),
        (TopKSelection(1, floor=-math.inf), (), "floor"),
        (TopKSelection(1, allowed=TokenSet.of((), 4)), (), "allowed"),
        (TopKSelection(1, allowed=TokenSet.of((4,), 5)), (), None),
        (TopKSelection(1, allowed=TokenSet.of((2,), 3)), (), None),
        (TopKSelection(1), None, "choice"),
    ],
)
def test_an_impossible_choice_is_refused(
    choice: TopKSelection, targets: tuple[int, ...] | None, param: str | None
) -> None:
    """Before anything is computed, by the field at fault."""
    limits = QueryValidator(vocab_size=4, max_model_len=9, capacity=7)
    error = limits.check(LogprobQuery((1, 2), 1, targets, choice=choice))
    assert error is not None and error.param == param
    assert limits.check(LogprobQuery((1, 2), 1, (), choice=TopKSelection(9, -1.0))) is None
