"""The answers to the parts of one list, put together as the answer to the whole."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from app.client.errors import FingerprintMismatch
from app.client.split.parts import Key, Part
from app.schemas.response import Timings, Usage
from app.schemas.score import ScoreRequest
from app.schemas.score_response import CandidateScore, ScoreResponse

Found = Sequence[tuple[Part, ScoreResponse]]
Places = Mapping[Key, Sequence[int]]


def merged(
    request: ScoreRequest, places: Places, found: Found, thrown_away: Sequence[ScoreResponse]
) -> ScoreResponse:
    """The whole list's answer. See ``split_score``.

    Args:
        request: of the whole list.
        places: the indices of each distinct candidate in it.
        found: each part with its answer, all from the same start.
        thrown_away: answers from another start, for what they cost.

    Raises:
        DifferentModels: not all come from one model.
    """
    first = found[0][1]
    every = [*(answer for _, answer in found), *thrown_away]
    if {answer.fingerprint for answer in every} != {first.fingerprint}:
        raise FingerprintMismatch("parts of one list were answered by models of other fingerprints")
    results = _results(request, places, found)
    return first.model_copy(
        update={
            "results": results,
            "off_candidate_mass": _mass_left(first, places, results),
            "usage": _usage(results, every),
            "timings_ms": _slowest(every),
        }
    )


def with_index(message: str, index: int, new: int) -> tuple[str, str]:
    """An error's message and param with another candidate's index."""
    old = f"candidates.{index}"
    param = f"candidates.{new}"
    return (param + message.removeprefix(old) if message.startswith(old) else message), param


def _results(request: ScoreRequest, places: Places, found: Found) -> list[CandidateScore]:
    by_key = {
        key: result
        for part, answer in found
        for key, result in zip(part.keys, answer.results, strict=True)
        if key in part.owned
    }
    keys = [one if isinstance(one, str) else tuple(one) for one in request.candidates]
    scores = [by_key[key].score for key in keys]
    ranks = ranks_of(scores)
    shares = shares_of(scores, request.temperature)
    groups = tie_groups_of(scores, [by_key[key].numeric_error for key in keys])
    begun = _begun(places, found)
    return [
        _moved(by_key[key], index).model_copy(
            update={
                "rank": ranks[index],
                "probability": shares[index],
                "tie_group": groups[index],
                "prefix_of": begun.get(key, []),
            }
        )
        for index, key in enumerate(keys)
    ]


def _begun(places: Places, found: Found) -> dict[Key, list[int]]:
    """The candidates of the whole list that each one begins, ascending."""
    begun: dict[Key, set[int]] = {}
    for part, answer in found:
        for key, result in zip(part.keys, answer.results, strict=True):
            for position in result.prefix_of:
                begun.setdefault(key, set()).update(places[part.keys[position]])
    return {key: sorted(indices) for key, indices in begun.items()}


def _moved(result: CandidateScore, index: int) -> CandidateScore:
    error = result.error
    if error is not None and error.param == f"candidates.{result.index}":
        message, param = with_index(error.message, result.index, index)
        error = error.model_copy(update={"message": message, "param": param})
    return result.model_copy(update={"index": index, "error": error})


def _mass_left(
    first: ScoreResponse, places: Places, results: Sequence[CandidateScore]
) -> float | None:
    if first.boundary.shift_bytes or any(_begins_a_scored_one(one, results) for one in results):
        return None
    distinct = [results[indices[0]].logprob for indices in places.values()]
    return max(0.0, 1.0 - math.fsum(math.exp(one) for one in distinct if one is not None))


def _begins_a_scored_one(result: CandidateScore, results: Sequence[CandidateScore]) -> bool:
    if result.logprob is None:
        return False
    return any(results[index].logprob is not None for index in result.prefix_of)


def _usage(results: Sequence[CandidateScore], every: Sequence[ScoreResponse]) -> Usage:
    """What all requests cost together, for the context and the tokens of one."""
    return Usage(
        prompt_tokens=every[0].usage.prompt_tokens,
        scored_tokens=sum(result.token_count or 0 for result in results),
        cached_tokens=sum(answer.usage.cached_tokens for answer in every),
        computed_tokens=sum(answer.usage.computed_tokens for answer in every),
        reused_scores=sum(answer.usage.reused_scores for answer in every),
    )


def _slowest(every: Sequence[ScoreResponse]) -> Timings:
    return max((answer.timings_ms for answer in every), key=lambda timings: timings.total)


def ranks_of(scores: Sequence[float | None]) -> list[int | None]:
    """1 + the number of strictly better scores; None where there is no score."""
    places: dict[float, int] = {}
    for place, score in enumerate(sorted(_present(scores), reverse=True), start=1):
        places.setdefault(score, place)
    return [None if score is None else places[score] for score in scores]


def shares_of(scores: Sequence[float | None], temperature: float) -> list[float | None]:
    """Softmax of ``score / temperature`` over the scores that there are."""
    best = max(_present(scores), default=0.0)
    weights = [None if one is None else math.exp((one - best) / temperature) for one in scores]
    mass = math.fsum(_present(weights))
    return [None if weight is None else weight / mass for weight in weights]


def tie_groups_of(
    scores: Sequence[float | None], errors: Sequence[float | None]
) -> list[int | None]:
    """Which neighbours in sorted order are closer than their errors; groups count from 1.

    None for a score that is tied with no other, and for all where an error is not known.
    """
    known = {index: error for index, error in enumerate(errors) if error is not None}
    order = sorted(
        (index for index, score in enumerate(scores) if score is not None),
        key=lambda index: -_number(scores[index]),
    )
    groups: list[int | None] = [None] * len(scores)
    if not all(index in known for index in order):
        return groups
    largest: dict[float, float] = {}
    for index in order:
        score = _number(scores[index])
        largest[score] = max(largest.get(score, 0.0), known[index])
    count = 0
    for better, worse in pairwise(order):
        high, low = _number(scores[better]), _number(scores[worse])
        if low != high and low + largest[low] < high - largest[high]:
            continue
        if groups[better] is None:
            count += 1
            groups[better] = count
        groups[worse] = groups[better]
    return groups


def _present(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _number(value: float | None) -> float:
    if value is None:
        raise RuntimeError("this is a bug: a candidate without a score was put in order")
    return value
