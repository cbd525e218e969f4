"""Scoring bugs that real code has had, planted into the running product.

They are planted when the warm-up has passed, which would refuse some of them, and change nothing
that the server says of itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from app.schemas.score_response import CandidateScore, ScoreResponse
from app.service import ScoringService
from model_runtime.engine import Engine
from model_runtime.tokenization.tokenizer import Tokenizer
from model_runtime.types import LogprobQuery, LogprobResult

Plant = Callable[[pytest.MonkeyPatch], None]
Places = dict[tuple[int, ...], dict[int, float]]
"""The candidates' tokens behind each prefix, and their log-probabilities."""


def logits_of_the_next_position(patch: pytest.MonkeyPatch) -> None:
    """A token is scored by the next position's logits, which have seen it."""
    _answer_for_another_row(patch, 1)


def logits_of_the_position_before(patch: pytest.MonkeyPatch) -> None:
    """Whatever is asked about a position is answered for the one before it."""
    _answer_for_another_row(patch, -1)


def softmax_over_candidates(patch: pytest.MonkeyPatch) -> None:
    """Probabilities are made to add up over the request's candidates."""

    def edit(response: ScoreResponse) -> list[CandidateScore]:
        mass = math.fsum(math.exp(one.logprob or 0.0) for one in response.results)
        return [_moved(one, -math.log(mass)) for one in response.results]

    _edit_scores(patch, edit)


def softmax_over_candidate_tokens(patch: pytest.MonkeyPatch) -> None:
    """At each place only the candidates' own tokens share the probability."""
    score: Any = Engine.score

    async def closed(self: Engine, queries: Sequence[LogprobQuery], *options: Any) -> Any:
        outcome = await score(self, queries, *options)
        if any(query.targets is not None for query in queries):
            return outcome
        places: Places = {}
        for query, answer in zip(queries, outcome.value, strict=True):
            for place, logprob in enumerate(answer.logprobs, start=query.score_from):
                places.setdefault(query.tokens[:place], {})[query.tokens[place]] = logprob
        pairs = zip(queries, outcome.value, strict=True)
        shares = tuple(_closed(query, answer, places) for query, answer in pairs)
        return replace(outcome, value=shares)

    patch.setattr(Engine, "score", closed)


def bos_by_the_tokenizer_too(patch: pytest.MonkeyPatch) -> None:
    """The tokenizer puts BOS before every text, and whoever joins texts does so again."""
    encode, encode_batch = Tokenizer.encode, Tokenizer.encode_batch

    def bos(tokenizer: Tokenizer) -> list[int]:
        return [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]

    def one(self: Tokenizer, text: str, **options: Any) -> list[int]:
        return bos(self) + list(encode(self, text, **options))

    def many(self: Tokenizer, texts: Sequence[str], **options: Any) -> list[list[int]]:
        return [bos(self) + list(ids) for ids in encode_batch(self, texts, **options)]

    patch.setattr(Tokenizer, "encode", one)
    patch.setattr(Tokenizer, "encode_batch", many)


def bos_on_the_way_to_the_model(patch: pytest.MonkeyPatch) -> None:
    """Every path that is asked about gets one more BOS in front, unseen by whoever asks."""
    _put_bos(patch, lambda queries: True)


def bos_before_candidates_only(patch: pytest.MonkeyPatch) -> None:
    """Paths that are scored get one more BOS in front; next-token questions do not."""
    _put_bos(patch, lambda queries: all(query.targets is None for query in queries))


def prompt_in_the_mean(patch: pytest.MonkeyPatch) -> None:
    """The mean is taken over the context's tokens as well."""

    def change(one: CandidateScore, context: int) -> dict[str, Any]:
        return {"mean_logprob": (one.logprob or 0.0) / ((one.token_count or 0) + context)}

    _edit_each(patch, change)


def prompt_in_the_bytes(patch: pytest.MonkeyPatch) -> None:
    """The value per byte divides by more than the candidate's bytes."""
    _edit_each(patch, lambda one, _: {"logprob_per_byte": (one.logprob_per_byte or 0.0) / 2})


def prompt_in_the_count(patch: pytest.MonkeyPatch) -> None:
    """The context's tokens are counted as the candidate's."""
    _edit_each(patch, lambda one, context: {"token_count": (one.token_count or 0) + context})


def ranks_turned_round(patch: pytest.MonkeyPatch) -> None:
    """The least probable candidate of three comes first."""
    _edit_each(patch, lambda one, _: {"rank": 4 - (one.rank or 0)})


def probability_of_the_mean(patch: pytest.MonkeyPatch) -> None:
    """The softmax over candidates is taken of another score than the one reported."""

    def edit(response: ScoreResponse) -> list[CandidateScore]:
        weights = [math.exp(one.mean_logprob or 0.0) for one in response.results]
        return [
            one.model_copy(update={"probability": weight / math.fsum(weights)})
            for one, weight in zip(response.results, weights, strict=True)
        ]

    _edit_scores(patch, edit)


def neighbours_in_the_score(patch: pytest.MonkeyPatch) -> None:
    """A candidate's score moves with the number of candidates in its request."""

    def edit(response: ScoreResponse) -> list[CandidateScore]:
        return [_moved(one, 0.5 * (len(response.results) - 1)) for one in response.results]

    _edit_scores(patch, edit)


def tokens_apart_from_the_text(patch: pytest.MonkeyPatch) -> None:
    """Texts are tokenized letter by letter wherever several of them come together."""
    encode = Tokenizer.encode_batch

    def spelled(self: Tokenizer, texts: Sequence[str], **options: Any) -> list[list[int]]:
        if len(texts) == 1:
            return [list(ids) for ids in encode(self, texts, **options)]
        letters = [encode(self, list(text), **options) for text in texts]
        return [[token for ids in letter for token in ids] for letter in letters]

    patch.setattr(Tokenizer, "encode_batch", spelled)


def last_token_left_out(patch: pytest.MonkeyPatch) -> None:
    """The sum stops one token early."""

    def edit(response: ScoreResponse) -> list[CandidateScore]:
        lasts = [one.tokens[-1].logprob if one.tokens else 0.0 for one in response.results]
        return [_moved(one, -last) for one, last in zip(response.results, lasts, strict=True)]

    _edit_scores(patch, edit)


def scores_of_warmer_logits(patch: pytest.MonkeyPatch) -> None:
    """Scoring divides the logits by a temperature; next-token distributions do not."""
    score: Any = Engine.score

    async def warmer(self: Engine, queries: Sequence[LogprobQuery], *options: Any) -> Any:
        outcome = await score(self, queries, *options)
        warm = tuple(
            replace(answer, logprobs=tuple(value * 0.7 for value in answer.logprobs))
            for answer in outcome.value
        )
        return replace(outcome, value=warm)

    patch.setattr(Engine, "score", warmer)


def _put_bos(patch: pytest.MonkeyPatch, applies: Callable[[Sequence[LogprobQuery]], bool]) -> None:
    score: Any = Engine.score

    async def with_bos(self: Engine, queries: Sequence[LogprobQuery], *options: Any) -> Any:
        if not applies(queries):
            return await score(self, queries, *options)
        bos = self.info.bos_token_id or 0
        longer = [
            replace(query, tokens=(bos, *query.tokens), score_from=query.score_from + 1)
            for query in queries
        ]
        return await score(self, longer, *options)

    patch.setattr(Engine, "score", with_bos)


def _answer_for_another_row(patch: pytest.MonkeyPatch, shift: int) -> None:
    score: Any = Engine.score

    async def shifted(self: Engine, queries: Sequence[LogprobQuery], *options: Any) -> Any:
        outcomes = [await score(self, _rows_at(query, shift), *options) for query in queries]
        answers = tuple(map(_as_one, queries, (outcome.value for outcome in outcomes)))
        return replace(outcomes[0], value=answers)

    patch.setattr(Engine, "score", shifted)


def _rows_at(query: LogprobQuery, shift: int) -> list[LogprobQuery]:
    """One question for each asked row, about the row ``shift`` behind it, or at the end itself."""
    return [
        replace(
            query,
            tokens=query.tokens[: max(1, place + shift)],
            score_from=min(max(1, place + shift), len(query.tokens)),
            targets=query.tokens[place : place + 1] or query.targets,
        )
        for place in range(query.score_from, query.last_row + 1)
    ]


def _as_one(query: LogprobQuery, rows: Sequence[LogprobResult]) -> LogprobResult:
    """The answer to ``query`` that its rows make up."""
    scored = len(query.tokens) - query.score_from
    return LogprobResult(
        logprobs=tuple(row.target_logprobs[0] for row in rows[:scored]),
        ranks=tuple(row.target_ranks[0] for row in rows[:scored]),
        target_logprobs=tuple(value for row in rows[scored:] for value in row.target_logprobs),
        target_ranks=tuple(rank for row in rows[scored:] for rank in row.target_ranks),
        top=tuple(entry for row in rows for entry in row.top),
        entropies=tuple(entropy for row in rows for entropy in row.entropies),
    )


def _edit_each(
    patch: pytest.MonkeyPatch, change: Callable[[CandidateScore, int], dict[str, Any]]
) -> None:
    """Change fields of every result, knowing how many tokens the context has."""

    def edit(response: ScoreResponse) -> list[CandidateScore]:
        context = response.boundary.context_tokens
        return [one.model_copy(update=change(one, context)) for one in response.results]

    _edit_scores(patch, edit)


def _edit_scores(
    patch: pytest.MonkeyPatch, edit: Callable[[ScoreResponse], list[CandidateScore]]
) -> None:
    score = ScoringService.score

    async def edited(self: ScoringService, *args: Any) -> ScoreResponse:
        response = await score(self, *args)
        return response.model_copy(update={"results": edit(response)})

    patch.setattr(ScoringService, "score", edited)


def _moved(one: CandidateScore, by: float) -> CandidateScore:
    """The candidate with another log-probability, and with what is derived from it."""
    logprob = one.logprob or 0.0
    factor = (logprob + by) / logprob
    derived = ("logprob", "score", "mean_logprob", "logprob_per_byte")
    return one.model_copy(update={name: getattr(one, name) * factor for name in derived})


def _closed(query: LogprobQuery, answer: Any, places: Places) -> Any:
    shares = [
        logprob
        - math.log(math.fsum(math.exp(other) for other in places[query.tokens[:place]].values()))
        for place, logprob in enumerate(answer.logprobs, start=query.score_from)
    ]
    return replace(answer, logprobs=tuple(shares))
