"""What a query is known by: a digest of everything that its answer depends on.

Equal digests mean the same model, the same salts, the same token path and the same question.
The hashed text can be read in one way only, so no two queries have the same one::

    (fingerprint, salt)  (query's salt, P)  P ids before the scored ones  (the question)  other ids
    └─── once a call ──┘ └────────── once for each prefix ─────────────┘  └────── each query ─────┘

Thousands of candidates behind one long context cost little more than the context.
"""

from __future__ import annotations

import hashlib
import secrets
from array import array
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from operator import attrgetter
from typing import Any

from model_runtime import LogprobQuery, TokenSet

DIGEST_BYTES = 32

RECENT_PREFIXES = 32
"""Contexts of one call that are remembered; a request has one, and those of its baseline."""

_PLACE = ("tokens", "cache_salt")
_question = attrgetter(*(field.name for field in fields(LogprobQuery) if field.name not in _PLACE))
"""All that is asked along a path, whatever fields a query has."""


def cache_keys(fingerprint: str, cache_salt: str, queries: Iterable[LogprobQuery]) -> list[bytes]:
    """A digest of ``DIGEST_BYTES`` for each query, in order.

    A query with an id of more than 32 bits, which no model has, gets one that nobody else has.

    Args:
        fingerprint: the model's.
        cache_salt: the request's; that of each query is taken into account beside it.
        queries: what is asked.
    """
    keys = _Digests(fingerprint, cache_salt)
    return [keys.of(query) for query in queries]


class _Digests:
    def __init__(self, fingerprint: str, cache_salt: str) -> None:
        self._start = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._start.update(_spelled((fingerprint, cache_salt)).encode())
        self._prefixes: dict[tuple[str, tuple[int, ...]], hashlib.blake2b] = {}
        self._latest: tuple[tuple[str, tuple[int, ...]], hashlib.blake2b] | None = None
        self._questions: dict[Any, bytes] = {}

    def of(self, query: LogprobQuery) -> bytes:
        try:
            state = self._behind_prefix(query).copy()
            rest = array("i", query.tokens[query.score_from :])
        except OverflowError:
            return secrets.token_bytes(DIGEST_BYTES)
        state.update(self._spelled_question(query))
        state.update(rest.tobytes())
        return state.digest()

    def _behind_prefix(self, query: LogprobQuery) -> hashlib.blake2b:
        prefix = query.cache_salt, query.tokens[: query.score_from]
        # Long prefixes are slow to hash, and mostly the one of the query before.
        if self._latest is not None and self._latest[0] == prefix:
            return self._latest[1]
        state = self._prefixes.get(prefix)
        if state is None:
            state = self._start.copy()
            salt, tokens = prefix
            state.update(_spelled((salt, len(tokens))).encode())
            state.update(array("i", tokens).tobytes())
            if len(self._prefixes) == RECENT_PREFIXES:
                del self._prefixes[next(iter(self._prefixes))]
            self._prefixes[prefix] = state
        self._latest = prefix, state
        return state

    def _spelled_question(self, query: LogprobQuery) -> bytes:
        question = _question(query)
        spelled = self._questions.get(question)
        if spelled is None:
            spelled = self._questions[question] = _spelled(question).encode()
        return spelled


def _spelled(value: object) -> str:
    """The value as a text that no other value has."""
    if value is None or isinstance(value, int | float | str):
        return repr(value)
    if isinstance(value, tuple):
        return f"({','.join(map(_spelled, value))})"
    if isinstance(value, TokenSet):
        return f"<{value.bits.hex()} of {value.vocab_size}>"
    if is_dataclass(value):
        return _spelled(tuple(getattr(value, field.name) for field in fields(value)))
    raise TypeError(f"this is a bug: a query holds a {type(value).__name__}, which has no digest")
