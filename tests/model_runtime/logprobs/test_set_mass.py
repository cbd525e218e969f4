"""What a set of tokens weighs: against a definition on random logits, and on real tiny models."""

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
from model_runtime.errors import NonFiniteLogits, TokenIdOutOfRange
from model_runtime.kv_cache.prefix_cache import PrefixCache
from model_runtime.loading.reference import reference_logprobs
from model_runtime.logprobs import set_mass
from model_runtime.logprobs.reduce import reduce_head_rows
from model_runtime.logprobs.set_mass import MANY, ids_of, set_logprobs_of_rows
from model_runtime.runner.unbatched_runner import UnbatchedModelRunner
from model_runtime.scheduling.query_validation import QueryValidator
from model_runtime.token_set import TokenSet
from model_runtime.types import LogprobQuery, LogprobResult
from tests.conftest import TinyFolder
from tests.offline import Offline, eager_model
from tests.tiny_models import TINY_VOCAB

WIDE = 5003


def asks(
    path: tuple[int, ...], *token_sets: TokenSet, targets: tuple[int, ...] = ()
) -> LogprobQuery:
    """Sums over sets of tokens after a path."""
    return LogprobQuery(path, len(path), targets, token_sets=token_sets)


def reduce(logits: Tensor, queries: Sequence[LogprobQuery]) -> list[LogprobResult]:
    """Answers to queries on paths of one token, whose id is the row of ``logits`` they read."""
    batch = plan([QueryProgress(query, 1) for query in queries], PrefixCache(256), 4096)
    rows = [batch.token_ids[row] for row in batch.head_rows]
    output = reduce_head_rows(logits[rows], lambda hidden: hidden, batch, logits.shape[1])
    return results_from_output(batch, output)  # type: ignore[return-value]


def weighed(logits: Tensor, tokens: TokenSet) -> float:
    """The definition: the float32 log-probs of one row, exactly summed up."""
    row = (logits - logits.expand(2, -1).logsumexp(-1)[0]).tolist()
    mass = math.fsum(math.exp(row[token_id]) for token_id in tokens)
    return math.log(mass) if mass else -math.inf


def random_logits(seed: int, rows: int, vocab_size: int = WIDE) -> Tensor:
    """Rows of logits, some of them impossible."""
    logits = 3 * torch.randn(rows, vocab_size, generator=torch.Generator().manual_seed(seed))
    return torch.where(logits < -6, -math.inf, logits)


def sets(vocab_size: int) -> st.SearchStrategy[TokenSet]:
    """None, few, many and all tokens."""
    ids = st.frozensets(st.integers(0, vocab_size - 1), max_size=40)
    steps = st.integers(1, 60).map(lambda step: range(0, vocab_size, step))
    return st.one_of(ids, steps).map(lambda some: TokenSet.of(some, vocab_size))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    asked=st.lists(
        st.tuples(st.integers(0, 3), st.lists(sets(WIDE), max_size=3)), min_size=1, max_size=6
    ),
)
def test_each_mass_is_that_of_the_definition(
    seed: int, asked: list[tuple[int, list[TokenSet]]]
) -> None:
    """Several sets of a row, several rows and several queries of a row: each as if alone."""
    logits = random_logits(seed, 4)
    results = reduce(logits, [asks((row,), *tokens) for row, tokens in asked])
    for (row, tokens), result in zip(asked, results, strict=True):
        expected = [weighed(logits[row], one) for one in tokens]
        assert list(result.set_logprobs) == pytest.approx(expected, abs=1e-13)
        alone = [reduce(logits, [asks((row,), one)])[0].set_logprobs[0] for one in tokens]
        assert list(result.set_logprobs) == alone


def test_a_single_token_weighs_its_log_prob_to_the_bit() -> None:
    """And the log-prob is the one that the token is given where it is asked by name."""
    logits, ids = random_logits(3, 1), tuple(range(0, WIDE, 7))
    singles = [TokenSet.of((token_id,), WIDE) for token_id in ids]
    (result,) = reduce(logits, [asks((0,), *singles, targets=ids)])
    assert result.set_logprobs == result.target_logprobs


def test_every_token_together_weighs_one_and_no_token_nothing() -> None:
    """Of a mass of zero the log is minus infinity, also where tokens are in the set."""
    logits = random_logits(4, 1)
    logits[0, 5] = -math.inf
    all_of_them, none, impossible = (
        TokenSet.all(WIDE),
        TokenSet.of((), WIDE),
        TokenSet.of((5,), WIDE),
    )
    (result,) = reduce(logits, [asks((0,), all_of_them, none, impossible)])
    assert result.set_logprobs == (pytest.approx(0.0, abs=1e-6), -math.inf, -math.inf)


def test_what_is_added_up_at_a_time_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do threads: the order of a sum is that of its own set's size."""
    logits = random_logits(6, 9)
    log_sum = logits.logsumexp(-1)
    kinds = [TokenSet.of(range(start, WIDE, step), WIDE) for start in (0, 1) for step in (1, 9)]
    asked = [(row, tokens) for row in range(9) for tokens in kinds]
    expected = dict(set_logprobs_of_rows(logits, log_sum, asked))
    threads = torch.get_num_threads()
    try:
        for elements, count in ((1, 1), (20_000, 2)):
            monkeypatch.setattr(set_mass, "ELEMENTS", elements)
            torch.set_num_threads(count)
            assert dict(set_logprobs_of_rows(logits, log_sum, asked[::-1])) == expected
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("count", [0, 1, MANY, MANY + 1, WIDE])
def test_ids_of_a_set_ascend(count: int) -> None:
    """Listed one by one or spread out together."""
    ids = sorted(random.Random(count).sample(range(WIDE), count))
    assert ids_of(TokenSet.of(ids, WIDE)).tolist() == ids


def test_a_broken_row_fails_its_own_masses_alone() -> None:
    """A NaN among the logits is an error of the path it stands on, not of its neighbours."""
    logits = random_logits(7, 3)
    logits[1, 7] = math.nan
    odd = TokenSet.of(range(1, WIDE, 2), WIDE)
    first, broken, last = reduce(logits, [asks((row,), odd) for row in range(3)])
    assert isinstance(broken, NonFiniteLogits)
    assert first.set_logprobs == pytest.approx([weighed(logits[0], odd)])
    assert last.set_logprobs == pytest.approx([weighed(logits[2], odd)])


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3"])
def test_masses_agree_with_the_reference(kind: str, tiny_folder: TinyFolder) -> None:
    """Of a real model within 1e-4 nats of float64."""
    path = tuple(random.Random(7).sample(range(TINY_VOCAB), 30))
    kinds = [TokenSet.of(range(0, TINY_VOCAB, step), TINY_VOCAB) for step in (1, 3, 200)]
    (result,) = Offline(tiny_folder(kind)).answer([asks(path, *kinds)])
    truth = reference_logprobs(eager_model(tiny_folder(kind), torch.float64), path)[-1]
    expected = [float(truth[list(tokens)].logsumexp(0)) for tokens in kinds]
    assert list(result.set_logprobs) == pytest.approx(expected, abs=1e-4)


def test_a_mass_is_the_same_alone_and_in_company(tiny_folder: TinyFolder) -> None:
    """Neighbours, other masses of the same row and chunks of the path change no bit of it."""
    rng, offline = random.Random(11), Offline(tiny_folder("llama"))
    trunk = tuple(rng.randrange(TINY_VOCAB) for _ in range(150))
    kinds = [TokenSet.of(range(start, TINY_VOCAB, 3), TINY_VOCAB) for start in range(3)]
    few = TokenSet.of(rng.sample(range(TINY_VOCAB), 5), TINY_VOCAB)
    queries = [
        LogprobQuery(trunk[:cut], max(1, cut - back), (4,), token_sets=(tokens, few))
        for cut in (1, 40, 65, 150)
        for back, tokens in zip((0, 3, 70), kinds, strict=True)
    ]
    alone = [Offline(tiny_folder("llama")).answer([query])[0] for query in queries]
    assert offline.answer(queries) == alone
    assert offline.answer(queries[::-1], budget=37) == alone[::-1]


def test_the_plain_runner_weighs_alike(tiny_folder: TinyFolder) -> None:
    """Within rounding what path attention says, and to the bit what it says of the tokens."""
    path, thirds = tuple(range(3, 40)), TokenSet.of(range(0, TINY_VOCAB, 3), TINY_VOCAB)
    query = asks(path, thirds, TokenSet.of((9,), TINY_VOCAB), targets=(9,))
    runner = UnbatchedModelRunner(eager_model(tiny_folder("llama")), 128)
    batch = runner.plan([QueryProgress(query, query.score_from)], 64)
    (plain,) = results_from_output(batch, runner.run(batch))
    (fast,) = Offline(tiny_folder("llama")).answer([query])
    assert isinstance(plain, LogprobResult)
    assert plain.set_logprobs == pytest.approx(fast.set_logprobs, abs=1e-4)
    assert plain.set_logprobs[1:] == plain.target_logprobs


def test_impossible_masses_are_refused() -> None:
    """Before anything is computed: without the row that they are of, or of other vocabularies."""
    limits = QueryValidator(vocab_size=4, max_model_len=9, capacity=7)
    mass = TokenSet.of((1, 2), 4)
    error = limits.check(LogprobQuery((1, 2), 1, token_sets=(mass,)))
    assert error is not None and error.param == "token_sets"
    for size in (3, 5):
        foreign = asks((1, 2), mass, TokenSet.of((2,), size))
        assert isinstance(limits.check(foreign), TokenIdOutOfRange)
    assert limits.check(asks((1, 2), mass, TokenSet.of((), 4))) is None
