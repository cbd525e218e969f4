"""What tells a server of which trace its spans are to be a part."""

from __future__ import annotations

import sys


def trace_headers() -> dict[str, str]:
    """The headers for the span that is active here, as the W3C has them; none where none is.

    Where no module has asked for OpenTelemetry there is no span, and nothing is imported.
    """
    if "opentelemetry.trace" not in sys.modules:
        return {}
    from opentelemetry import propagate, trace

    headers: dict[str, str] = {}
    if trace.get_current_span().get_span_context().is_valid:
        propagate.inject(headers)
    return headers
