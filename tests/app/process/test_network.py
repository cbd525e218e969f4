"""Offline means that nothing is asked of the network: every socket of a real process is watched."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import constants

from model_runtime import EngineConfig, ModelFetchFailed
from model_runtime.loading.source import resolve
from tests.app.stub_server import TIMEOUT_S, ServerProcess
from tests.conftest import TinyFolder

OURS = (None, "", "127.0.0.1", "::1", "localhost")
ELSEWHERE = "192.0.2.1"
"""An address that is nobody's."""

TO_ADDRESS = ("socket.connect", "socket.sendto", "socket.sendmsg")
OF_NAME = ("socket.getaddrinfo", "socket.gethostbyname")


def host_of(event: str, arguments: tuple[Any, ...]) -> str | None:
    """The host that a process wants to reach; None where it is none."""
    if event in TO_ADDRESS:
        return arguments[1][0] if isinstance(arguments[1], tuple) else None
    return arguments[0] if event in OF_NAME else None


class Watch:
    """Notes in a file, and forbids, every attempt of this process to reach another machine.

    Python tells what its sockets do before they do it. It cannot be told to stop, so the watch ends
    with ``over``.
    """

    def __init__(self, file: Path) -> None:
        self.over = False
        self._file = file
        sys.addaudithook(self._look)

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.over or not event.startswith("socket."):
            return
        host = host_of(event, arguments)
        if host not in OURS:
            with self._file.open("a") as file:
                file.write(f"{event} {host}\n")
            raise PermissionError(f"{event} {host}")


def go_offline(file: Path) -> None:
    """What ``HF_HUB_OFFLINE=1`` does, and a watch."""
    constants.HF_HUB_OFFLINE = True
    Watch(file)


@pytest.fixture
def attempts(tmp_path: Path) -> Path:
    """The file that they are noted in."""
    path = tmp_path / "attempts"
    path.touch()
    return path


@pytest.fixture
def watch(attempts: Path) -> Iterator[Watch]:
    """Over this process."""
    watch = Watch(attempts)
    yield watch
    watch.over = True


TRIES: tuple[Callable[[socket.socket], object], ...] = (
    lambda _: socket.getaddrinfo("example.org", 443),
    lambda _: socket.gethostbyname("example.org"),
    lambda _: socket.create_connection((ELSEWHERE, 443)),
    lambda datagrams: datagrams.connect((ELSEWHERE, 53)),
    lambda datagrams: datagrams.sendto(b"x", (ELSEWHERE, 53)),
)


def test_the_watch_works(watch: Watch, attempts: Path) -> None:
    """Whatever would leave the machine is seen, and does not."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        for attempt in TRIES:
            with pytest.raises(PermissionError):
                attempt(datagrams)
        datagrams.sendto(b"x", ("127.0.0.1", 9))
    assert len(attempts.read_text().splitlines()) == len(TRIES)


def test_the_hub_is_not_asked_offline(
    watch: Watch, attempts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of the hub that is not here is refused at once."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    config = EngineConfig(model="no-such-owner/no-such-model", cache_dir=tmp_path)
    with pytest.raises(ModelFetchFailed, match="before going offline"):
        resolve(config, lambda *_, **__: None)
    assert attempts.read_text() == ""


def requests(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any] | None]]:
    """Method, path and body of a request to every route that the document has."""
    schemas = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {})
            schema = content.get("application/json", {}).get("schema", {})
            kinds = [schema, *schema.get("oneOf", ())]
            names = [kind["$ref"].rsplit("/", 1)[1] for kind in kinds if "$ref" in kind]
            examples = [one for name in names for one in schemas[name].get("examples", ())]
            for body in examples or [None]:
                yield method, path.replace("{model}", "x"), body


@pytest.mark.process
def test_a_server_leaves_the_machine_alone(attempts: Path, tiny_folder: TinyFolder) -> None:
    """At its start, at every route with every example of the document, and at its end."""
    folder = str(tiny_folder("llama"))
    process = ServerProcess(
        "model", prepare=partial(go_offline, attempts), model=folder, kv_cache_bytes="64MiB"
    )
    try:
        process.await_line("ready")
        answered = set()
        with httpx.Client(base_url=process.url, timeout=TIMEOUT_S) as client:
            for method, path, body in requests(client.get("/openapi.json").json()):
                response = client.request(method, path, json=body)
                assert response.status_code < 500, (path, body, response.text)
                if response.status_code == 200:
                    answered.add(path)
            assert client.get("/docs").status_code == 200
        process.signal(signal.SIGTERM)
        assert process.exit_code() == 0
    finally:
        process.kill()
    assert len(answered) > 10, answered
    assert attempts.read_text() == ""
