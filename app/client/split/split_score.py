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
from collections.abc import Generator, Mapping, Sequence

from app.client.errors import ApiError, ClientError, InvalidRequest
from app.client.split.merge import merged, with_index
from app.client.split.parts import Key, Part, cut_into_parts
from app.schemas.score import ScoreRequest
from app.schemas.score_response import ScoreResponse

Answer = ScoreResponse | ClientError
Rounds = Generator[list[ScoreRequest], list[Answer], ScoreResponse]

_CANDIDATE = re.compile(r"candidates\.(\d+)")
_WHOLE_LISTS = ("top_n", "compact")
"""Settings whose answers cannot be put together from those of parts."""


def split_score(request: ScoreRequest, size: int) -> Rounds:
    """The answer to ``request``, from requests of at most about ``size`` candidates each.

    Ranks, probabilities, tie groups, ``prefix_of``, the mass that is left and the receipt are those
    of the whole list, to the bit. ``usage`` adds up all that was asked; ``timings_ms`` is the
    slowest request's. Candidates of different text must have different tokens, as with every
    tokenizer that does not normalize; else ``prefix_of`` may miss a pair of which the text does not
    tell.

    Raises:
        InvalidRequest: the request cannot be split.
        FingerprintMismatch: the answers are not one model's.
        InvalidResponse: their receipts do not go together.
        ClientError: what a part failed with; a candidate's index is that of the whole list.
    """
    places = _places(request)
    if len(places) <= size:
        (answer,) = yield [request]
        return _response(answer)
    parts = cut_into_parts(places, size)
    answers = yield from _ask(request, places, parts)
    _refuse(request, answers)
    responses = [one for one in answers if isinstance(one, ScoreResponse)]
    start = min(response.boundary.start_token for response in responses)
    scored = _scored_key(parts, answers)
    again = {
        # What fails alone fails one by one beside a candidate that can be scored.
        n: part if isinstance(answer, ScoreResponse) else Part((*part.keys, scored), part.owned)
        for n, (part, answer) in enumerate(zip(parts, answers, strict=True))
        if not (isinstance(answer, ScoreResponse) and answer.boundary.start_token == start)
    }
    second = yield from _ask(request, places, list(again.values()), start)
    for n, answer in zip(again, second, strict=True):
        parts[n], answers[n] = again[n], answer
    found = [(part, _response(answer)) for part, answer in zip(parts, answers, strict=True)]
    discarded = [one for one in responses if one.boundary.start_token != start]
    return merged(request, places, found, discarded)


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


def _ask(
    request: ScoreRequest,
    places: Mapping[Key, Sequence[int]],
    parts: Sequence[Part],
    start: int | None = None,
) -> Generator[list[ScoreRequest], list[Answer], list[Answer]]:
    """A round: the answers to parts, the errors with indices of the whole list."""
    if not parts:
        return []
    answers = yield [_of_part(request, part.keys, start) for part in parts]
    return [_relocated(answer, part, places) for part, answer in zip(parts, answers, strict=True)]


def _of_part(request: ScoreRequest, keys: Sequence[Key], start: int | None) -> ScoreRequest:
    candidates = [key if isinstance(key, str) else list(key) for key in keys]
    pinned = {} if start is None else {"start_token": start}
    # What is checked already is not checked again: a copy has the fields of the whole.
    return request.model_copy(update={"candidates": candidates, **pinned})


def _refuse(request: ScoreRequest, answers: Sequence[Answer]) -> None:
    """Raise what fails the list as a whole.

    A part of which nothing can be scored is refused by the server; in the whole list its candidates
    fail one by one.
    """
    failed = [answer for answer in answers if isinstance(answer, ClientError)]
    for error in failed:
        if _candidate_index(error) is None:
            raise error
    if failed and (request.all_or_nothing or len(failed) == len(answers)):
        raise min(failed, key=lambda error: _candidate_index(error) or 0)


def _scored_key(parts: Sequence[Part], answers: Sequence[Answer]) -> Key:
    """A candidate that can be scored."""
    for part, answer in zip(parts, answers, strict=True):
        if isinstance(answer, ScoreResponse):
            return next(part.keys[one.index] for one in answer.results if one.error is None)
    raise RuntimeError("this is a bug: parts were put together of which none was answered")


def _candidate_index(answer: Answer) -> int | None:
    """The index of the candidate that is at fault, if one is."""
    param = answer.param if isinstance(answer, ApiError) else None
    match = _CANDIDATE.fullmatch(param or "")
    return None if match is None else int(match[1])


def _relocated(answer: Answer, part: Part, places: Mapping[Key, Sequence[int]]) -> Answer:
    """An error with the candidate's index in the whole list; anything else as it is."""
    index = _candidate_index(answer)
    if index is None or not isinstance(answer, ApiError):
        return answer
    moved = with_index(answer.message, f"candidates.{index}", places[part.keys[index]][0])
    return type(answer)(**{**vars(answer), **moved})


def _response(answer: Answer) -> ScoreResponse:
    if isinstance(answer, ScoreResponse):
        return answer
    raise answer
