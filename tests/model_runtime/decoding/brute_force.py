"""Every completion of a small table, by the definition: what searches are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from model_runtime.decoding.constraints.stop_strings import StopMatcher
from model_runtime.decoding.limits import DecodingLimits
from tests.model_runtime.decoding.table import NextLogprobs


class Completion(NamedTuple):
    """A completion, its log-probability, and whether it ended before ``max_tokens`` cut it."""

    path: tuple[int, ...]
    logprob: float
    ended: bool

    def score(self, length_penalty: float) -> float:
        return self.logprob / float(len(self.path) ** length_penalty)


def completions(
    table: NextLogprobs,
    limits: DecodingLimits,
    vocab_size: int,
    before: Completion = Completion((), 0.0, False),  # noqa: B008
    stop: StopMatcher | None = None,
) -> Iterator[Completion]:
    """Every completion without a constraint that begins with ``before``."""
    stop = stop if before.path else limits.stop
    row = table(before.path)
    for token_id in range(vocab_size):
        path = (*before.path, token_id)
        longer = Completion(path, before.logprob + row[token_id], True)
        if token_id in limits.end_token_ids:
            if len(path) > limits.min_tokens:
                yield longer
            continue
        after = stop.push(token_id) if stop is not None else None
        if after is not None and after.matched and len(path) > limits.min_tokens:
            yield longer
        elif len(path) == limits.max_tokens:
            yield longer._replace(ended=False)
        else:
            yield from completions(table, limits, vocab_size, longer, after)


def k_best(found: list[Completion], length_penalty: float, k: int) -> list[float]:
    """The ``k`` highest scores, falling."""
    return sorted((each.score(length_penalty) for each in found), reverse=True)[:k]
