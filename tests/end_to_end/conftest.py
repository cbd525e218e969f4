"""Servers that these tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import TinyFolder
from tests.end_to_end.live_server import LiveServer, live_server


@pytest.fixture(scope="package")
def real_server(real_folder: Path) -> Iterator[LiveServer]:
    """The default model, served with the default settings."""
    with live_server(kv_cache_bytes="512MiB") as server:
        yield server


@pytest.fixture(scope="package")
def tiny_server(tiny_folder: TinyFolder) -> Iterator[LiveServer]:
    """A tiny Llama behind a short queue."""
    settings = {"max_queue_tokens": 2000, "max_batch_tokens": 64, "kv_cache_bytes": "64MiB"}
    with live_server(model=tiny_folder("llama"), **settings) as server:
        yield server
