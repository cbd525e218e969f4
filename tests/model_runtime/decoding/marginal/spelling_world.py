"""Small vocabularies with a law written out by hand, and every cover of a text in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from hypothesis import strategies as st

from model_runtime.decoding.marginal.cover_states import MarginalCandidate
from model_runtime.decoding.marginal.covers import MarginalResult
from model_runtime.decoding.marginal.marginal import MarginalAnswer, MarginalSearch
from model_runtime.decoding.marginal.vocabulary_trie import VocabularyTrie
from model_runtime.normalization import log_sum_exp
from model_runtime.types import LogprobQuery, LogprobResult
from tests.model_runtime.decoding.table import PROMPT, NextLogprobs, random_table

ENOUGH = 10_000


class World(NamedTuple):
    """A vocabulary and a law: ``END`` and one id without bytes come behind the texts."""

    texts: tuple[bytes, ...]
    table: NextLogprobs

    @property
    def end(self) -> int:
        return len(self.texts)

    @property
    def size(self) -> int:
        return len(self.texts) + 2

    @property
    def trie(self) -> VocabularyTrie:
        return VocabularyTrie((*self.texts, b"a", b""), self.size, {self.end})

    def search(
        self, *candidates: MarginalCandidate, budget: int = ENOUGH, ended: bool = False
    ) -> MarginalSearch:
        """A search for all candidates together."""
        return MarginalSearch(
            PROMPT,
            candidates,
            self.trie,
            max_expansions=budget,
            max_model_len=64,
            ends=(self.end,) if ended else None,
        )

    def answer(self, query: LogprobQuery) -> LogprobResult:
        """What the law says after the query's path."""
        assert query.score_from == len(query.tokens) and query.targets is not None
        row = self.table(query.tokens[len(PROMPT) :])
        return LogprobResult(
            target_logprobs=tuple(row[token_id] for token_id in query.targets),
            target_ranks=(1,) * len(query.targets),
            set_logprobs=tuple(log_sum_exp(row[i] for i in ids) for ids in query.token_sets),
        )

    def run(self, search: MarginalSearch) -> tuple[MarginalAnswer, ...]:
        """Answer a search until it is done; no path is asked about twice for one candidate."""
        while not search.done:
            search.advance([self.answer(query) for query in search.queries()])
        return search.result()

    def find(self, candidate: MarginalCandidate, **options: Any) -> MarginalResult:
        """The result of a candidate alone."""
        (result,) = self.run(self.search(candidate, **options))
        assert isinstance(result, MarginalResult)
        return result

    def covers(self, content: bytes, *, ended: bool, path: tuple[int, ...] = ()) -> Iterator[float]:
        """By the definition: the log-probability of every cover, one token path after another."""
        row = self.table(path)
        spelled = b"".join(self.texts[token_id] for token_id in path)
        if ended and spelled == content:
            yield self.logprob(path) + row[self.end]
            return
        for token_id, text in enumerate(self.texts):
            longer = spelled + text
            if not ended and longer.startswith(content):
                yield self.logprob(path) + row[token_id]
            elif content.startswith(longer):
                yield from self.covers(content, ended=ended, path=(*path, token_id))

    def logprob(self, path: tuple[int, ...]) -> float:
        return sum(self.table(path[:place])[token_id] for place, token_id in enumerate(path))

    def truth(self, content: bytes, *, ended: bool = False) -> float:
        """The log of all covers' summed probability."""
        return log_sum_exp(self.covers(content, ended=ended))


TEXTS = st.text("ab", min_size=1, max_size=4).map(str.encode)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Two letters, and longer tokens of them, some of them spelled alike."""
    longer = draw(st.lists(TEXTS, max_size=6))
    texts = (*draw(st.permutations([b"a", b"b", *longer])),)
    return World(texts, random_table(draw(st.integers(0, 99)), len(texts) + 2))


@st.composite
def candidates(draw: st.DrawFn, world: World) -> MarginalCandidate:
    """A text, with tokens of its own or without."""
    content = draw(st.text("ab", min_size=1, max_size=6)).encode()
    own: list[int] = []
    while rest := content[len(b"".join(world.texts[i] for i in own)) :]:
        fitting = [i for i, text in enumerate(world.texts) if rest.startswith(text)]
        own.append(draw(st.sampled_from(fitting)))
    return MarginalCandidate(content, draw(st.sampled_from(((), tuple(own)))))
