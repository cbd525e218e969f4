"""Models and a server that many tests share: made once a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from model_runtime.loading.loader import fetch_model
from model_runtime.native import library
from tests.end_to_end.live_server import LiveServer, live_server
from tests.offline import Offline
from tests.tiny_models import save_tiny_model

TinyFolder = Callable[[str], Path]

WITHOUT_LIBRARY = os.environ.get("TEST_KERNELS") == "torch"
"""Whether tests run as if no compiler had been there when the package was installed. Processes
that they start have the library all the same."""

if WITHOUT_LIBRARY:
    library._path = lambda: None


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> TinyFolder:
    """The folder of a tiny model, by kind; made at its first use."""
    folders: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in folders:
            folders[kind] = save_tiny_model(kind, tmp_path_factory.mktemp(kind))
        return folders[kind]

    return folder


@pytest.fixture(scope="session")
def tiny_vocabulary_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama over eight tokens, small enough to enumerate every sequence."""
    return save_tiny_model("llama", tmp_path_factory.mktemp("vocabulary"), vocab_size=8)


@pytest.fixture(scope="session")
def real_folder() -> Path:
    """The default model's folder; fetched where it is not there yet."""
    return fetch_model("smollm2-135m-instruct", progress=False)


@pytest.fixture(scope="session")
def real_model(real_folder: Path) -> Offline:
    """The default model, offline."""
    return Offline(real_folder, kv_bytes=256 << 20)


@pytest.fixture(scope="session")
def real_server(real_folder: Path) -> Iterator[LiveServer]:
    """The default model, served with the default settings: one server for all tests of a process,
    whose files run in any order."""
    with live_server(kv_cache_bytes="512MiB") as server:
        yield server
