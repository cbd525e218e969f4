"""A greedy search that hands out each token as soon as it is chosen, through a callback.

::

    forward ──> advance(answers) ──> the search picks a token ──> on_token(token)
                                                               └─> the next forward
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from model_runtime.decoding.greedy import GreedySearch
from model_runtime.decoding.hypothesis import DecodingResult, Hypothesis
from model_runtime.types import LogprobQuery, QueryResult, TokenLogprob


@dataclass(frozen=True, slots=True)
class GeneratedToken:
    """One token of a completion in the making.

    Attributes:
        id: the token.
        logprob: its natural-log probability after all tokens before it.
        rank: 1 + the number of tokens that were strictly more probable.
        top: [top_logprobs] most probable first; empty when not asked.
        completion: the whole completion, where this token ends it; else None.
    """

    id: int
    logprob: float
    rank: int
    top: tuple[TokenLogprob, ...]
    completion: Hypothesis | None = None


class StreamedSearch:
    """``search``, with ``on_token`` called after each step. A ``SearchStrategy``.

    Args:
        search: without an answer so far.
        on_token: called on the thread that advances the search; must return at once.
    """

    def __init__(self, search: GreedySearch, on_token: Callable[[GeneratedToken], object]) -> None:
        self._search = search
        self._on_token = on_token
        self.cost = search.cost
        self.longest_path = search.longest_path

    @property
    def done(self) -> bool:
        """Whether the completion has ended."""
        return self._search.done

    def queries(self) -> Sequence[LogprobQuery]:
        """What comes next."""
        return self._search.queries()

    def advance(self, answers: Sequence[QueryResult]) -> None:
        """Let the search go on, and hand out what it chose."""
        self._search.advance(answers)
        step = self._search.last
        if step is None:
            raise RuntimeError("this is a bug: a search that advanced has no token")
        completion = self._search.result().hypotheses[0] if self._search.done else None
        self._on_token(
            GeneratedToken(step.token.id, step.token.logprob, step.rank, step.top, completion)
        )

    def result(self) -> DecodingResult:
        """The one completion."""
        return self._search.result()
