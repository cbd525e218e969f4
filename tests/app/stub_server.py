"""``python -m tests.app.stub_server``: the real process around the stub engine.

The first argument says how loading goes: ``ok``, ``slow`` (never ends), ``missing`` (a load
error) or ``broken`` (a bug). Everything else is read from the environment, as in production.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from fastapi import FastAPI

from app import server
from app.logs import configure_logging
from app.main import create_app
from app.settings import Settings
from model_runtime import CorruptModel
from tests.app.stub_engine import StubEngine, work_router


def load() -> Any:
    """An engine, or what goes wrong instead."""
    how = sys.argv[1]
    if how == "slow":
        time.sleep(600)
    if how == "missing":
        raise CorruptModel("model.safetensors is truncated")
    if how == "broken":
        raise KeyError("hidden_size")
    return StubEngine()


def create_with_work(*args: Any, **kwargs: Any) -> FastAPI:
    """The app, with routes that keep the stub engine busy."""
    app = create_app(*args, **kwargs)
    app.include_router(work_router)
    return app


if __name__ == "__main__":
    server.create_app = create_with_work
    settings = Settings.read()
    configure_logging(settings.log_level, settings.log_format)
    sys.exit(server.serve(settings, load=load))
