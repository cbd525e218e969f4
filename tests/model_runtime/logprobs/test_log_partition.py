"""What divides a softmax at a temperature: against its definition, and in any crowd."""

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
from model_runtime.logprobs import log_partition as row_partitions
from model_runtime.logprobs.log_partition import log_partitions_of_rows
from model_runtime.logprobs.reduce import reduce_head_rows
from model_runtime.logprobs.set_mass import row_sums
from model_runtime.runner.unbatched_runner import UnbatchedModelRunner
from model_runtime.types import LogprobQuery, LogprobResult
from tests.conftest import TinyFolder
from tests.offline import Offline, eager_model
from tests.tiny_models import TINY_VOCAB

WIDE = 5003
TEMPERATURES = (0.01, 0.5, 1.0, 2.0, 1000.0)


def asks(path: tuple[int, ...], *temperatures: float, top_k: int = 0) -> LogprobQuery:
    """Log-partitions after a path."""
    return LogprobQuery(path, len(path), (), top_k, temperatures=temperatures)


def reduce(logits: Tensor, queries: Sequence[LogprobQuery]) -> list[LogprobResult]:
    """Answers to queries on paths of one token, whose id is the row of ``logits`` they read."""
    batch = plan([QueryProgress(query, 1) for query in queries], PrefixCache(256), 4096)
    rows = [batch.token_ids[row] for row in batch.head_rows]
    output = reduce_head_rows(logits[rows], lambda hidden: hidden, batch, logits.shape[1])
    return results_from_output(batch, output)  # type: ignore[return-value]


def defined(logits: Tensor, temperature: float) -> float:
    """The definition: the float32 log-probs of one row, exactly summed up."""
    row = (logits - logits.expand(2, -1).logsumexp(-1)[0]).tolist()
    best = max(row)
    return math.log(math.fsum(math.exp((value - best) / temperature) for value in row))


def random_logits(seed: int, rows: int, vocab_size: int = WIDE) -> Tensor:
    """Rows of logits, some of them impossible."""
    logits = 3 * torch.randn(rows, vocab_size, generator=torch.Generator().manual_seed(seed))
    return torch.where(logits < -6, -math.inf, logits)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    asked=st.lists(
        st.tuples(st.integers(0, 3), st.lists(st.floats(1e-3, 1e3), max_size=3)),
        min_size=1,
        max_size=6,
    ),
)
def test_each_log_partition_is_that_of_the_definition(
    seed: int, asked: list[tuple[int, list[float]]]
) -> None:
    """Several temperatures of a row, several rows and several queries of a row: as if alone."""
    logits = random_logits(seed, 4)
    results = reduce(logits, [asks((row,), *temperatures) for row, temperatures in asked])
    for (row, temperatures), result in zip(asked, results, strict=True):
        expected = [defined(logits[row], one) for one in temperatures]
        assert list(result.log_partitions) == pytest.approx(expected, abs=1e-12)
        alone = [reduce(logits, [asks((row,), t)])[0].log_partitions[0] for t in temperatures]
        assert list(result.log_partitions) == alone


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_it_gives_the_softmax_of_all_logits(temperature: float) -> None:
    """exp((logprob - best) / T - log_partition) is softmax(logits / T) in float64."""
    logits = random_logits(5, 1)
    (result,) = reduce(logits, [asks((0,), temperature, top_k=WIDE)])
    best = result.top[0][0].logprob
    found = [
        math.exp((t.logprob - best) / temperature - result.log_partitions[0]) for t in result.top[0]
    ]
    truth = (logits[0].double() / temperature).softmax(0)[[t.id for t in result.top[0]]]
    # A log-prob is rounded to float32, by half a millionth here.
    assert found == pytest.approx(truth.tolist(), rel=2e-6 / temperature, abs=1e-15)


def test_the_ends_of_the_scale() -> None:
    """The smallest temperature counts the best tokens, the largest all that are possible."""
    logits = random_logits(8, 1)
    logits[0, [7, 99, 4000]] = 40.0
    (result,) = reduce(logits, [asks((0,), 5e-324, 1e308)])
    possible = int(logits.isfinite().sum())
    assert 0 < possible < WIDE
    assert result.log_partitions == pytest.approx((math.log(3), math.log(possible)), abs=1e-12)


def test_what_is_added_up_at_a_time_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do threads, nor which rows are asked together."""
    logits = random_logits(6, 9)
    log_sum = logits.logsumexp(-1)
    asked = [(row, temperature) for row in range(9) for temperature in TEMPERATURES]
    expected = dict(log_partitions_of_rows(logits, log_sum, asked))
    threads = torch.get_num_threads()
    try:
        for elements, count in ((1, 1), (20_000, 2)):
            monkeypatch.setattr(row_partitions, "ELEMENTS", elements)
            torch.set_num_threads(count)
            assert dict(log_partitions_of_rows(logits, log_sum, asked[::-1])) == expected
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("width", [1, 2, 3, 8, 9, 1000, WIDE])
def test_rows_are_summed_up_whatever_their_width(width: int) -> None:
    """Every value once: of whole numbers the sum is exact."""
    values = torch.randint(-1000, 1000, (3, width), generator=torch.Generator().manual_seed(width))
    assert row_sums(values.double()).tolist() == values.sum(1).tolist()


def test_a_broken_row_fails_its_own_log_partition_alone() -> None:
    """A NaN among the logits is an error of the path it stands on, not of its neighbours."""
    logits = random_logits(7, 3)
    logits[1, 7] = math.nan
    first, broken, last = reduce(logits, [asks((row,), 0.7) for row in range(3)])
    assert isinstance(broken, NonFiniteLogits)
    assert first.log_partitions == pytest.approx([defined(logits[0], 0.7)])
    assert last.log_partitions == pytest.approx([defined(logits[2], 0.7)])


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3"])
def test_log_partitions_agree_with_the_reference(kind: str, tiny_folder: TinyFolder) -> None:
    """Of a real model those of a float64 softmax over everything, to what a log-prob is off."""
    path = tuple(random.Random(7).sample(range(TINY_VOCAB), 30))
    (result,) = Offline(tiny_folder(kind)).answer([asks(path, *TEMPERATURES)])
    truth = reference_logprobs(eager_model(tiny_folder(kind), torch.float64), path)[-1]
    for temperature, found in zip(TEMPERATURES, result.log_partitions, strict=True):
        exact = float(((truth - truth.max()) / temperature).logsumexp(0))
        assert found == pytest.approx(exact, abs=1e-4 * max(1, 1 / temperature))


def test_a_log_partition_is_the_same_alone_and_in_company(tiny_folder: TinyFolder) -> None:
    """Neighbours, other temperatures of the row, chunks, cached rows: they change no bit of it."""
    rng, offline = random.Random(11), Offline(tiny_folder("llama"))
    trunk = tuple(rng.randrange(TINY_VOCAB) for _ in range(150))
    queries = [
        LogprobQuery(
            trunk[:cut], max(1, cut - back), (4,), temperatures=(temperature, 0.7), keep=keep
        )
        for cut in (1, 40, 65, 150)
        for back, temperature in ((0, 0.3), (3, 2.0), (70, 1.0))
        for keep in (None, cut)
    ]
    alone = [Offline(tiny_folder("llama")).answer([query])[0] for query in queries]
    assert offline.answer(queries) == alone
    assert offline.answer(queries[::-1], budget=37) == alone[::-1]
    crowd = [
        LogprobQuery((token, *trunk[:9]), 1, (), 3, temperatures=(0.7,)) for token in range(64)
    ]
    assert offline.answer([*crowd, *queries])[64:] == alone


@pytest.mark.real_model
def test_the_default_model_says_the_same_in_a_crowd(real_model: Offline) -> None:
    """And what it says is the softmax of all that it lists."""
    rng = random.Random(3)
    paths = [tuple(rng.randrange(1000, 40_000) for _ in range(12)) for _ in range(40)]
    queries = [asks(path, 0.5, top_k=1) for path in paths]
    crowd = real_model.answer(queries)
    for place in (0, 17, 39):
        assert real_model.answer([queries[place]]) == [crowd[place]]
    (whole,) = real_model.answer([asks(paths[0], top_k=49_152)])
    best = whole.top[0][0].logprob
    exact = math.log(math.fsum(math.exp((token.logprob - best) / 0.5) for token in whole.top[0]))
    assert crowd[0].log_partitions == pytest.approx((exact,), abs=1e-12)


def test_the_plain_runner_tempers_alike(tiny_folder: TinyFolder) -> None:
    """Within rounding what path attention says."""
    query = asks(tuple(range(3, 40)), 0.5, 2.0)
    runner = UnbatchedModelRunner(eager_model(tiny_folder("llama")), 128)
    batch = runner.plan([QueryProgress(query, query.score_from)], 64)
    (plain,) = results_from_output(batch, runner.run(batch))
    (fast,) = Offline(tiny_folder("llama")).answer([query])
    assert isinstance(plain, LogprobResult)
    assert plain.log_partitions == pytest.approx(fast.log_partitions, abs=1e-4)
