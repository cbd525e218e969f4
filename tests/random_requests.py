"""Random requests whose token paths meet, cut at lengths on and around multiples of 32.

Everything comes from one ``random.Random``, so a seed names a list of requests.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from model_runtime.decoding.base import SearchStrategy
from model_runtime.decoding.beam import BeamSearch, EarlyStopping
from model_runtime.decoding.greedy import GreedySearch
from model_runtime.decoding.hypothesis import DecodingResult
from model_runtime.decoding.limits import DecodingLimits
from model_runtime.token_set import TokenSet
from model_runtime.types import LogprobQuery, TopKSelection

EDGES = (1, 2, 7, 8, 9, *(32 * i + d for i in (1, 2, 3, 4, 5, 6, 8) for d in (-1, 0, 1)))
"""Lengths at which a kernel may change its shapes: vectors, steps of 32 keys, key blocks."""

LONGEST = 280
"""Tokens of a path at most, where the model takes as many."""

LONGEST_TAIL = 14


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """What ``Engine.score`` takes."""

    queries: tuple[LogprobQuery, ...]


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """What ``Engine.decode`` takes, before a search has begun."""

    prompt: tuple[int, ...]
    limits: DecodingLimits
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = False

    @property
    def name(self) -> tuple[object, ...]:
        """What tells it from other searches behind the same prompt."""
        return self.num_beams, self.length_penalty, self.early_stopping, self.limits

    def search(self, vocab_size: int) -> SearchStrategy[DecodingResult]:
        """A new search: greedy for one beam, else beam search for as many completions."""
        if self.num_beams == 1:
            return GreedySearch(self.prompt, self.limits, vocab_size=vocab_size)
        return BeamSearch(
            self.prompt,
            self.limits,
            vocab_size=vocab_size,
            num_beams=self.num_beams,
            num_return_sequences=self.num_beams,
            length_penalty=self.length_penalty,
            early_stopping=self.early_stopping,
        )


Request = ScoreRequest | DecodeRequest


def is_decode_step(query: LogprobQuery) -> bool:
    """Whether a search asked this: requests for a next token here ask for its entropy too."""
    return query.score_from == len(query.tokens) and not query.summary


class RandomRequests:
    """Requests along two trunks that part at a random edge.

    Contexts are cuts of a trunk. A candidate goes on along its trunk, which makes it a prefix
    or an extension of others, or leaves it with random tokens.

    Args:
        rng: the only source of chance.
        vocab_size: ids are below it.
        longest: tokens of a path at most; at least 30.
    """

    def __init__(self, rng: random.Random, vocab_size: int, longest: int) -> None:
        self._rng = rng
        self._vocab_size = vocab_size
        self._longest = min(longest, LONGEST)
        first = self._tokens(self._longest)
        fork = self._cut(LONGEST_TAIL)
        self._trunks = (first, first[:fork] + self._tokens(self._longest - fork))

    def take(self, count: int) -> list[Request]:
        """``count`` requests: half score, a third decode, a sixth ask for next tokens."""
        kinds = (self.score, self.decode, self.score, self.decode, self.score, self.next_token)
        return [kinds[i % len(kinds)]() for i in range(count)]

    def score(self) -> ScoreRequest:
        """One to four candidates behind one context; some scored from within the context."""
        rng, trunk = self._rng, self._rng.choice(self._trunks)
        cut = self._cut(2 * LONGEST_TAIL)
        tails = [self._tail(trunk, cut) for _ in range(rng.randint(1, 4))]
        if len(tails) > 2:
            tails[1] = tails[0] + tails[1]
        start = rng.choice((cut, cut, cut - 1, cut - 5, cut // 2, 1))
        return ScoreRequest(tuple(self._query(trunk[:cut] + tail, start) for tail in tails))

    def next_token(self) -> ScoreRequest:
        """The distribution behind a cut of a trunk, a choice of its tokens, and sums over them."""
        rng, trunk = self._rng, self._rng.choice(self._trunks)
        path = trunk[: self._cut(0)]
        choice = TopKSelection(rng.choice((1, 5)), rng.choice((None, -7.0)), self._allowed())
        query = LogprobQuery(
            path,
            len(path),
            self._ids(),
            rng.choice((0, 3)),
            summary=True,
            choice=choice,
            token_sets=(TokenSet.of(self._ids(), self._vocab_size), self._part()),
            temperatures=tuple(rng.sample((0.3, 0.7, 2.0), 2)),
            logits=True,
        )
        return ScoreRequest((query,))

    def decode(self) -> DecodeRequest:
        """Greedy or beam search; some token ids end a completion."""
        rng, trunk = self._rng, self._rng.choice(self._trunks)
        max_tokens = rng.randint(3, 8)
        ends = rng.sample(range(self._vocab_size), 9)
        return DecodeRequest(
            prompt=trunk[: self._cut(max_tokens)],
            limits=DecodingLimits(
                max_tokens,
                min_tokens=rng.randint(0, 2),
                end_token_ids=frozenset(ends),
                top_logprobs=rng.choice((0, 2)),
            ),
            num_beams=rng.choice((1, 1, 2, 3)),
            length_penalty=rng.choice((0.0, 1.0, -0.5)),
            early_stopping=rng.choice((True, False, "never")),
        )

    def _query(self, path: tuple[int, ...], start: int) -> LogprobQuery:
        rng = self._rng
        kept = rng.random() < 0.5
        return LogprobQuery(
            path,
            score_from=max(1, start),
            targets=rng.choice((None, (), self._ids())),
            top_k=rng.choice((0, 3)),
            # Answers that are kept have none.
            summary=not kept and rng.random() < 0.5,
            keep=len(path) if kept else None,
        )

    def _cut(self, room: int) -> int:
        """A length that leaves ``room`` tokens of the longest path."""
        return self._rng.choice([edge for edge in EDGES if edge + room <= self._longest])

    def _tail(self, trunk: tuple[int, ...], cut: int) -> tuple[int, ...]:
        count = self._rng.randint(1, LONGEST_TAIL)
        return trunk[cut : cut + count] if self._rng.random() < 0.4 else self._tokens(count)

    def _ids(self) -> tuple[int, ...]:
        return tuple(self._rng.sample(range(self._vocab_size), 2))

    def _part(self) -> TokenSet:
        """Every so manieth token."""
        every = range(0, self._vocab_size, self._rng.randint(1, 9))
        return TokenSet.of(every, self._vocab_size)

    def _allowed(self) -> TokenSet | None:
        """All tokens, all but a few, or a few."""
        ids, size = self._ids(), self._vocab_size
        return self._rng.choice((None, TokenSet.all(size).without(ids), TokenSet.of(ids, size)))

    def _tokens(self, count: int) -> tuple[int, ...]:
        return tuple(self._rng.randrange(self._vocab_size) for _ in range(count))
