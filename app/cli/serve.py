"""``chainrule serve``."""

from __future__ import annotations

import json
import logging
import os
import signal
from functools import partial
from typing import Any, Final

from app import version
from app.cli.failure import fail
from app.environment import bound_compiled_products, let_idle_threads_sleep
from app.settings import Settings, log_ignored_variables
from app.telemetry.logs import chosen_format, configure_logging

logger = logging.getLogger(__name__)

EXAMPLE: Final = {"context": "The capital of France is", "candidates": [" Paris", " London"]}
"""A request to begin with."""

_EVERY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


def serve_command(flags: dict[str, Any]) -> int:
    """Serve until told to stop; the exit status.

    On a terminal the start ends with what to do next.

    Raises:
        SettingsError: a setting is wrong.
    """
    settings = Settings.read(flags)
    keys = settings.keys()
    settings.body_bytes_in_flight()
    configure_logging(settings.log_level, settings.log_format, queued=True)
    log_ignored_variables()
    # Until the server listens for signals itself there is nothing that a stop would have to finish.
    signal.signal(signal.SIGTERM, _leave)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _leave)
    let_idle_threads_sleep()
    bound_compiled_products()
    # This brings torch, which takes seconds; a wrong flag need not wait for it.
    from app.server import ListenError, serve

    is_console = chosen_format(settings.log_format) == "console"
    greet = partial(_greet, settings, has_keys=bool(keys)) if is_console else None
    try:
        return serve(settings, greet=greet)
    except ListenError as error:
        return fail(error, 1)


def greeting(settings: Settings, port: int, *, has_keys: bool) -> str:
    """What is said on a terminal once requests are answered."""
    host = _EVERY_ADDRESS.get(settings.host, settings.host)
    # The zone of an address stands behind a sign that addresses of pages use themselves.
    shown = f"[{host.replace('%', '%25')}]" if ":" in host else host
    url = f"http://{shown}:{port}"
    pages = {"the page": "playground", "the API": "docs"}
    if not settings.playground:
        del pages["the page"]
    key = ' -H "Authorization: Bearer $CHAINRULE_API_KEY"' if has_keys else ""
    lines = [
        f"chainrule {version()} answers at {url}. Ctrl+C stops it.",
        *(f"  {name + ':':<10}{url}/{path}" for name, path in pages.items()),
        "  to begin with:",
        f"curl -s {url}/v1/score -H 'Content-Type: application/json'{key} \\",
        f"  -d '{json.dumps(EXAMPLE)}'",
    ]
    return "\n" + "\n".join(lines) + "\n"


def _greet(settings: Settings, port: int, *, has_keys: bool) -> None:
    logger.info(greeting(settings, port, has_keys=has_keys), extra={"plain": True})


def _leave(*_: object) -> None:
    logging.shutdown()
    os._exit(0)
