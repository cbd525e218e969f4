"""A closed set of candidates as token paths: where they meet the context, and which is which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from app.requests.item_errors import with_candidate_index
from app.requests.limits import check_joined_chars
from app.requests.prompt import Prompt
from app.requests.token_details import path_bytes
from app.requests.worker_threads import check_wanted
from app.schemas.bounds import MAX_CHOICE_IDS
from app.schemas.score_response import BoundaryReport
from model_runtime import (
    InvalidQuery,
    Join,
    JoinedCandidate,
    ModelInfo,
    PathTooLong,
    Tokenizer,
    join,
)

Path = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CandidateSet:
    """The candidates of a request.

    Attributes:
        given: as the request has them.
        joined: where they meet the context.
        paths: [len(given)] generated tokens of each, without an end token.
        ended: a candidate is finished by an end token.
    """

    given: Sequence[str | Sequence[int]]
    joined: Join
    paths: tuple[Path, ...]
    ended: bool

    @property
    def longest(self) -> int:
        """Generated tokens of the longest candidate, its end token included."""
        return max(map(len, self.paths)) + self.ended

    @property
    def boundary(self) -> BoundaryReport:
        """What the response says of the join."""
        return BoundaryReport.model_validate(self.joined, from_attributes=True)

    def fitting(self, max_tokens: int, min_tokens: int) -> tuple[Path, ...]:
        """The distinct paths whose length is allowed.

        Raises:
            InvalidQuery: there is none; names the setting that leaves none.
        """
        short = [path for path in self.paths if len(path) + self.ended <= max_tokens]
        if not short:
            least = min(map(len, self.paths)) + self.ended
            _refuse("max_tokens", f"no candidate fits; the shortest takes {least} tokens")
        fitting = [path for path in short if len(path) >= min_tokens]
        if not fitting:
            _refuse("min_tokens", f"no candidate has {min_tokens} tokens and fits max_tokens")
        return tuple(dict.fromkeys(fitting))

    def index(self, generated: Sequence[int], *, ended: bool) -> int | None:
        """Which candidate was generated, the first of equal ones; None where it is none.

        Args:
            generated: all generated ids.
            ended: the last of them is an end token.
        """
        path = tuple(generated[:-1] if ended else generated)
        return self.paths.index(path) if ended == self.ended and path in self.paths else None

    def content(self, tokenizer: Tokenizer, index: int) -> bytes:
        """The text of a candidate: its own, where it was given as text."""
        given = self.given[index]
        return given.encode() if isinstance(given, str) else path_bytes(tokenizer, given)


def parse_candidates(
    tokenizer: Tokenizer,
    info: ModelInfo,
    prompt: Prompt,
    given: Sequence[str | Sequence[int]],
    ends: frozenset[int],
    *,
    ended: bool,
) -> CandidateSet:
    """Join candidates to their context.

    Args:
        tokenizer: the model's.
        info: what is served.
        prompt: the request's context.
        given: the candidates, at least one.
        ends: the tokens that end a completion; none may be inside a candidate.
        ended: a candidate is finished by one of them.

    Raises:
        InvalidQuery: a candidate cannot be generated, named by index.
    """
    check_joined_chars(tokenizer, prompt.content, given)
    joined = join(
        tokenizer,
        prompt.content,
        given,
        add_bos=prompt.add_bos,
        prefix_token_id=prompt.prefix_token_id,
        check=check_wanted,
    )
    room = info.max_model_len - len(joined.prefix) - ended
    paths = tuple(
        _path(candidate, index, ends, room) for index, candidate in enumerate(joined.candidates)
    )
    if sum(map(len, paths)) > MAX_CHOICE_IDS:
        _refuse("candidates", f"they take more than {MAX_CHOICE_IDS} tokens in all")
    return CandidateSet(given, joined, paths, ended)


def _path(
    candidate: JoinedCandidate | InvalidQuery, index: int, ends: frozenset[int], room: int
) -> Path:
    if isinstance(candidate, InvalidQuery):
        raise with_candidate_index(candidate, index)
    path = candidate.token_ids
    if not ends.isdisjoint(path):
        token = next(token for token in path if token in ends)
        message = f"token {token} ends a completion; leave it out, append_eos adds an end"
        raise with_candidate_index(InvalidQuery(message), index)
    if len(path) > room:
        message = f"{len(path)} tokens are too many behind this context; there is room for {room}"
        raise with_candidate_index(PathTooLong(message), index)
    return path


def _refuse(param: str, message: str) -> NoReturn:
    raise InvalidQuery(message, param)
