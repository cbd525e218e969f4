"""One list of candidates over several requests, with the numbers of one request.

A score depends on the tokens from the request's start on, and the start on all candidates of a
request. So each part is asked first; the least start of all is the whole list's; parts that began
elsewhere are asked again with that start pinned::

    part 0   " Paris"   start 2  ──┐
    part 1   "n't"      start 1  ──┴─> 1, part 0 again with start_token 1

Without I/O: ``split_score`` gives requests and takes their answers, a round at a time.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from app.client.errors import ApiError, ClientError, InvalidRequest
from app.client.split.merge import merged, with_index
from app.client.split.parts import Key, Part, cut_into_parts
from app.schemas.score import ScoreRequest
from app.schemas.score_response import ScoreResponse

Answer = ScoreResponse | ClientError
Rounds = Generator[list[ScoreRequest], list[Answer], ScoreResponse]

_CANDIDATE = re.compile(r"candidates\.(\d+)")
_WHOLE_LISTS = ("top_n", "compact", "boundary_detail")
"""Settings whose answers cannot be put together from those of parts."""


@dataclass(frozen=True, slots=True)
class AnsweredPart:
    """A part of a list and what became of it."""

    part: Part
    answer: ScoreResponse


def split_score(request: ScoreRequest, size: int) -> Rounds:
    """The answer to ``request``, from requests of at most about ``size`` candidates each.

    Ranks, probabilities, tie groups, ``prefix_of`` and the mass that is left are those of the whole
    list, to the bit. ``usage`` adds up all that was asked; ``timings_ms`` is the slowest request's.
    Candidates of different text must have different tokens, as with every tokenizer that does not
    normalize; else ``prefix_of`` may miss a pair of which the text does not tell.

    Raises:
        InvalidRequest: the request cannot be split.
        DifferentModels: the answers are not one model's.
        ClientError: what a part failed with; a candidate's index is that of the whole list.
    """
    places = _places(request)
    if len(places) <= size:
        (answer,) = yield [request]
        return _good(answer)
    parts = cut_into_parts(places, size)
    answers = yield [_of_part(request, part.keys, None) for part in parts]
    _refuse(request, places, parts, answers)
    start = min(one.boundary.start_token for one in answers if isinstance(one, ScoreResponse))
    looker_on = _scored_key(parts, answers)
    again = [n for n, answer in enumerate(answers) if not _starts_at(answer, start)]
    parts = [
        Part((*part.keys, looker_on), part.owned) if isinstance(answer, ClientError) else part
        for part, answer in zip(parts, answers, strict=True)
    ]
    told: list[Answer] = []
    if again:
        told = yield [_of_part(request, parts[n].keys, start) for n in again]
    final = dict(zip(again, told, strict=True))
    found = [
        (part, _good(final.get(n, answer), part, places))
        for n, (part, answer) in enumerate(zip(parts, answers, strict=True))
    ]
    thrown = [answers[n] for n in again]
    return merged(request, places, found, [one for one in thrown if isinstance(one, ScoreResponse)])


def check_size(size: int) -> int:
    """The number itself; ``ValueError`` for one below 1."""
    if size < 1:
        raise ValueError("size must be at least 1")
    return size


def _places(request: ScoreRequest) -> dict[Key, list[int]]:
    """Where each distinct candidate stands."""
    for param in _WHOLE_LISTS:
        if getattr(request, param):
            raise InvalidRequest(f"{param}: a list that has this cannot be split", param=param)
    if request.boundary == "marginal":
        raise InvalidRequest("boundary: marginal cannot be split", param="boundary")
    if len({isinstance(one, str) for one in request.candidates}) > 1:
        raise InvalidRequest(
            "candidates: a list of both texts and token ids cannot be split", param="candidates"
        )
    places: dict[Key, list[int]] = {}
    for index, one in enumerate(request.candidates):
        places.setdefault(one if isinstance(one, str) else tuple(one), []).append(index)
    return places


def _of_part(request: ScoreRequest, keys: Sequence[Key], start: int | None) -> ScoreRequest:
    candidates = [key if isinstance(key, str) else list(key) for key in keys]
    pinned = {} if start is None else {"start_token": start}
    # What is checked already is not checked again: a copy has the fields of the whole.
    return request.model_copy(update={"candidates": candidates, **pinned})


def _refuse(
    request: ScoreRequest,
    places: dict[Key, list[int]],
    parts: Sequence[Part],
    answers: Sequence[Answer],
) -> None:
    """Raise what fails the list as a whole.

    A part of which nothing can be scored is refused by the server; in the whole list its candidates
    fail one by one.
    """
    failed = [
        (part, answer)
        for part, answer in zip(parts, answers, strict=True)
        if isinstance(answer, ClientError)
    ]
    for _, error in failed:
        if _blamed(error) is None:
            raise error
    if failed and (request.all_or_nothing or len(failed) == len(parts)):
        raise min(
            (_relocated(error, part, places) for part, error in failed),
            key=lambda error: _blamed(error) or 0,
        )


def _scored_key(parts: Sequence[Part], answers: Sequence[Answer]) -> Key:
    """A candidate that can be scored."""
    for part, answer in zip(parts, answers, strict=True):
        if isinstance(answer, ScoreResponse):
            return next(part.keys[one.index] for one in answer.results if one.error is None)
    raise RuntimeError("this is a bug: parts were put together of which none was answered")


def _starts_at(answer: Answer, start: int) -> bool:
    return isinstance(answer, ScoreResponse) and answer.boundary.start_token == start


def _good(
    answer: Answer, part: Part | None = None, places: dict[Key, list[int]] | None = None
) -> ScoreResponse:
    if isinstance(answer, ScoreResponse):
        return answer
    raise answer if part is None or places is None else _relocated(answer, part, places)


def _blamed(error: ClientError) -> int | None:
    """The index of the candidate that is at fault."""
    match = _CANDIDATE.fullmatch(error.param or "") if isinstance(error, ApiError) else None
    return None if match is None else int(match[1])


def _relocated(error: ClientError, part: Part, places: dict[Key, list[int]]) -> ClientError:
    """The same error with the candidate's index in the whole list."""
    index = _blamed(error)
    if index is None or not isinstance(error, ApiError):
        return error
    message, param = with_index(error.message, index, places[part.keys[index]][0])
    return type(error)(
        message,
        status=error.status,
        type=error.type,
        param=param,
        code=error.code,
        request_id=error.request_id,
    )
