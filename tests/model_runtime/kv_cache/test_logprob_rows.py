"""Rows of cached tokens that are asked again: recalled, with the bits they had."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest

from model_runtime.config import EngineConfig
from model_runtime.engine import Engine
from model_runtime.kv_cache.logprob_rows import (
    MOST_SCORED,
    MOST_TOP,
    ROW_BYTES,
    SCORED_BYTES,
    LogprobRowCache,
    row_budget,
)
from model_runtime.kv_cache.prefix_cache import PrefixCache
from model_runtime.types import LogprobQuery, LogprobResult, TokenLogprob
from tests.conftest import TinyFolder
from tests.model_runtime.on_loop import on_loop
from tests.offline import Offline
from tests.tiny_models import TINY_VOCAB


def prompt(tokens: tuple[int, ...], top_k: int = 1) -> LogprobQuery:
    """All rows of a path that stays in the cache, and the one behind it."""
    return LogprobQuery(tokens, 1, (), top_k, keep=len(tokens))


def random_tokens(count: int, seed: int) -> tuple[int, ...]:
    rng = random.Random(seed)
    return tuple(rng.randrange(TINY_VOCAB) for _ in range(count))


def fed(offline: Offline) -> int:
    """Tokens of the last batch."""
    return len(offline.batches[-1].token_ids)


@pytest.mark.parametrize("kind", ["llama", "gemma3", "gpt2"])
def test_a_prompt_asked_again_feeds_its_last_token(kind: str, tiny_folder: TinyFolder) -> None:
    """Its rows are recalled; only the one behind it, which nobody keeps, is computed."""
    offline, path = Offline(tiny_folder(kind)), random_tokens(90, 1)
    first = offline.answer([prompt(path)])
    again = offline.answer([prompt(path)])
    assert again == first
    assert fed(offline) == 1
    assert len(offline.batches[-1].head_rows) == 1


def test_prompts_that_part_feed_what_they_do_not_share(tiny_folder: TinyFolder) -> None:
    """Four choices behind one question: the question is computed with the first."""
    question, kind = random_tokens(80, 2), "llama"
    choices = [question + random_tokens(5, seed) for seed in range(4)]
    offline = Offline(tiny_folder(kind))
    apart = [offline.answer([prompt(path)])[0] for path in choices]
    assert [len(batch.token_ids) for batch in offline.batches] == [85, 6, 6, 6]
    assert [len(batch.head_rows) for batch in offline.batches] == [85, 6, 6, 6]
    assert apart == Offline(tiny_folder(kind)).answer([prompt(path) for path in choices])


def test_a_longer_list_is_computed_and_then_kept(tiny_folder: TinyFolder) -> None:
    """Rows with fewer listed tokens than asked do not answer; those with more do."""
    offline, path = Offline(tiny_folder("llama")), random_tokens(40, 3)
    offline.answer([prompt(path, 1)])
    (long,) = offline.answer([prompt(path, 5)])
    assert fed(offline) == 40
    (short,) = offline.answer([prompt(path, 2)])
    assert fed(offline) == 1
    assert short.top == tuple(row[:2] for row in long.top)
    assert short.logprobs == long.logprobs


def test_a_log_partition_behind_recalled_rows_is_computed(tiny_folder: TinyFolder) -> None:
    """It is of the row behind the path, which is never recalled; its bits are as ever."""
    offline, path = Offline(tiny_folder("llama")), random_tokens(40, 10)
    tempered = replace(prompt(path), temperatures=(0.5, 2.0))
    (fresh,) = Offline(tiny_folder("llama")).answer([tempered])
    offline.answer([prompt(path)])
    for _ in range(2):
        assert offline.answer([tempered]) == [fresh]
        assert fed(offline) == 1


@pytest.mark.parametrize("change", [{"summary": True}, {"top_k": MOST_TOP + 1}])
def test_what_is_not_kept_is_computed(change: dict[str, object], tiny_folder: TinyFolder) -> None:
    """Entropies and long lists are asked of the model every time, and are right."""
    offline, path = Offline(tiny_folder("llama")), random_tokens(30, 4)
    plain = offline.answer([prompt(path)])[0]
    other = replace(prompt(path), **change)  # type: ignore[arg-type]
    (rich,) = offline.answer([other])
    assert fed(offline) == 30
    assert rich.logprobs == plain.logprobs
    assert offline.answer([other]) == [rich]
    assert fed(offline) == 30


def test_a_prompt_cut_by_the_budget_is_kept_in_parts(tiny_folder: TinyFolder) -> None:
    """Chunks keep what they answer, and what was recalled is not kept under other tokens."""
    path, longer = random_tokens(64, 5), random_tokens(64, 5) + random_tokens(40, 6)
    offline = Offline(tiny_folder("qwen3"))
    offline.answer([prompt(path)], budget=17)
    (chunked,) = offline.answer([prompt(longer)], budget=17)
    assert sum(len(batch.token_ids) for batch in offline.batches) == 64 + 41
    (again,) = offline.answer([prompt(longer)])
    assert fed(offline) == 1
    (whole,) = Offline(tiny_folder("qwen3")).answer([prompt(longer)])
    assert chunked == whole == again


def test_evicted_rows_are_computed_again(tiny_folder: TinyFolder) -> None:
    """In a cache too small for two prompts each pushes out the other, and none is mistaken."""
    offline = Offline(tiny_folder("llama"))
    one, other = prompt(random_tokens(50, 7)), prompt(random_tokens(50, 8))
    fresh = [offline.answer([query])[0] for query in (one, other)]
    offline.cache = PrefixCache(60)
    for query, answer in [(one, fresh[0]), (other, fresh[1])] * 2:
        assert offline.answer([query]) == [answer]
        assert fed(offline) > 40


def test_scores_are_not_kept_unless_asked(tiny_folder: TinyFolder) -> None:
    """A query that keeps its context alone leaves no rows behind."""
    offline, path = Offline(tiny_folder("llama")), random_tokens(40, 9)
    offline.answer([LogprobQuery(path, 30)])
    offline.answer([prompt(path)])
    assert fed(offline) == 40


def test_a_slot_that_is_given_away_forgets() -> None:
    """What was known of a slot ends with it."""
    rows, query = LogprobRowCache(1 << 20), LogprobQuery((1, 2, 3), 1, (), 1, keep=3)
    top = ((TokenLogprob(2, -0.5),), (TokenLogprob(3, -0.25),))
    answer = LogprobResult((-0.5, -0.25), (1, 1), top=top)
    rows.insert((7, 8), query, 1, answer)
    assert rows.lookup((7, 8), query, 1) == answer
    rows.invalidate((7,))
    assert rows.lookup((7, 8), query, 1) == LogprobResult()
    assert rows.lookup((8,), query, 2).logprobs == (-0.25,)
    assert len(rows) == 1


LARGE_VOCABULARY = 250_000


def keep_rows(rows: LogprobRowCache, slots: range, top: int, scored: int) -> None:
    """So many listed and scored tokens in each row, with ids and ranks as large ones have them."""
    rng = random.Random(top)

    def token_id() -> int:
        return rng.randrange(300, LARGE_VOCABULARY)

    for slot in slots:
        for _ in range(scored):
            listed = tuple(TokenLogprob(token_id(), rng.random()) for _ in range(top))
            answer = LogprobResult((rng.random(),), (token_id(),), top=(listed,))
            rows.insert((slot,), LogprobQuery((1, token_id()), 1, (), top, keep=2), 1, answer)


def traced(work: Callable[[], object]) -> int:
    """Bytes that are taken once it is done."""
    gc.collect()
    tracemalloc.start()
    try:
        held = work()
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
        del held
        return taken
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("top", "scored"), [(0, 1), (1, 1), (8, 1), (1, 6), (8, 22), (8, 64)])
@pytest.mark.parametrize("count", [90, 175])
def test_counted_bytes_are_those_that_are_taken(top: int, scored: int, count: int) -> None:
    """Never fewer than there are, and not many more, however full the tables happen to be."""
    rows = LogprobRowCache(1 << 30)
    taken = traced(lambda: keep_rows(rows, range(1000, 1000 + count), top, scored))
    assert taken <= rows.bytes <= 1.5 * taken


def test_rows_of_a_large_vocabulary_stay_within_their_bytes() -> None:
    """Ten times as many as fit: those kept last are there, the others are gone from memory."""
    bound = 200_000
    rows = LogprobRowCache(bound)
    taken = traced(lambda: keep_rows(rows, range(1000, 2000), MOST_TOP, 1))
    assert taken <= bound
    assert 0.9 * bound < rows.bytes <= bound
    assert 50 < len(rows) < 200
    rows.invalidate(range(1000, 2000))
    assert (len(rows), rows.bytes) == (0, 0)


def test_of_a_path_that_is_too_long_the_beginning_is_kept() -> None:
    """Rows behind one that is not known could not be recalled."""
    path = tuple(range(1, 8))
    answer = LogprobResult((-1.0,) * 6, (1,) * 6)
    rows = LogprobRowCache(3 * (ROW_BYTES + SCORED_BYTES))
    rows.insert(range(10, 16), prompt(path, 0), 1, answer)
    assert len(rows.lookup(range(10, 16), prompt(path, 0), 1).logprobs) == 3


def test_what_was_recalled_outlives_what_was_not() -> None:
    """Age counts from the last use."""
    answer, query = LogprobResult((-1.0,), (1,)), LogprobQuery((1, 2), 1, keep=2)
    rows = LogprobRowCache(2 * (ROW_BYTES + SCORED_BYTES))
    rows.insert((7,), query, 1, answer)
    rows.insert((8,), query, 1, answer)
    rows.lookup((7,), query, 1)
    rows.insert((9,), query, 1, answer)
    assert [bool(rows.lookup((slot,), query, 1).ranks) for slot in (7, 8, 9)] == [True, False, True]


@on_loop
async def test_an_engine_bounds_and_tells_what_it_keeps(tiny_folder: TinyFolder) -> None:
    """A sixteenth of the bytes of keys and values, which the rows of a few prompts would pass."""
    config = EngineConfig(model=str(tiny_folder("llama")), kv_cache_bytes=1 << 20)
    engine = Engine.load(config)
    await engine.start()
    told = []
    for seed in range(6):
        await engine.score([prompt(random_tokens(50, seed))])
        told.append(engine.stats().cache_row_bytes)
    await engine.stop(drain_s=5)
    assert told[0] > 49 * ROW_BYTES
    assert told[0] < told[-1] <= row_budget(1 << 20)
    assert told[-1] < 6 * told[0]


def test_what_one_row_keeps_is_bounded() -> None:
    """However many paths go on from one token, few of their tokens are kept, the last ones."""
    rows = LogprobRowCache(1 << 20)
    answer = LogprobResult((-1.0,), (1,))
    for token in range(10 * MOST_SCORED):
        rows.insert((7,), LogprobQuery((1, token), 1, keep=2), 1, answer)
    asked = [LogprobQuery((1, token), 1, keep=2) for token in range(10 * MOST_SCORED)]
    known = [bool(rows.lookup((7,), query, 1).logprobs) for query in asked]
    assert sum(known) <= MOST_SCORED
    assert known[-1]
