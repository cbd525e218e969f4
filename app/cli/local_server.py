"""The server of ``--local``: in a thread of this process, behind a socket that is its user's."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import uvicorn

from app.client import ClientError
from app.main import create_app
from app.settings import Settings, log_ignored_variables
from app.telemetry.logs import configure_logging
from model_runtime import Engine, ModelLoadError

_ONLY_THIS_USER: Final = {"host": "127.0.0.1", "api_keys": (), "api_key_file": None}
"""Settings that are about who may ask."""

CLOSING_S: Final = 1
"""Seconds in which a request that nobody waits for may end."""


@contextmanager
def local_server(settings: Settings) -> Iterator[str]:
    """Load a model and serve it until the end; the path of the Unix domain socket.

    The socket lies in a folder that only this user can enter, so no key is asked for.

    Raises:
        ClientError: there is no place for a socket, or the model cannot be loaded.
    """
    configure_logging("warning", "text")
    log_ignored_variables()
    with _listener() as listener:
        path: str = listener.getsockname()
        try:
            engine = Engine.load(settings.engine_config())
        except ModelLoadError as error:
            raise ClientError(str(error)) from error
        config = uvicorn.Config(
            create_app(settings.model_copy(update=_ONLY_THIS_USER), engine),
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=CLOSING_S,
        )
        with _running(uvicorn.Server(config), listener):
            yield path


@contextmanager
def _listener() -> Iterator[socket.socket]:
    # It listens before a server runs: whoever connects at once waits until one does.
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(TemporaryDirectory(prefix="chainrule-"))
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(Path(folder, "socket")))
            listener.listen()
        except OSError as error:
            raise ClientError(f"no place for a socket in the temporary folder: {error}") from error
        yield listener


@contextmanager
def _running(server: uvicorn.Server, listener: socket.socket) -> Iterator[None]:
    def run() -> None:
        # Whatever ended the server, nobody waits any longer for it to answer.
        with listener:
            server.run(sockets=[listener])

    thread = threading.Thread(target=run, name="chainrule-server", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()
