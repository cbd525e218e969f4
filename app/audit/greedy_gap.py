"""Why the most probable token at each step need not lead to the most probable sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from app.audit.evidence import Evidence
from app.audit.views import text_of
from app.audit.wording import nats, quoted
from app.schemas.audit_response import GreedyGap
from app.schemas.decode_response import ComparedStrategy
from app.schemas.response import TokenDetail
from model_runtime import total


@dataclass(frozen=True, slots=True)
class ScoredText:
    """A token path with what it stands for.

    Attributes:
        text: of all its tokens.
        tokens: [n] with their log-probabilities.
    """

    text: str
    tokens: Sequence[TokenDetail]

    @property
    def logprob(self) -> float:
        """The sum over the tokens, in nats."""
        return self.after(0)

    def after(self, position: int) -> float:
        """The sum over the tokens from ``position`` on; 0 where there are none."""
        return total([token.logprob for token in self.tokens[position:]])


def favourite_candidate(evidence: Evidence) -> GreedyGap | None:
    """Choosing among the candidates token by token, against their totals."""
    routes = [
        ScoredText(text_of(evidence, one.index), one.tokens or ())
        for one in evidence.scored
        if one.tokens
    ]
    if len(routes) < 2:
        return None
    best = max(routes, key=lambda route: route.logprob)
    return explain(_token_by_token(routes), best, "choosing among the candidates token by token")


def favourite_completion(evidence: Evidence) -> GreedyGap | None:
    """Greedy search against the best completion that any search has found."""
    routes = {
        entry.strategy: _route(entry)
        for entry in evidence.decoded.compared or ()
        if entry.sequence is not None
    }
    greedy = routes.get("greedy")
    if greedy is None or len(routes) < 2:
        return None
    best = max(routes.values(), key=lambda route: route.logprob)
    return explain(greedy, best, "greedy search")


def explain(favourite: ScoredText, best: ScoredText, how: str) -> GreedyGap:
    """Where the favourite parts from the best, what it gains there and loses behind."""
    pairs = zip(favourite.tokens, best.tokens, strict=False)
    shared = len(list(takewhile(lambda pair: pair[0].id == pair[1].id, pairs)))
    behind = best.logprob - favourite.logprob
    # What is no more probable loses to nothing: the two may be one, or tie.
    if behind <= 0:
        return GreedyGap(
            favourite=favourite.text,
            best=best.text,
            loses=False,
            position=None,
            ahead=None,
            behind=None,
            explanation=(
                f"{how} leads to {quoted(favourite.text)}, whose total of "
                f"{favourite.logprob:.6g} nothing that was found exceeds"
            ),
        )
    ahead = _logprob(favourite, shared) - _logprob(best, shared)
    return GreedyGap(
        favourite=favourite.text,
        best=best.text,
        loses=True,
        position=shared,
        ahead=ahead,
        behind=behind,
        explanation=_explanation(favourite, best, shared, how),
    )


def _explanation(favourite: ScoredText, best: ScoredText, at: int, how: str) -> str:
    gain = _logprob(favourite, at) - _logprob(best, at)
    later = favourite.after(at + 1), best.after(at + 1)
    return (
        f"{how} takes {_token(favourite, at)} at token {at}, not {_token(best, at)}, and is "
        f"{nats(gain)} ahead. Behind it {quoted(favourite.text)} has {later[0]:.6g} nats to come, "
        f"{quoted(best.text)} {later[1]:.6g}: on the total it loses by "
        f"{nats(best.logprob - favourite.logprob)}, {favourite.logprob:.6g} against "
        f"{best.logprob:.6g}"
    )


def _token_by_token(routes: Sequence[ScoredText]) -> ScoredText:
    """The route that the most probable token at each fork leads to; one that ends is taken."""
    left, position = list(routes), 0
    while True:
        ended = [route for route in left if len(route.tokens) == position]
        if ended:
            return ended[0]
        chosen = max(left, key=lambda route: route.tokens[position].logprob).tokens[position].id
        left = [route for route in left if route.tokens[position].id == chosen]
        position += 1


def _route(entry: ComparedStrategy) -> ScoredText:
    sequence = entry.sequence
    return (
        ScoredText("", ()) if sequence is None else ScoredText(sequence.text, sequence.tokens or ())
    )


def _logprob(route: ScoredText, position: int) -> float:
    return route.tokens[position].logprob if position < len(route.tokens) else 0.0


def _token(route: ScoredText, position: int) -> str:
    if position >= len(route.tokens):
        return "nothing"
    token = route.tokens[position]
    return f"{quoted(token.text)} ({token.logprob:.6g})"
