"""``chainrule selftest``: whether a running server's numbers are right, by its public API alone.

Every check asks the same thing in two ways. It is named after a mistake that scoring code has had,
which it knows by what that does to the numbers; how the server computes is nothing to it.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Final
from uuid import uuid4

import httpx

from app.cli.failure import fail
from app.cli.server_address import add_server_flags, find_server
from app.cli.single_request import RETRIES
from app.client import Client, ClientError, RequestRefused
from app.schemas.next_token import NextTokenResponse
from app.schemas.score_response import ScoreResponse

CONTEXT: Final = "The capital of France is"
TEXTS: Final = (" Paris.", " the text", " no: 42")

LEAST_TOLERANCE: Final = 1e-4
UNKNOWN_ERROR: Final = 0.0125
"""In nats a token. Two ways to compute the same log-probability may differ by four times the
server's own ``numeric_error``, or this where it knows none."""

ROUNDING: Final = 1e-9
"""Relative: what dividing a float64 and multiplying it again may change."""

MASS_ROUNDING: Final = 1e-3

Path = tuple[int, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give the parser what the command takes."""
    add_server_flags(parser.add_argument_group("whom to ask"))
    parser.set_defaults(command=selftest_command)


def selftest_command(args: dict[str, Any]) -> int:
    """``chainrule selftest``: a line for each check; 1 where one fails."""
    status = 0
    try:
        with (
            find_server(args) as server,
            server.client(Client, httpx.HTTPTransport, retries=RETRIES) as client,
        ):
            for name, problem in run_checks(client):
                verdict = f"ok    {name}" if problem is None else f"FAIL  {name}: {problem}"
                sys.stdout.write(f"{verdict}\n")
                status |= problem is not None
    except ClientError as error:
        return fail(error, 1)
    return status


def run_checks(client: Client) -> Iterator[tuple[str, str | None]]:
    """The name of each check, and the first problem that it finds; None for none.

    Raises:
        ClientError: the server does not answer, or refuses what any model can be asked.
    """
    facts = Facts(client)
    for check in CHECKS:
        yield check.__name__, next(check(facts), None)


class Facts:
    """Candidates as token ids, their scores, and each of their tokens asked for alone.

    Attributes:
        card: what is served.
        context: the tokens that all candidates are behind.
        paths: the tokens of each.
        results: what /v1/score says of each.
        tokens: of each: what stands before a token, its id, the log-probability in the result.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self.card = client.models()[0]
        error = self.card.numeric_error
        self._tolerance = max(LEAST_TOLERANCE, 4 * (error.maximum if error else UNKNOWN_ERROR))
        self.context, *self.paths = self._split(CONTEXT, *TEXTS)
        self.results = self.score(self.context, *self.paths).results
        self.tokens = [
            [
                (self.context + path[:place], token, entry.logprob)
                for place, (token, entry) in enumerate(zip(path, result.tokens or (), strict=False))
            ]
            for path, result in zip(self.paths, self.results, strict=True)
        ]
        self._rows: dict[Path, dict[int, float]] = {}

    @cached_property
    def expected(self) -> list[float]:
        """What each candidate should have, token by token."""
        return [
            math.fsum(self.alone(prefix, token) for prefix, token, _ in tokens)
            for tokens in self.tokens
        ]

    @cached_property
    def text(self) -> Path:
        """The tokens of the context where it is the only text of its request."""
        return self._split(CONTEXT)[0]

    def score(self, context: str | Path, *candidates: str | Path) -> ScoreResponse:
        """Candidates behind a context, tokens listed; nothing is cached for it."""
        response = self._client.score(
            context=context if isinstance(context, str) else list(context),
            candidates=[one if isinstance(one, str) else list(one) for one in candidates],
            token_logprobs=True,
            cache_salt=uuid4().hex,
        )
        for result in response.results:
            if result.error is not None:
                raise ClientError(result.error.message, param=result.error.param)
        return response

    def next_token(self, prefix: Path, *ids: int, add_bos: bool = False) -> NextTokenResponse:
        """What may follow a prefix, these ids named; nothing is cached for it."""
        salt, named = uuid4().hex, list(ids)
        return self._client.next_token(
            context=list(prefix), token_ids=named, add_bos=add_bos, top_k=0, cache_salt=salt
        )

    def differ(self, one: float, other: float, tokens: int = 1) -> bool:
        """Whether two values for so many tokens are too far apart to be the same."""
        return not abs(one - other) <= self._tolerance * tokens

    def explained(self, by: Callable[[Path, int], float]) -> bool:
        """Some tokens have not what they should, and all of these have what ``by`` says."""
        wrong = [
            (by(prefix, token), reported)
            for tokens in self.tokens
            for prefix, token, reported in tokens
            if self.differ(reported, self.alone(prefix, token))
        ]
        return bool(wrong) and not any(self.differ(*pair) for pair in wrong)

    def alone(self, prefix: Path, token: int) -> float:
        """A token's log-probability, asked for without the token."""
        if prefix not in self._rows:
            named = {one for path in self.paths for one in path}
            chosen = self.next_token(prefix, *named).chosen
            self._rows[prefix] = {one.id: one.logprob for one in chosen}
        return self._rows[prefix][token]

    def before(self, prefix: Path, token: int) -> float:
        """The same one position earlier."""
        return self.alone(prefix[:-1], token)

    def after(self, prefix: Path, token: int) -> float:
        """The same one position later, behind the token itself."""
        return self.alone((*prefix, token), token)

    def among(self, prefix: Path, token: int) -> float:
        """The same if only the candidates' own tokens could follow."""
        siblings = {one for each in self.tokens for before, one, _ in each if before == prefix}
        mass = math.fsum(math.exp(self.alone(prefix, sibling)) for sibling in siblings)
        return self.alone(prefix, token) - math.log(mass)

    def behind_bos(self, prefix: Path, token: int) -> float:
        """The same with one more BOS in front."""
        return self.next_token(prefix, token, add_bos=True).chosen[0].logprob

    def _split(self, *texts: str) -> list[Path]:
        """The tokens of each text by itself."""
        plain = int(self.card.bos_token_id == 0)
        results = self.score((plain, plain), *texts).results
        return [tuple(token.id for token in result.tokens or ()) for result in results]


def shifted_positions(facts: Facts) -> Iterator[str]:
    """Tokens have the log-probability of the position before or behind them."""
    if facts.explained(facts.after):
        yield "tokens have the log-probability of the position behind, which has seen them already"
    if facts.explained(facts.before):
        yield "tokens have the log-probability of the position before"
    *head, last = facts.context
    size = facts.card.vocab_size
    others = [(*head, (last + step) % size) for step in (0, 1, size // 2, size - 1)]
    if len({facts.next_token(other).entropy for other in others}) == 1:
        yield "what follows a prefix is the same whatever its last token is"


def softmax_over_candidates(facts: Facts) -> Iterator[str]:
    """Probabilities add up over the candidates, not over the vocabulary."""
    if facts.explained(facts.among):
        yield "tokens are as probable as if only the candidates' own tokens could follow"
    mass = math.fsum(map(math.exp, facts.expected))
    shown = math.fsum(math.exp(result.logprob or 0.0) for result in facts.results)
    if abs(shown - 1) < MASS_ROUNDING < abs(mass - 1):
        yield f"the candidates' probabilities add up to 1; by the vocabulary it is {mass:.6g}"


def doubled_special_tokens(facts: Facts) -> Iterator[str]:
    """A special token stands where one stands already, or where the caller wrote ids or text."""
    fed = facts.next_token(facts.context).usage.computed_tokens
    if fed > len(facts.context):
        yield f"the model is fed {fed} tokens for a context of {len(facts.context)}"
    try:
        by_rule = facts.score("", *TEXTS).boundary.context_tokens
    except RequestRefused:
        by_rule = 0  # The tokenizer puts nothing first, so there is nothing to begin with.
    counted = facts.score(CONTEXT, *TEXTS).boundary.context_tokens
    if counted != by_rule + len(facts.text):
        yield (
            f"a context of {len(facts.text)} tokens is counted as {counted}; behind an empty "
            f"one there are {by_rule}"
        )
    if facts.card.bos_token_id is not None and facts.explained(facts.behind_bos):
        yield "tokens have the log-probability that they have with one more BOS in front"


def prompt_in_length(facts: Facts) -> Iterator[str]:
    """A score is divided by more than the candidate's own tokens or bytes."""
    for path, result in zip(facts.paths, facts.results, strict=True):
        if result.token_count != len(path):
            yield f"a candidate of {len(path)} tokens is counted as {result.token_count}"
        size = sum(len(token.bytes) for token in result.tokens or ())
        per_byte, mean = result.logprob_per_byte, result.mean_logprob
        for unit, average, count in (("tokens", mean, len(path)), ("bytes", per_byte, size)):
            if not math.isclose((average or 0.0) * count, result.logprob or 0.0, rel_tol=ROUNDING):
                yield f"a score is not divided by the candidate's own {unit}"


def chain_rule(facts: Facts) -> Iterator[str]:
    """log P(ab) = log P(a) + log P(b|a): a path scores what its tokens score alone."""
    for path, result, expected in zip(facts.paths, facts.results, facts.expected, strict=True):
        if facts.differ(result.logprob or 0.0, expected, len(path)):
            yield f"a candidate has {result.logprob}, its tokens asked for alone {expected}"


def sums_and_ranks(facts: Facts) -> Iterator[str]:
    """Totals, ranks and probabilities follow from the tokens that are listed."""
    sums = [math.fsum(reported for _, _, reported in tokens) for tokens in facts.tokens]
    mass = math.fsum(map(math.exp, sums))
    for result, value in zip(facts.results, sums, strict=True):
        if not math.isclose(result.logprob or 0.0, value, rel_tol=ROUNDING):
            yield f"a candidate has {result.logprob}, its tokens add up to {value}"
        if result.rank != 1 + sum(other > value for other in sums):
            yield f"the candidate with {value} among {sums} has rank {result.rank}"
        if not math.isclose(result.probability or 0.0, math.exp(value) / mass, abs_tol=1e-6):
            yield "probability is not the softmax of the sums over the candidates"


def batch_invariance(facts: Facts) -> Iterator[str]:
    """A candidate scores alone, and in a crowd, what it scores among the others."""
    longer = [one + other for one in facts.paths for other in facts.paths]
    crowd = facts.score(facts.context, *facts.paths, *longer).results
    for path, result, crowded in zip(facts.paths, facts.results, crowd, strict=False):
        (alone,) = facts.score(facts.context, path).results
        for other in (alone.logprob, crowded.logprob):
            far = facts.differ(result.logprob or 0.0, other or 0.0, len(path))
            if far or (facts.card.batch_invariant and result.logprob != other):
                yield f"a candidate has {result.logprob} among three and {other} among others"


def token_split(facts: Facts) -> Iterator[str]:
    """A text has the same tokens alone as beside other texts."""
    if facts.text != facts.context:
        yield f"{CONTEXT!r} has tokens {facts.text} alone and {facts.context} beside other texts"


CHECKS: Final = (
    *(shifted_positions, softmax_over_candidates, doubled_special_tokens, prompt_in_length),
    *(chain_rule, sums_and_ranks, batch_invariance, token_split),
)
"""In the order of the output."""
