"""Marginal search on models: bytes add up, a plain forward agrees, a crowd changes no bit."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from model_runtime.config import EngineConfig
from model_runtime.decoding.marginal.cover_states import MarginalCandidate
from model_runtime.decoding.marginal.covers import MarginalResult
from model_runtime.decoding.marginal.marginal import MarginalSearch
from model_runtime.decoding.marginal.vocabulary_trie import VocabularyTrie, vocabulary_trie
from model_runtime.engine import Engine
from model_runtime.errors import DeadlineExceeded
from model_runtime.loading.reference import reference_logprobs
from model_runtime.normalization import log_sum_exp
from model_runtime.tokenization.tokenizer import Tokenizer
from model_runtime.types import LogprobQuery, RequestOptions
from tests.conftest import TinyFolder
from tests.crowd import started
from tests.model_runtime.on_loop import on_loop
from tests.offline import Offline, eager_model

CONTEXT = "The capital of France is"
EVERY_BYTE = [bytes([byte]) for byte in range(256)]


class World:
    """A model, its tokenizer and a context."""

    def __init__(self, offline: Offline, tokenizer: Tokenizer) -> None:
        self.offline = offline
        self.tokenizer = tokenizer
        self.prefix = tokenizer.encode(CONTEXT)
        self.trie = vocabulary_trie(tokenizer, frozenset())

    @property
    def silent(self) -> tuple[int, ...]:
        """The ids that are no text."""
        return tuple(i for i in range(self.tokenizer.head_rows) if not self.trie.is_text(i))

    def find(self, texts: Sequence[bytes], ends: Sequence[int] | None = None) -> list[float]:
        """The exact log-probability of each text."""
        search = MarginalSearch(
            self.prefix,
            [MarginalCandidate(text) for text in texts],
            self.trie,
            max_expansions=4096,
            max_model_len=500,
            ends=ends,
        )
        while not search.done:
            search.advance(self.offline.answer(search.queries()))
        return [exact(result) for result in search.result()]

    def check_sum(self, text: bytes) -> None:
        """Begins with it = begins with it and any byte, or there is no text behind it."""
        (whole,) = self.find([text])
        (ended,) = self.find([text], ends=self.silent)
        parts = self.find([text + byte for byte in EVERY_BYTE])
        assert log_sum_exp([ended, *parts]) == pytest.approx(whole, abs=2e-5)

    def check_first(self) -> None:
        """The first byte is some byte, or there is no text at all."""
        (row,) = self.offline.answer(
            [LogprobQuery(tuple(self.prefix), len(self.prefix), self.silent)]
        )
        parts = self.find(EVERY_BYTE)
        assert log_sum_exp([*row.target_logprobs, *parts]) == pytest.approx(0.0, abs=2e-5)


def exact(result: object) -> float:
    assert isinstance(result, MarginalResult) and result.exact
    return result.lower


@pytest.fixture(scope="module")
def tiny(tiny_folder: TinyFolder) -> World:
    folder = tiny_folder("qwen3")
    return World(Offline(folder), Tokenizer.load(folder, head_rows=384))


@pytest.mark.parametrize("text", ["", "is", " t"])
def test_bytes_add_up_on_a_tiny_model(tiny: World, text: str) -> None:
    """Also where the head has rows behind which there is no token."""
    tiny.check_sum(text.encode()) if text else tiny.check_first()


@pytest.mark.real_model
@pytest.mark.parametrize("text", [b"", "é".encode()[:1]])
def test_bytes_add_up_on_the_real_model(
    real_model: Offline, real_folder: Path, text: bytes
) -> None:
    """The vocabulary of 49,152 tokens, half characters included."""
    world = World(real_model, Tokenizer.load(real_folder, head_rows=49152))
    world.check_sum(text) if text else world.check_first()


@pytest.mark.real_model
def test_the_real_model_agrees_with_its_plain_forward(
    real_model: Offline, real_folder: Path
) -> None:
    """Every cover of a short text, token by token, by the reference."""
    text = b" P"
    world = World(real_model, Tokenizer.load(real_folder, head_rows=49152))
    plain_model = eager_model(real_folder)
    texts = [world.tokenizer.token_bytes(i) for i in range(49152)]
    allowed = [i for i in range(49152) if texts[i] and i not in world.tokenizer.control_ids]

    def covers(path: tuple[int, ...], spelled: bytes, logprob: float) -> Iterator[float]:
        row = reference_logprobs(plain_model, (*world.prefix, *path))[-1].tolist()
        for token_id in allowed:
            longer = spelled + texts[token_id]
            if longer.startswith(text):
                yield logprob + row[token_id]
            elif text.startswith(longer):
                yield from covers((*path, token_id), longer, logprob + row[token_id])

    (found,) = world.find([text])
    assert found == pytest.approx(log_sum_exp(covers((), b"", 0.0)), abs=1e-4)


def searches(engine: Engine, budget: int) -> list[MarginalSearch]:
    """Requests whose paths meet, some with an end, some with candidates in common."""
    tokenizer = engine.tokenizer
    trie: VocabularyTrie = vocabulary_trie(tokenizer, frozenset(engine.info.end_token_ids))
    lists = [[" is not"], [" is not", " isn't it", " yes"], ["Paris is", " is not"], [" is"]]
    return [
        MarginalSearch(
            tokenizer.encode(CONTEXT),
            [MarginalCandidate(text.encode(), tuple(tokenizer.encode(text))) for text in texts],
            trie,
            max_expansions=budget,
            max_model_len=engine.info.max_model_len,
            ends=engine.info.end_token_ids if number % 2 else None,
        )
        for number, texts in enumerate(lists)
    ]


@pytest.mark.parametrize("budget", [20, 300])
def test_a_crowd_changes_no_bit(tiny_folder: TinyFolder, budget: int) -> None:
    """Each search alone, then all together in an engine that batches them."""

    @on_loop
    async def run() -> None:
        config = EngineConfig(
            model=str(tiny_folder("llama")), max_batch_tokens=48, kv_cache_bytes=64 << 20
        )
        async with started(Engine.load(config)) as engine:
            alone = [
                (await engine.decode(search, RequestOptions(cache_salt=f"{number}"))).value
                for number, search in enumerate(searches(engine, budget))
            ]
            ends = await asyncio.gather(*map(engine.decode, searches(engine, budget)))
            assert [end.value for end in ends] == alone
            assert engine.stats().shared_batches > 0
            assert any(isinstance(one, MarginalResult) and one.exact for one in ends[0].value) or (
                budget == 20
            )
            assert alone[0][0] != alone[1][0]

    run()


@on_loop
async def test_bounds_come_when_time_runs_out(tiny_folder: TinyFolder) -> None:
    """A search that cannot finish in time gives what it knows."""
    config = EngineConfig(model=str(tiny_folder("llama")), kv_cache_bytes=64 << 20)
    async with started(Engine.load(config)) as engine:
        tokenizer = engine.tokenizer
        text = "Once upon a time there was a small model that learned to read the text."
        search = MarginalSearch(
            tokenizer.encode(CONTEXT),
            [MarginalCandidate(text.encode(), tuple(tokenizer.encode(text)))],
            vocabulary_trie(tokenizer, frozenset(engine.info.end_token_ids)),
            max_expansions=10**6,
            max_model_len=engine.info.max_model_len,
        )
        try:
            outcome = await engine.decode(search, RequestOptions(deadline=time.monotonic() + 1.0))
        except DeadlineExceeded:
            pytest.skip("this machine was too busy for the first forward")
        (result,) = outcome.value
        assert isinstance(result, MarginalResult) and not result.exact
        assert -math.inf < result.lower < result.upper <= 0.0
