"""What covers are made of: a candidate as bytes, and token paths that spell its beginning."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from model_runtime.decoding.marginal.vocabulary_trie import VocabularyTrie
from model_runtime.errors import InvalidQuery


@dataclass(frozen=True, slots=True)
class MarginalCandidate:
    """What a candidate is to the marginal search.

    Attributes:
        content: its bytes, at least one.
        preferred: tokens that spell just these, the likeliest way: asked first; empty for none.
    """

    content: bytes
    preferred: tuple[int, ...] = ()


@dataclass(slots=True, eq=False)
class PartialCover:
    """The beginning of a cover, linked to the one before it.

    Attributes:
        before: None before the first token.
        token_id: its last token.
        spelled: bytes of the candidate.
        length: tokens.
        logprob: left-to-right float64 sum of their log-probs.
    """

    before: PartialCover | None = None
    token_id: int = -1
    spelled: int = 0
    length: int = 0
    logprob: float = 0.0

    @property
    def path(self) -> tuple[int, ...]:
        """Its tokens."""
        tokens: list[int] = []
        state = self
        while state.before is not None:
            tokens.append(state.token_id)
            state = state.before
        return tuple(reversed(tokens))


def states_along(candidate: MarginalCandidate, trie: VocabularyTrie) -> Iterator[PartialCover]:
    """The states along a candidate's preferred tokens, from before the first one on.

    Raises:
        InvalidQuery: they do not spell it.
    """
    state = PartialCover()
    yield state
    for token_id in candidate.preferred:
        rest = candidate.content[state.spelled : state.spelled + trie.longest + 1]
        found = trie.continuations(rest)
        sizes = {step.token_id: step.size for step in found.steps}
        sizes |= dict.fromkeys(found.exact, len(rest))
        if token_id not in sizes:
            raise InvalidQuery(f"token {token_id} does not spell the candidate", param="candidates")
        spelled = state.spelled + sizes[token_id]
        # No mass is known before the model has been asked.
        state = PartialCover(state, token_id, spelled, state.length + 1, -math.inf)
        yield state
    if candidate.preferred and state.spelled < len(candidate.content):
        raise InvalidQuery("the tokens do not spell the whole candidate", param="candidates")
