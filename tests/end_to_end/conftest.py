"""A server that these tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import TinyFolder
from tests.end_to_end.live_server import LiveServer, live_server


@pytest.fixture(scope="session")
def tiny_server(tiny_folder: TinyFolder) -> Iterator[LiveServer]:
    """A tiny Llama behind a short queue."""
    settings = {"max_queue_tokens": 2000, "max_batch_tokens": 64, "kv_cache_bytes": "64MiB"}
    with live_server(model=tiny_folder("llama"), **settings) as server:
        yield server
