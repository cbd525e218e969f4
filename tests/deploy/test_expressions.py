"""What is found in expressions."""

from __future__ import annotations

import pytest

from tests.deploy.expressions import Selector, grouping, selectors


@pytest.mark.parametrize(
    ("expr", "found", "labels"),
    [
        ("up", [("up", ())], set()),
        ('a:b:rate5m{x="{by (c)}", y=~"$d|[e]"} > 0.5', [("a:b:rate5m", ("x", "y"))], set()),
        ("sum by (le, route) (rate(a_bucket[5m]))", [("a_bucket", ())], {"le", "route"}),
        ("1e9 * a / on (b) group_left () (c > 0)", [("a", ()), ("c", ())], {"b"}),
        ("a offset 1d and b or vector(0)", [("a", ()), ("b", ())], set()),
        ('a{b!="x"}[$__rate_interval] unless c', [("a", ("b",)), ("c", ())], set()),
    ],
)
def test_names_and_labels_are_found(
    expr: str, found: list[tuple[str, tuple[str, ...]]], labels: set[str]
) -> None:
    """Of selectors, and of what groups; functions, numbers and strings are neither."""
    assert selectors(expr) == [Selector(name, frozenset(by)) for name, by in found]
    assert grouping(expr) == labels
