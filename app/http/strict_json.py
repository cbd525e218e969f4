"""JSON, read so that no two readers could understand it differently.

Python's reader alone would take the last of two equal keys, and NaN and Infinity for numbers.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final, NoReturn

MAX_CONTAINERS: Final = 262_144
"""Lists and objects in one body: twice as many as candidates. They are 25 to 35 times as large in
Python: without this bound 8 MiB of ``[],[],`` took 200 MiB and of ``[[]],[[]],`` 280, and more than
a second in which no other thread ran."""

_STRINGS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)

MAX_KEYS = 1_024
"""Of one object: room for data that a field takes as it is. Where the schema has its own keys, each
unknown one costs a complaint, of which the first is told; lists stop at their first bad entry."""


class JsonError(Exception):
    """The text has no value, or not one only.

    Attributes:
        key: that stands twice in one object, if that is it.
    """

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class MalformedJson(JsonError):
    """It is not JSON in UTF-8, or nested too deep."""


class AmbiguousJson(JsonError):
    """An object has a key twice, a number is not finite, a string holds half a surrogate pair,
    which no text in UTF-8 can, or the lists and objects are too many."""


def parse_json(body: bytes, name: str = "The request body") -> Any:
    """The value that ``body`` spells; errors call it ``name``.

    Raises:
        MalformedJson, AmbiguousJson: there is none, or not one only.
    """
    _check_containers(body, name)
    try:
        text = body.decode("utf-8")
        value = _loads(text)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        return value
    except RecursionError:
        raise MalformedJson(f"{name} is nested too deep.") from None
    except UnicodeDecodeError:
        raise MalformedJson(f"{name} is not UTF-8.") from None
    except UnicodeEncodeError:
        raise AmbiguousJson("A string holds half of a surrogate pair.") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise MalformedJson(f"{name} is not JSON: {error.msg} at {place}.") from None
    except ValueError:
        # What is left is Python's own bound on the digits of an integer.
        raise AmbiguousJson(f"{name} holds a number with too many digits.") from None


def _check_containers(body: bytes, name: str) -> None:
    count = _brackets(body)
    if count > MAX_CONTAINERS:
        count -= sum(_brackets(string.group()) for string in _STRINGS.finditer(body))
    if count > MAX_CONTAINERS:
        raise AmbiguousJson(f"{name} holds {count} lists; no request has that many.")


def _brackets(text: bytes) -> int:
    return text.count(b"[") + text.count(b"{")


def _loads(text: str) -> Any:
    return json.loads(
        text, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_KEYS:
        raise AmbiguousJson(f"An object has {len(pairs)} keys; no request has that many.")
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise AmbiguousJson("This key stands twice in one object.", key[:100])
        seen.add(key)
    raise RuntimeError("this is a bug: equal keys were counted and not found")


def _refuse_constant(name: str) -> NoReturn:
    raise AmbiguousJson(f"{name} is not a number that JSON knows.")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise AmbiguousJson("A number is beyond the range of a float.")
    return number
