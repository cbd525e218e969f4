"""What the access log and the metrics are told of a request beside its status and its time.

A handler knows it, and writes it down once, where the answer is ready::

    AccessLog: a new dictionary ──> scope["state"] ──> the handler's ``facts_of(request).update``
        └──────────── one line, and the metrics, when the request has ended <─────┘
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final

Facts = dict[str, object]
"""By name, such as ``computed_tokens``; the names are those of the log line."""

_KEY: Final = "facts"


def open_facts(scope: MutableMapping[str, Any]) -> Facts:
    """Those of a request that begins; an ASGI scope holds them from now on."""
    facts: Facts = {}
    scope["state"] = {**scope.get("state", {}), _KEY: facts}
    return facts


def facts_of(scope: MutableMapping[str, Any]) -> Facts:
    """Those of the request. Where no access log is kept, nobody reads them."""
    facts: Facts = scope.setdefault("state", {}).setdefault(_KEY, {})
    return facts
