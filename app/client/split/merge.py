"""The answers to the parts of one list, put together as the answer to the whole."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from app.client.errors import FingerprintMismatch
from app.client.split.parts import Key, Part
from app.client.split.receipt import merged_receipt
from app.schemas.response import Timings, Usage
from app.schemas.score import ScoreRequest
from app.schemas.score_response import (
    WARNED_CANDIDATES,
    CandidateScore,
    ScoreResponse,
    ScoreWarning,
    beginnings,
)
from model_runtime import competition_ranks, probabilities, tie_groups

_CANDIDATE = re.compile(r"candidates\.(\d+)")

Found = Sequence[tuple[Part, ScoreResponse]]
Places = Mapping[Key, Sequence[int]]


def merged(
    request: ScoreRequest, places: Places, found: Found, discarded: Sequence[ScoreResponse]
) -> ScoreResponse:
    """The whole list's answer. See ``split_score``.

    Args:
        request: of the whole list.
        places: the indices of each distinct candidate in it.
        found: each part with its answer, all from the same start.
        discarded: answers from another start, for what they cost.

    Raises:
        FingerprintMismatch: not all come from one model.
        InvalidResponse: their receipts do not go together.
    """
    first = found[0][1]
    every = [*(answer for _, answer in found), *discarded]
    if {answer.fingerprint for answer in every} != {first.fingerprint}:
        raise FingerprintMismatch("parts of one list were answered by models of other fingerprints")
    keys = [one if isinstance(one, str) else tuple(one) for one in request.candidates]
    results = _results(request, keys, places, found)
    return first.model_copy(
        update={
            "results": results,
            "off_candidate_mass": _mass_left(first, places, results),
            "usage": _usage(results, every),
            "timings_ms": _slowest(every),
            "receipt": merged_receipt(keys, found),
            "warnings": _warnings(places, found, results),
        }
    )


def with_index(message: str, param: str, index: int) -> dict[str, str]:
    """An error's message and param with the candidate's index in the whole list."""
    moved = f"candidates.{index}"
    if message.startswith(param):
        message = moved + message.removeprefix(param)
    return {"message": message, "param": moved}


def _results(
    request: ScoreRequest, keys: Sequence[Key], places: Places, found: Found
) -> list[CandidateScore]:
    by_key = {
        key: result
        for part, answer in found
        for key, result in zip(part.keys, answer.results, strict=True)
        if key in part.owned
    }
    results = [by_key[key] for key in keys]
    scores = [one.score for one in results]
    ranks = competition_ranks(scores)
    shares = probabilities(scores, request.temperature)
    groups: list[int | None] = [None] * len(results)
    if found[0][1].numeric_error is not None:
        groups = tie_groups(scores, [one.numeric_error or 0.0 for one in results])
    begun = _begun(places, found)
    return [
        _moved(result, index).model_copy(
            update={
                "rank": ranks[index],
                "probability": shares[index],
                "tie_group": groups[index],
                "prefix_of": begun.get(key, []),
            }
        )
        for index, (key, result) in enumerate(zip(keys, results, strict=True))
    ]


def _begun(places: Places, found: Found) -> dict[Key, list[int]]:
    """The candidates of the whole list that each one begins, ascending."""
    begun: dict[Key, set[int]] = {}
    for part, answer in found:
        for key, result in zip(part.keys, answer.results, strict=True):
            for position in result.prefix_of:
                begun.setdefault(key, set()).update(places[part.keys[position]])
    return {key: sorted(indices) for key, indices in begun.items()}


def _warnings(
    places: Places, found: Found, results: Sequence[CandidateScore]
) -> list[ScoreWarning]:
    """Those that the whole list would be answered with."""
    moved = {}
    for part, answer in found:
        for warning in answer.warnings:
            # The other kind is said anew, of the whole list.
            match = _CANDIDATE.fullmatch(warning.param)
            if warning.code != "missing_space" or match is None:
                continue
            key = part.keys[int(match[1])]
            if key not in part.owned:
                continue
            for index in places[key]:
                update = with_index(warning.message, warning.param, index)
                moved[index] = warning.model_copy(update=update)
    first = [moved[index] for index in sorted(moved) if index < WARNED_CANDIDATES]
    return [*first, *beginnings(results)]


def _moved(result: CandidateScore, index: int) -> CandidateScore:
    error = result.error
    if error is not None and error.param == f"candidates.{result.index}":
        error = error.model_copy(update=with_index(error.message, error.param, index))
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
