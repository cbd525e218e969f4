"""A language model that is a function from generated tokens to next-token log-probs."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from functools import cache
from itertools import islice
from typing import Any, TypeVar

from model_runtime.decoding.base import SearchStrategy
from model_runtime.decoding.beam import BeamSearch
from model_runtime.decoding.hypothesis import Hypothesis
from model_runtime.decoding.limits import DecodingLimits
from model_runtime.types import (
    LogprobQuery,
    LogprobResult,
    RankedLogprob,
    TokenLogprob,
    TopKSelection,
)

R = TypeVar("R")

PROMPT = (7, 3)
"""What every table is conditional on; longer than one token, so that lengths can be confused."""

NextLogprobs = Callable[[tuple[int, ...]], Sequence[float]]


def bigrams(start: Sequence[float], after: Sequence[Sequence[float]]) -> NextLogprobs:
    """Probabilities of the first token, and of each next one by the token before it."""

    def table(generated: tuple[int, ...]) -> Sequence[float]:
        row = after[generated[-1]] if generated else start
        return [math.log(p) if p > 0 else -math.inf for p in row]

    return table


def random_table(seed: int, vocab_size: int, sharpness: float = 1.5) -> NextLogprobs:
    """A different random distribution after every path, the same for the same seed."""

    @cache
    def table(generated: tuple[int, ...]) -> Sequence[float]:
        source = random.Random(f"{seed} {generated}")
        logits = [source.gauss(0.0, sharpness) for _ in range(vocab_size)]
        log_mass = math.log(math.fsum(map(math.exp, logits)))
        return [logit - log_mass for logit in logits]

    return table


def answer(query: LogprobQuery, table: NextLogprobs) -> LogprobResult:
    """What the query asks after its path: its ``top_k`` and its choice."""
    assert query.tokens[: len(PROMPT)] == PROMPT
    assert query.score_from == len(query.tokens)
    assert query.targets == ()
    logprobs = table(query.tokens[len(PROMPT) :])
    assert query.top_k <= len(logprobs)
    row = sorted(
        (TokenLogprob(token_id, logprob) for token_id, logprob in enumerate(logprobs)),
        key=lambda token: (-token.logprob, token.id),
    )
    top = (tuple(row[: query.top_k]),) if query.top_k else ()
    return LogprobResult(top=top, choices=choose(row, query.choice) if query.choice else ())


def choose(row: Sequence[TokenLogprob], choice: TopKSelection) -> tuple[RankedLogprob, ...]:
    """What a choice lists of all tokens of a row, most probable first."""
    assert choice.count >= 1
    assert choice.allowed is None or len(choice.allowed) > 0
    falling = [token.logprob for token in row]
    listed = (
        RankedLogprob(token.id, token.logprob, 1 + falling.index(token.logprob))
        for token in row
        if (choice.allowed is None or token.id in choice.allowed)
        and token.logprob > -math.inf
        and (choice.floor is None or token.logprob >= choice.floor)
    )
    return tuple(islice(listed, choice.count))


def run(search: SearchStrategy[R], table: NextLogprobs) -> R:
    """Answer a search from a table until it is done; checks that its cost is an upper bound."""
    fed: set[tuple[int, ...]] = set()
    while not search.done:
        queries = search.queries()
        fed.update(query.tokens[:end] for query in queries for end in range(len(query.tokens) + 1))
        search.advance([answer(query, table) for query in queries])
    assert len(fed) - 1 <= search.cost
    return search.result()


def beam(
    table: NextLogprobs, limits: DecodingLimits, vocab_size: int = 3, **options: Any
) -> tuple[Hypothesis, ...]:
    """The completions that a beam search finds on a table."""
    search = BeamSearch(PROMPT, limits, vocab_size=vocab_size, **options)
    return run(search, table).hypotheses


def letters(token_id: int) -> bytes:
    """The text of a token: one letter."""
    return bytes([97 + token_id])
