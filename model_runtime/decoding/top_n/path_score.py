"""What is known of the tokens of a path, shared by all that go on from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

from model_runtime.normalization import log_sum
from model_runtime.types import LogprobResult, TokenLogprob

Top = tuple[TokenLogprob, ...]
"""Most probable tokens at a position; empty when not asked."""

Ends = tuple[Sequence[float], Sequence[int]]
"""Log-probs and ranks of each end id."""


@dataclass(frozen=True, slots=True)
class PathScore:
    """The last token of a path, and the path before it.

    Attributes:
        before: None for the first scored token.
        logprob: left-to-right sum of the path's log-probs, in nats.
        token_logprob: of the last token; of an end, of all end ids together.
        rank: 1 + the number of tokens that are strictly more probable in its place.
        top: most probable tokens in its place; empty when not asked.
        length: scored tokens, an end included.
        ends: log-probs and ranks of each end id, where the last token is an end.
    """

    before: PathScore | None
    logprob: float
    token_logprob: float
    rank: int
    top: Top
    length: int
    ends: Ends | None = None

    @classmethod
    def append(cls, before: PathScore | None, logprob: float, rank: int, top: Top) -> PathScore:
        """One token more."""
        # From 0.0, as ``total`` counts.
        logprob_before, length = (0.0, 0) if before is None else (before.logprob, before.length)
        return cls(before, logprob_before + logprob, logprob, rank, top, length + 1)

    @classmethod
    def extend(cls, before: PathScore | None, answer: LogprobResult) -> PathScore | None:
        """As many tokens more as the answer scored; None where there is none at all."""
        path, tops = before, answer.top or repeat(())
        for logprob, rank, top in zip(answer.logprobs, answer.ranks, tops, strict=False):
            path = cls.append(path, logprob, rank, top)
        return path

    def with_end(self, logprobs: Sequence[float], ranks: Sequence[int], top: Top) -> PathScore:
        """With an end behind it, whichever.

        Raises:
            NonFiniteLogits: no end has any probability.
        """
        logprob = log_sum(logprobs)
        best = max(range(len(logprobs)), key=logprobs.__getitem__)
        return PathScore(
            before=self,
            logprob=self.logprob + logprob,
            token_logprob=logprob,
            rank=ranks[best],
            top=top,
            length=self.length + 1,
            ends=(tuple(logprobs), tuple(ranks)),
        )

    def answer(self) -> LogprobResult:
        """The same as a query for the whole path is answered."""
        tokens = list(self._tokens())[::-1]
        scored = tokens if self.ends is None else tokens[:-1]
        logprobs, ranks = self.ends or ((), ())
        return LogprobResult(
            logprobs=tuple(token.token_logprob for token in scored),
            ranks=tuple(token.rank for token in scored),
            target_logprobs=tuple(logprobs),
            target_ranks=tuple(ranks),
            top=tuple(token.top for token in tokens) if tokens[0].top else (),
        )

    def _tokens(self) -> Iterator[PathScore]:
        token: PathScore | None = self
        while token is not None:
            yield token
            token = token.before
