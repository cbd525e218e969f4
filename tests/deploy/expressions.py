"""PromQL expressions: which series they select, and by which labels.

No parser, but enough to find a name that is misspelt; Prometheus itself checks the grammar.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_RANGE = re.compile(r"\[[^\]]*\]")
_STRING = re.compile(r'"[^"]*"')
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*(\{[^}]*\}|\()?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')
_KEYWORDS = {"and", "or", "unless", "bool", "offset"}
_NUMBER = re.compile(r"\b\d[\w.]*")


@dataclass(frozen=True)
class Selector:
    """A metric, and the labels that its series are chosen by."""

    name: str
    labels: frozenset[str]


def selectors(expr: str) -> list[Selector]:
    """Every metric that the expression reads."""
    return list(_selectors(expr))


def grouping(expr: str) -> set[str]:
    """The labels that its results are grouped and joined by."""
    found = _GROUPING.findall(_STRING.sub('""', expr))
    return {label.strip() for group in found for label in group.split(",") if label.strip()}


def _selectors(expr: str) -> Iterator[Selector]:
    # Emptied strings still show where a matcher is, and hold no brace and no name.
    bare = _NUMBER.sub("", _RANGE.sub("", _GROUPING.sub("", _STRING.sub('""', expr))))
    for name, follows in _SELECTOR.findall(bare):
        if name not in _KEYWORDS and follows != "(":
            yield Selector(name, frozenset(_MATCHER.findall(follows)))
