"""``^`` and ``$`` of an expression that matches whole texts, where they say nothing new. Pure."""

from __future__ import annotations

import re

from model_runtime.errors import InvalidQuery

_FLAGS = re.compile(r"\(\?[A-Za-z-]+\)")
_PROPERTY = re.compile(r"\\[pPxuU]\{[^}]*\}")


def without_anchors(pattern: str) -> str:
    """The same expression without its anchors, for whoever matches whole texts anyway.

    They may stand around the whole expression, and around each of its alternatives where these are
    in no group: ``^yes$|^no$`` is ``yes|no``. Escaped ones and those in classes are characters.

    Args:
        pattern: in the syntax of Rust's ``regex``; what is none of it is left as it is.

    Raises:
        InvalidQuery: about ``regex``: an anchor stands anywhere else.
    """
    kept: list[str] = []
    place, depth, begins = 0, 0, True
    while place < len(pattern):
        end = _end_of_part(pattern, place)
        part = pattern[place:end]
        if part == "^" or part == "$":
            behind = pattern[end:].lstrip("$")[:1]
            ends = depth == 0 and (not behind or behind == "|")
            if not (begins if part == "^" else ends):
                raise _refused(part, place)
        else:
            kept.append(part)
            depth += (part == "(") - (part == ")")
            begins = depth == 0 and (part == "|" or (begins and bool(_FLAGS.fullmatch(part))))
        place = end
    return "".join(kept)


def _end_of_part(pattern: str, place: int) -> int:
    """Where the class, the escaped character, the flags or the character ends that begins here."""
    if pattern[place] == "[":
        return _end_of_class(pattern, place)
    found = _FLAGS.match(pattern, place) or _PROPERTY.match(pattern, place)
    if found is not None:
        return found.end()
    return min(len(pattern), place + (2 if pattern[place] == "\\" else 1))


def _end_of_class(pattern: str, place: int) -> int:
    """Where the class ends that begins here; classes may hold classes."""
    depth = 0
    while place < len(pattern):
        character = pattern[place]
        if character == "\\":
            place += 1
        elif character == "[":
            depth += 1
            # What comes first in a class is a character, also where it would close it.
            place += pattern.startswith("^", place + 1)
            place += pattern.startswith("]", place + 1)
        elif character == "]":
            depth -= 1
            if depth == 0:
                return place + 1
        place += 1
    return len(pattern)


def _refused(anchor: str, place: int) -> InvalidQuery:
    return InvalidQuery(
        f"{anchor} at character {place + 1} stands inside; an expression always matches the whole "
        f"text, and ^ and $ may only stand around it (\\{anchor} is the character)",
        "regex",
    )
