"""What `make fuzz` asks of each answer beside schemathesis' own checks."""

from __future__ import annotations

import json

import schemathesis
from schemathesis import Case, CheckContext, Response


@schemathesis.check
def fails_only_where_asked(_context: CheckContext, response: Response, case: Case) -> None:
    """No 5xx, but 504 for a request that names a time in which it must be answered."""
    if response.status_code < 500:
        return
    body = case.body if isinstance(case.body, dict) else {}
    asked = response.status_code == 504 and bool(body.get("timeout_ms"))
    if not asked:
        raise AssertionError(f"{response.status_code}: {json.dumps(response.text[:300])}")
