"""What a trace is told of one request while it is answered.

::

    Tracing (middleware)   begins a trace and puts it where the request's tasks and threads find it
    service, routers       with stage("tokenize"): ...
    RequestContext         hands the engine an observer, which is told of each forward
    Tracing                ends it, with whatever is still open

By default there is none. Then a stage is one look at a context variable, and nothing is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Final, Protocol

from model_runtime import ForwardObserver


class CallObserver(ForwardObserver, Protocol):
    """Observes what a request asks of the engine."""

    def asked(self) -> None:
        """The engine is asked now."""


class RequestTrace(Protocol):
    """The trace of one request."""

    def stage(
        self, name: str, shared: Iterable[ForwardObserver | None] = ()
    ) -> AbstractContextManager[None]:
        """The block is a part of the request, of this name.

        Args:
            name: one of a few, never anything that a client sent.
            shared: observers of the requests whose work the block waits for.
        """

    def observe_call(self) -> CallObserver:
        """An observer for what the engine is going to be asked."""


current_trace: ContextVar[RequestTrace | None] = ContextVar("current_trace", default=None)
"""That of the request that is handled; None where none is taken."""

_NOTHING: Final = nullcontext()


def stage(name: str, shared: Iterable[ForwardObserver | None] = ()) -> AbstractContextManager[None]:
    """``RequestTrace.stage`` of the request that is handled."""
    trace = current_trace.get()
    return _NOTHING if trace is None else trace.stage(name, shared)
