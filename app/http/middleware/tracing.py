"""A span for each request, where traces are taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.environment import env_name
from app.http.middleware.cancellation import ALWAYS_ANSWERED
from app.settings import SettingsError, flag_name
from app.telemetry.metrics import UNKNOWN_ROUTE, Metrics
from app.telemetry.request_facts import Facts, facts_of
from app.telemetry.request_trace import current_trace

if TYPE_CHECKING:  # it brings OpenTelemetry's SDK
    from app.telemetry.traces.traces import Traces

_METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}
)
_OTHER_METHOD: Final = "_OTHER"
"""OpenTelemetry's word for what is none of these; as a span's name it is HTTP."""

_CLIENT_LEFT: Final = "client_left"
UNEXPECTED: Final = 500
"""What ``AccessLog`` answers to what nobody expected."""

_COUNTS: Final = (
    *("prompt_tokens", "scored_tokens", "cached_tokens", "computed_tokens", "reused_scores"),
)


def open_traces() -> Traces:
    """Traces to where the variables OTEL_* say.

    Raises:
        SettingsError: what they need is not installed, or one of the variables cannot be used.
    """
    setting = f"{env_name('traces')} ({flag_name('traces')})"
    try:
        from app.telemetry.traces.traces import Traces

        return Traces.open()
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise SettingsError(
            f"{setting}: an extra is needed: pip install 'chainrule[otel]'"
        ) from None
    except ValueError as error:
        raise SettingsError(f"{setting}: {' '.join(str(error).split())}") from None


class Tracing:
    """Gives each request a trace, but for those of probes and of whoever reads the metrics.

    Stands within ``AccessLog``, whose line it gives the trace's id.
    """

    def __init__(self, app: ASGIApp, traces: Traces, metrics: Metrics) -> None:
        self._app = app
        self._traces = traces
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in ALWAYS_ANSWERED:
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in _METHODS else _OTHER_METHOD
        name = "HTTP" if method == _OTHER_METHOD else method
        about = {
            "http.request.method": method,
            "url.scheme": "https" if scope.get("scheme") == "https" else "http",
        }
        spans = self._traces.begin(name, scope["headers"], about)
        if spans is None:
            await self._app(scope, receive, send)
            return
        facts_of(scope)["trace_id"] = spans.trace_id
        answer = _Answer(send)
        token = current_trace.set(spans)
        failure: str | None = None
        try:
            await self._app(scope, receive, answer.send)
        except ClientDisconnect:
            failure = _CLIENT_LEFT
            raise
        except BaseException as error:
            failure = type(error).__name__
            if isinstance(error, Exception) and answer.status is None:
                answer.status = UNEXPECTED
            raise
        finally:
            current_trace.reset(token)
            facts = facts_of(scope)
            route = self._metrics.route_of(scope)
            known = {} if route == UNKNOWN_ROUTE else {"http.route": route}
            spans.end(
                f"{name} {route}" if known else name,
                {**known, **answer.attributes, **_counts(facts)},
                failure or answer.failure(facts),
            )


class _Answer:
    """Remembers how far the answer got.

    Attributes:
        status: None until it begins.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None
        self._complete = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif not message.get("more_body", False):
            self._complete = True
        await self._send(message)

    @property
    def attributes(self) -> dict[str, int]:
        """The status, if there is one."""
        return {} if self.status is None else {"http.response.status_code": self.status}

    def failure(self, facts: Facts) -> str | None:
        """Why the request has failed, in one of a few words; what the client did wrong is none."""
        if not self._complete or self.status is None:
            return _CLIENT_LEFT
        if self.status >= 500:
            return str(self.status)
        # A stream that fails has begun with 200; what was refused has a code in the facts, too.
        return str(facts["error"]) if self.status < 400 and "error" in facts else None


def _counts(facts: Facts) -> dict[str, int]:
    found = {name: facts.get(name) for name in _COUNTS}
    return {f"chainrule.{name}": value for name, value in found.items() if isinstance(value, int)}
