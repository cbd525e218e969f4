"""Answers as columns. A table has the same columns whatever the answer lacks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

from app.schemas.audit_response import AuditResponse
from app.schemas.decode_response import DecodedSequence, DecodeResponse
from app.schemas.error import ErrorObject
from app.schemas.next_token import NextTokenResponse
from app.schemas.response import TokenDetail
from app.schemas.score_response import CandidateScore, CompactScores, ScoreResponse
from app.schemas.search_tree import SearchTree

Kind = Literal["integer", "number", "text", "flag"]
Candidate = str | list[int]


@dataclass(frozen=True, slots=True)
class Column:
    """A name, what its values are, and the values; None where there is none."""

    name: str
    kind: Kind
    values: list[Any]


_NUMBERS: tuple[tuple[str, Kind], ...] = (
    ("rank", "integer"),
    ("score", "number"),
    ("logprob", "number"),
    ("mean_logprob", "number"),
    ("logprob_per_byte", "number"),
    ("probability", "number"),
    ("numeric_error", "number"),
    ("tie_group", "integer"),
    ("token_count", "integer"),
    ("greedy", "flag"),
    ("bound", "number"),
)


def candidate_text(candidates: Sequence[Candidate], index: int) -> str | None:
    """A candidate as it was asked for: its text, or its ids in brackets; None if not known."""
    if index >= len(candidates):
        return None
    candidate = candidates[index]
    return candidate if isinstance(candidate, str) else str(list(candidate))


def candidate_results(answer: ScoreResponse) -> list[CandidateScore]:
    """One result for each candidate, by index; of a compact answer with what its columns have."""
    if answer.compact is None:
        return answer.results
    return sorted(_of_compact(answer.compact), key=lambda one: one.index)


def candidate_columns(answer: ScoreResponse, candidates: Sequence[Candidate]) -> list[Column]:
    """A row for each candidate, in the request's order."""
    results = candidate_results(answer)
    return [
        Column("index", "integer", [one.index for one in results]),
        Column("candidate", "text", [candidate_text(candidates, one.index) for one in results]),
        *(Column(name, kind, [getattr(one, name) for one in results]) for name, kind in _NUMBERS),
        Column("error", "text", [one.error and one.error.message for one in results]),
    ]


def scored_token_columns(answer: ScoreResponse, candidates: Sequence[Candidate]) -> list[Column]:
    """A row for each scored token. Raises ``ValueError`` where the answer lists none."""
    listed = [(one.index, one.tokens) for one in answer.results if one.tokens is not None]
    if not listed:
        raise ValueError("the answer lists no tokens: ask for token_logprobs=True")
    names = [candidate_text(candidates, index) for index, _ in listed]
    return _token_columns("candidate", listed, names)


def sequence_columns(answer: DecodeResponse) -> list[Column]:
    """A row for each sequence; where strategies were compared, one for each of them."""
    if answer.compared is None:
        strategies: list[Any] = [None] * len(answer.sequences)
        sequences: list[DecodedSequence | None] = list(answer.sequences)
        errors: list[float | None] = [None] * len(sequences)
    else:
        strategies = [one.strategy for one in answer.compared]
        sequences = [one.sequence for one in answer.compared]
        errors = [one.search_error for one in answer.compared]
    fields: tuple[tuple[str, Kind], ...] = (
        ("text", "text"),
        ("logprob", "number"),
        ("score", "number"),
        ("finish_reason", "text"),
        ("candidate", "integer"),
    )
    return [
        Column("strategy", "text", strategies),
        *(
            Column(name, kind, [getattr(one, name, None) for one in sequences])
            for name, kind in fields
        ),
        Column(
            "token_count",
            "integer",
            [None if one is None else len(one.token_ids) for one in sequences],
        ),
        Column("search_error", "number", errors),
    ]


def generated_token_columns(answer: DecodeResponse) -> list[Column]:
    """A row for each generated token. Raises ``ValueError`` where the answer lists none."""
    listed = [
        (place, one.tokens)
        for place, one in enumerate(decoded(answer))
        if one is not None and one.tokens is not None
    ]
    if not listed:
        raise ValueError("the answer lists no tokens: ask for token_logprobs=True")
    if answer.compared is None:
        return _token_columns("sequence", listed, [answer.sequences[n].text for n, _ in listed])
    return _token_columns("strategy", listed, [answer.compared[n].strategy for n, _ in listed])


def decoded(answer: DecodeResponse) -> list[DecodedSequence | None]:
    """The sequences; where strategies were compared, the best one of each."""
    if answer.compared is None:
        return [*answer.sequences]
    return [one.sequence for one in answer.compared]


def node_columns(answer: DecodeResponse) -> list[Column]:
    """A row for each node of the search trees. Raises ``ValueError`` where there is none."""
    compared = answer.compared or ()
    trees: list[tuple[str | None, SearchTree]] = [
        (one.strategy, one.search_tree) for one in compared if one.search_tree is not None
    ]
    if answer.search_tree is not None:
        trees.append((None, answer.search_tree))
    if not trees:
        raise ValueError("the answer has no search tree: ask for search_tree=True")
    nodes = [
        (strategy, place, node) for strategy, tree in trees for place, node in enumerate(tree.nodes)
    ]
    fields: tuple[tuple[str, Kind], ...] = (
        ("parent", "integer"),
        ("id", "integer"),
        ("text", "text"),
        ("logprob", "number"),
        ("total", "number"),
        ("state", "text"),
        ("step", "integer"),
    )
    return [
        Column("strategy", "text", [strategy for strategy, _, _ in nodes]),
        Column("node", "integer", [place for _, place, _ in nodes]),
        *(Column(name, kind, [getattr(n, name) for _, _, n in nodes]) for name, kind in fields),
    ]


def next_token_columns(answer: NextTokenResponse) -> list[Column]:
    """A row for each token that is listed, then one for each that was asked for by name."""
    tokens = [*answer.tokens, *answer.chosen]
    fields: tuple[tuple[str, Kind], ...] = (
        ("id", "integer"),
        ("text", "text"),
        ("logprob", "number"),
        ("probability", "number"),
        ("rank", "integer"),
    )
    listed = len(answer.tokens)
    return [
        *(Column(name, kind, [getattr(one, name) for one in tokens]) for name, kind in fields),
        Column("chosen", "flag", [place >= listed for place in range(len(tokens))]),
    ]


def audited_candidate_columns(answer: AuditResponse) -> list[Column]:
    """A row for each candidate: how ranking and training look at it."""
    found = answer.candidates
    views = ("sum", "mean", "per_byte")
    ranking: list[Column] = []
    for view in views:
        ranked = [getattr(one.ranking, view, None) for one in found]
        ranking += [
            Column(view, "number", [getattr(one, "score", None) for one in ranked]),
            Column(f"{view}_rank", "integer", [getattr(one, "rank", None) for one in ranked]),
        ]
    policies = [one.join.policies if one.join is not None else None for one in found]
    return [
        Column("index", "integer", [one.index for one in found]),
        Column("candidate", "text", [one.text for one in found]),
        *ranking,
        Column("mean_nll", "number", [getattr(one.training, "mean_nll", None) for one in found]),
        Column("joint", "number", [getattr(one, "joint", None) for one in policies]),
        Column("separate", "number", [getattr(one, "separate", None) for one in policies]),
        Column("error", "text", [one.error and one.error.message for one in found]),
    ]


def audited_token_columns(answer: AuditResponse) -> list[Column]:
    """A row for each scored token, with the entropy of its place."""
    rows = [
        (one.index, one.text, position, token)
        for one in answer.candidates
        for position, token in enumerate(one.tokens)
    ]
    fields: tuple[tuple[str, Kind], ...] = (
        ("id", "integer"),
        ("text", "text"),
        ("start", "integer"),
        ("end", "integer"),
        ("logprob", "number"),
        ("rank", "integer"),
        ("entropy", "number"),
        ("cumulative", "number"),
    )
    likeliest = [token.alternative for _, _, _, token in rows]
    return [
        Column("index", "integer", [index for index, _, _, _ in rows]),
        Column("candidate", "text", [text for _, text, _, _ in rows]),
        Column("position", "integer", [position for _, _, position, _ in rows]),
        *(Column(name, kind, [getattr(t, name) for *_, t in rows]) for name, kind in fields),
        Column("alternative", "text", [getattr(one, "text", None) for one in likeliest]),
        Column(
            "alternative_logprob", "number", [getattr(one, "logprob", None) for one in likeliest]
        ),
    ]


def _token_columns(
    owner: str, listed: Sequence[tuple[int, Sequence[TokenDetail]]], names: Iterable[str | None]
) -> list[Column]:
    rows = [
        (index, name, position, token, total)
        for (index, tokens), name in zip(listed, names, strict=True)
        for position, (token, total) in enumerate(
            zip(tokens, accumulate(token.logprob for token in tokens), strict=True)
        )
    ]
    fields: tuple[tuple[str, Kind], ...] = (
        ("id", "integer"),
        ("text", "text"),
        ("start", "integer"),
        ("end", "integer"),
        ("logprob", "number"),
        ("rank", "integer"),
    )
    return [
        Column("index", "integer", [row[0] for row in rows]),
        Column(owner, "text", [row[1] for row in rows]),
        Column("position", "integer", [row[2] for row in rows]),
        *(Column(name, kind, [getattr(row[3], name) for row in rows]) for name, kind in fields),
        Column("cumulative", "number", [row[4] for row in rows]),
    ]


def _of_compact(compact: CompactScores) -> Iterable[CandidateScore]:
    ranked = compact.ranked
    optional = ("tie_group", "numeric_error", "probability", "probability_bounds")
    for place, index in enumerate(ranked.index):
        given = {name: getattr(ranked, name) for name in optional}
        yield CandidateScore(
            index=index,
            rank=ranked.rank[place],
            score=ranked.score[place],
            logprob=ranked.logprob[place],
            **{name: column[place] for name, column in given.items() if column is not None},
        )
    if compact.unranked is not None:
        for index, score in zip(compact.unranked.index, compact.unranked.score, strict=True):
            yield CandidateScore(index=index, score=score)
    if compact.pruned is not None:
        for index, bound in zip(compact.pruned.index, compact.pruned.bound, strict=True):
            yield CandidateScore(index=index, bound=bound)
    if compact.failed is not None:
        failed = compact.failed
        for index, code, message in zip(failed.index, failed.code, failed.message, strict=True):
            error = ErrorObject(message=message, type="invalid_request_error", code=code)
            yield CandidateScore(index=index, error=error)
