"""The process: a listening socket an address, one event loop, an orderly end.

uvicorn closes its socket first when it is told to stop, so that a late client finds nobody. Here
a signal begins the drain, the socket stays open, late requests are refused in words, and only
when the lifecycle is over does uvicorn hear of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextvars import Context
from dataclasses import replace
from functools import partial
from types import FrameType
from typing import Any, Final, Literal

import uvicorn
from starlette.types import ASGIApp

from app.http.connection import KEEP_ALIVE_S, ConnectionBounds, HttpProtocol
from app.http.lifecycle import Lifecycle, Phase
from app.http.metrics_app import MetricsApp
from app.main import create_app
from app.settings import Settings
from model_runtime import Engine

logger = logging.getLogger(__name__)

BACKLOG: Final = 2048
MAX_HEADER_BYTES: Final = 64 << 10
OTHER_FILES: Final = 256
"""Open files that are no connections, and connections that are being refused."""
SCRAPERS: Final = 64
"""Open connections to the port of the metrics at most."""
CLOSING_S: Final = 1
"""Seconds in which connections may still send what is answered already."""

_Address = tuple[socket.AddressFamily, tuple[Any, ...]]
_NOT_OURS: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_TRIES: Final = 10
"""Free ports to try until one is free on every address."""

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class ListenError(Exception):
    """The address cannot be listened on. The message is one line."""


class Server(uvicorn.Server):
    """Stops when its lifecycle is over, and begins that end on a signal.

    Args:
        config: of what it serves.
        lifecycle: of the process.
        drain_s: seconds that requests get to finish once it is to stop.
        delay_s: seconds before that in which it is not ready and takes requests.
        when_ready: called once it is ready.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        lifecycle: Lifecycle,
        drain_s: float,
        delay_s: float = 0.0,
        when_ready: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._drain_s = drain_s
        self._delay_s = delay_s
        self._when_ready = when_ready

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second; True ends the main loop."""
        if self._lifecycle.is_terminal:
            self.should_exit = True
        if self._when_ready is not None and self._lifecycle.phase is Phase.READY:
            self._when_ready()
            self._when_ready = None
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals begin the drain. Behind it they mean nothing: the process is ending already."""
        loop = asyncio.get_running_loop()

        def handle(sig: int, _frame: FrameType | None) -> None:
            # It comes in the middle of whatever runs, and belongs to no request.
            loop.call_soon_threadsafe(self._on_signal, sig, context=Context())

        for sig in _SIGNALS:
            signal.signal(sig, handle)
        try:
            yield
        finally:
            for sig in _SIGNALS:
                signal.signal(sig, signal.SIG_IGN)

    def _on_signal(self, sig: int) -> None:
        if sig == signal.SIGINT and self._lifecycle.phase is Phase.DRAINING:
            # Whoever presses Ctrl+C a second time does not want to wait for the rest.
            self._lifecycle.hurry()
        # Somebody who presses Ctrl+C sits in front of it; a balancer's checks are SIGTERM's matter.
        self._lifecycle.request_stop(self._drain_s, self._delay_s if sig == signal.SIGTERM else 0.0)


class MetricsServer(uvicorn.Server):
    """Runs beside another server, to which signals go."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None is meant for it."""
        yield


async def _serve_both(
    server: Server,
    listeners: list[socket.socket],
    beside: MetricsServer,
    of_metrics: list[socket.socket],
) -> None:
    task = asyncio.create_task(beside.serve(sockets=of_metrics), name="metrics")
    try:
        await server.serve(sockets=listeners)
    finally:
        beside.should_exit = True
        await task


def serve(
    settings: Settings,
    load: Callable[[], Engine] | None = None,
    greet: Callable[[int], None] | None = None,
) -> int:
    """Serve until told to stop; the exit status.

    Args:
        settings: of the process.
        load: gives the engine; by default what the settings say.
        greet: called with the port once requests are answered.

    Raises:
        ListenError: the address is taken, or not ours.
    """
    listeners = _listen(settings.host, settings.port)
    of_metrics = _listen_for_metrics(settings)
    _allow_open_files(settings.max_connections + OTHER_FILES)
    app = create_app(settings, load=load)
    lifecycle: Lifecycle = app.state.lifecycle
    bounds = ConnectionBounds(
        header_timeout_s=settings.header_timeout_s,
        discard_s=settings.body_timeout_s,
        connections=settings.max_connections,
    )
    config = _config(app, bounds, lifespan="on")
    server = Server(
        config,
        lifecycle,
        settings.drain_timeout_s,
        settings.drain_delay_s,
        None if greet is None else partial(greet, listeners[0].getsockname()[1]),
    )
    _log_listening("listening", listeners)
    if of_metrics:
        _log_listening("listening for metrics", of_metrics)
        beside = _config(MetricsApp(app.state.metrics), replace(bounds, connections=SCRAPERS))
        asyncio.run(_serve_both(server, listeners, MetricsServer(beside), of_metrics))
    else:
        server.run(sockets=listeners)
    service = app.state.service
    if lifecycle.has_abandoned_threads or (service and service.has_abandoned_threads):
        # Python would wait for a thread that still loads, tokenizes or computes, however long.
        logging.shutdown()
        sys.stdout.flush()
        os._exit(lifecycle.exit_code)
    return lifecycle.exit_code


def _config(
    app: ASGIApp, bounds: ConnectionBounds, lifespan: Literal["on", "off"] = "off"
) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="asyncio",
        http=partial(HttpProtocol, bounds=bounds),  # type: ignore[arg-type]  # it is only called
        ws="none",
        lifespan=lifespan,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=CLOSING_S,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )


def _log_listening(message: str, listeners: Sequence[socket.socket]) -> None:
    for listener in listeners:
        host, port = listener.getsockname()[:2]
        logger.info(message, extra={"host": host, "port": port})


def _listen_for_metrics(settings: Settings) -> list[socket.socket]:
    port = settings.metrics_port
    return [] if port is None else _listen(settings.host, port)


def _allow_open_files(wanted: int) -> None:
    # Usually 1,024 at first, and a process may raise it. Beyond it connections are not refused:
    # they hang, and the log fills up.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        logger.warning("few open files", extra={"allowed": allowed, "wanted": wanted})


def _bound(family: socket.AddressFamily, address: Any) -> socket.socket:
    # asyncio switches Nagle's algorithm off only where the protocol is named. Left on, the body
    # of an answer waits 40 ms for the client to acknowledge its headers.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _bound_to_all(addresses: Sequence[_Address], port: int) -> list[socket.socket]:
    listeners: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, (host, _, *scope) in addresses:
            try:
                listeners.append(_bound(family, (host, port, *scope)))
            except OSError as error:
                # localhost has an address of IPv6 on machines without IPv6, too.
                if error.errno not in _NOT_OURS:
                    raise
                missing = error
            else:
                port = listeners[-1].getsockname()[1]
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    if not listeners and missing is not None:
        raise missing
    return listeners


def _listen(host: str, port: int) -> list[socket.socket]:
    """A listener on every address of ``host`` that is this machine's, all on one port."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
        for _ in range(_TRIES - 1):
            try:
                return _bound_to_all(addresses, port)
            except OSError as error:
                # A port that was free on the first address may be taken on the next one.
                if port or error.errno != errno.EADDRINUSE:
                    raise
        return _bound_to_all(addresses, port)
    except OSError as error:
        # What a name lookup fails with is numbered below zero.
        code = error.errno or 0
        reason = os.strerror(code) if code > 0 else error.strerror
        raise ListenError(f"cannot listen on {host} port {port}: {reason}") from None
