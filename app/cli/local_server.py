"""The server of ``--local``: in a thread of this process, behind a socket that is its user's."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import uvicorn

from app.client import ClientError
from app.main import create_app
from app.settings import Settings, log_ignored_variables
from app.telemetry.logs import configure_logging
from model_runtime import Engine, ModelLoadError

_NOBODY_ELSE: Final = {"host": "127.0.0.1", "api_keys": (), "api_key_file": None}
"""Settings that are about who may ask."""

CLOSING_S: Final = 1
"""Seconds in which a request that nobody waits for may end."""


@contextmanager
def local_server(settings: Settings) -> Iterator[str]:
    """Load a model and serve it until the end; the path of the Unix domain socket.

    The socket lies in a folder that only this user can enter, so no key is asked for.

    Raises:
        ClientError: the model cannot be loaded.
    """
    configure_logging("warning", "text")
    log_ignored_variables()
    try:
        engine = Engine.load(settings.engine_config())
    except ModelLoadError as error:
        raise ClientError(str(error)) from error
    config = uvicorn.Config(
        create_app(settings.model_copy(update=_NOBODY_ELSE), engine),
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=CLOSING_S,
    )
    with TemporaryDirectory(prefix="chainrule-") as folder:
        path = str(Path(folder, "socket"))
        with _serving(uvicorn.Server(config), path):
            yield path


@contextmanager
def _serving(server: uvicorn.Server, path: str) -> Iterator[None]:
    # It listens before the server runs: whoever connects at once waits until it does.
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def run() -> None:
        with listener:
            server.run(sockets=[listener])

    thread = threading.Thread(target=run, name="chainrule-server", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()
