"""Which replica has a context's prefix: a key for a request, an order of replicas for a key.

Pure, so that it is tested without Ray. A request's key is what it names as its session, else a
hash of its context. Every replica has a rank for every key (rendezvous hashing: Thaler and
Ravishankar, "Using name-based mappings to increase hit rates", 1998), and the first of them is the
key's own. A replica that comes or goes moves only the keys that it has or had itself, one in n.

A bound on the load keeps a frequent key from crowding its replica (Mirrokni, Thorup and
Zadimoghaddam, "Consistent hashing with bounded loads", 2018): no replica gets another request while
it has ``factor`` times the mean; the next one in the key's order does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Final

MAX_SESSION_CHARS: Final = 128
MAX_HASHED_BYTES: Final = 1 << 20
"""Of a body, looked at for its context: at most about ten milliseconds' work on text."""
MAX_BRACKETS: Final = 4_096
"""Of a context that is a list, followed for its end."""
MAX_QUOTED_NAMES: Final = 4_096
"""Names of one field within texts, passed over."""

CONTEXT_FIELDS: Final = ("context", "prompt", "messages", "query", "input", "state", "text_1")
"""What the routes call the text that others are scored behind. The first one of them decides."""

LOAD_FACTOR: Final = 1.25
MIN_BOUND: Final = 8
"""Requests that a replica may have whatever the mean is: fewer are no crowd, as one forward
holds them all."""

_NAMES: Final = {field: re.compile(rb'"%s"\s*+:\s*+' % field.encode()) for field in CONTEXT_FIELDS}
_LISTS: Final = ("messages", "input")
_FIRST: Final = re.compile(rb'\[\s*+(?=["{])')
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+', re.DOTALL)
_BRACKET: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)
_PRINTABLE: Final = re.compile(rb"[ -~]+")


def session_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The value of ``X-Session-Id``; None where there is none, or none that is usable."""
    given = [value.strip() for name, value in headers if name.lower() == b"x-session-id"]
    if len(given) != 1 or len(given[0]) > MAX_SESSION_CHARS or not _PRINTABLE.fullmatch(given[0]):
        return None
    return given[0].decode("ascii")


def context_key(body: bytes) -> str | None:
    """A hash of the context in a JSON body; None where it has none. Of a list of messages
    the first one counts: a chat that grows stays where its beginning is.

    The body is not parsed: equal contexts have equal keys where they are written alike, as one
    client writes them. Of a longer body the first ``MAX_HASHED_BYTES`` count.
    """
    head = body[:MAX_HASHED_BYTES]
    for field, name in _NAMES.items():
        start = _behind(name, head)
        if start is not None:
            if field in _LISTS and (first := _FIRST.match(head, start)):
                start = first.end()
            return blake2b(_value(head, start), digest_size=16).hexdigest()
    return None


def _behind(name: re.Pattern[bytes], head: bytes) -> int | None:
    """Where the value of a field begins; None where there is no such field."""
    for found in islice(name.finditer(head), MAX_QUOTED_NAMES):
        # A quote within a JSON string has a backslash before it. To look behind in the pattern
        # itself would cost its search for a literal: milliseconds for each MiB.
        if head[found.start() - 1 : found.start()] != b"\\":
            return found.end()
    return None


def _value(body: bytes, start: int) -> bytes:
    """The JSON value that begins there, as written; up to the end where it is cut off."""
    if string := _STRING.match(body, start):
        return string[0]
    depth = 0
    end = len(body)
    for number, token in enumerate(_BRACKET.finditer(body, start)):
        if token[0] in b"[{":
            depth += 1
        elif token[0] in b"]}":
            depth -= 1
        end = token.end()
        if depth <= 0 or number == MAX_BRACKETS:
            break
    return body[start:end]


def ranked(key: str, replicas: Iterable[str]) -> list[str]:
    """The replicas in the order in which the key prefers them."""
    return sorted(replicas, key=lambda replica: (_weight(key, replica), replica), reverse=True)


def _weight(key: str, replica: str) -> bytes:
    return blake2b(key.encode(), key=blake2b(replica.encode()).digest(), digest_size=8).digest()


def bound(loads: Iterable[int], factor: float = LOAD_FACTOR, least: int = MIN_BOUND) -> int:
    """Requests that a replica may have together with the one that is routed now."""
    counts = list(loads)
    return max(least, math.ceil(factor * (sum(counts) + 1) / len(counts)))


def route(
    key: str,
    loads: Mapping[str, int],
    factor: float = LOAD_FACTOR,
    least: int = MIN_BOUND,
) -> Sequence[str]:
    """All replicas, best first: those within the bound in the key's order, then the others.

    Args:
        key: of the request.
        loads: requests that each replica has, by its id.
        factor: what a replica may have of the mean, at least 1.
        least: what it may have in any case.
    """
    if not loads:
        return []
    order = ranked(key, loads)
    most = bound(loads.values(), factor, least)
    return sorted(order, key=lambda replica: loads[replica] >= most)
