"""The server in what a pod gives it: a Service's variables, a numeric user, a read-only root."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from model_runtime import Engine, EngineConfig
from tests.app.process.test_file_system import (
    call,
    make_everything_read_only,
    needs_mounts,
)
from tests.app.process.test_memory_limit import enter
from tests.app.stub_server import TIMEOUT_S, ServerProcess, await_true
from tests.conftest import TinyFolder
from tests.deploy.kubernetes.overlays import ALL, environment
from tests.deploy.kubernetes.test_pods import size

pytestmark = [pytest.mark.process, needs_mounts]

KEY = {"Authorization": "Bearer a-key"}
SERVICE = {
    "CHAINRULE_SERVICE_HOST": "10.96.0.7",
    "CHAINRULE_SERVICE_PORT": "8000",
    "CHAINRULE_SERVICE_PORT_HTTP": "8000",
    "CHAINRULE_PORT": "tcp://10.96.0.7:8000",
    "CHAINRULE_PORT_8000_TCP": "tcp://10.96.0.7:8000",
    "CHAINRULE_PORT_8000_TCP_PROTO": "tcp",
    "CHAINRULE_PORT_8000_TCP_PORT": "8000",
    "CHAINRULE_PORT_8000_TCP_ADDR": "10.96.0.7",
    "CHAINRULE_PICKER_PORT": "tcp://10.96.0.8:9002",
    "CHAINRULE_PICKER_SERVICE_PORT_GRPC": "9002",
}
"""What Services called chainrule and chainrule-picker set in pods that do not refuse it."""

(CPU,) = [overlay for overlay in ALL if overlay.name == "cpu"]
(POD,) = CPU.pods()
(SERVER,) = POD.servers
USER = POD.spec["securityContext"]["runAsUser"]


@pytest.fixture
def node(tiny_folder: TinyFolder) -> Iterator[Path]:
    """A folder that every user can read: a model, the keys, and a control group's files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(tiny_folder("llama"), folder / "model")
        (folder / "keys").write_text("a-key\n")
        group = folder / "group"
        group.mkdir()
        (group / "memory.max").write_text(f"{size(SERVER['resources']['limits']['memory'])}\n")
        (group / "memory.current").write_text("0\n")
        (group / "memory.stat").write_text("anon 0\n")
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)
        yield folder


@pytest.fixture
def start(node: Path) -> Iterator[Callable[[str], ServerProcess]]:
    """Starts a server in a pod; ``model`` loads one, ``ok`` has the stub engine."""
    started: list[ServerProcess] = []

    def start(load: str) -> ServerProcess:
        prepare = partial(enter_pod, str(node), load)
        settings = {"model": str(node / "model"), "kv_cache_bytes": "16MiB"}
        started.append(ServerProcess(load, prepare=prepare, **settings))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def enter_pod(node: str, load: str) -> None:
    """From here on this process is in the container that the overlay describes."""
    if load == "model":
        # Python's own library may lie where that user cannot read: what is imported late comes now.
        with contextlib.redirect_stderr(io.StringIO()):
            Engine.load(EngineConfig(model=f"{node}/model", kv_cache_bytes=1 << 20))
    "localhost".encode("idna")
    given = environment(SERVER) | {"CHAINRULE_API_KEY_FILE": f"{node}/keys"}
    os.environ.update({"HOME": "/", "CHAINRULE_HOST": "0.0.0.0"} | given | SERVICE)
    if (port := Settings.read().port) != 8000:
        raise RuntimeError(f"a Service's variables make port {port}")
    enter(f"{node}/group")
    make_everything_read_only()
    os.setgroups([USER])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)
    header, nothing = (ctypes.c_uint32 * 2)(0x2008_0522, 0), (ctypes.c_uint32 * 6)()
    call("capset", ctypes.byref(header), nothing)


def test_a_pod_serves_and_ends(start: Callable[[str], ServerProcess]) -> None:
    """Ready for the kubelet without a key, for others with one; SIGTERM ends it with 0."""
    process = start("model")
    process.await_line("ready")
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert f"Uid:\t{USER}\t{USER}" in status and "CapEff:\t0000000000000000" in status
    assert process.status("/health/ready") == process.status("/health/live") == 200
    body = {"context": [5, 6], "candidates": [[9]]}
    asked = [
        httpx.post(f"{process.url}/v1/score", json=body, headers=headers, timeout=TIMEOUT_S)
        for headers in ({}, KEY)
    ]
    assert [answer.status_code for answer in asked] == [401, 200]
    process.signal(signal.SIGTERM)
    assert process.exit_code() == 0
    assert not [line for line in process.log if line["level"] in ("error", "critical")]


def test_a_pod_that_ends_finishes_what_it_has(start: Callable[[str], ServerProcess]) -> None:
    """Readiness ends at once, the answer comes, and the exit is 0."""
    process = start("ok")
    process.await_line("ready")
    answers: list[int] = []

    def ask() -> None:
        work = f"{process.url}/work/x"
        answer = httpx.post(work, json={"seconds": 1.0}, headers=KEY, timeout=TIMEOUT_S)
        answers.append(answer.status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    process.await_requests(1)
    process.signal(signal.SIGTERM)
    await_true(lambda: process.status("/health/ready") == 503)
    assert process.status("/health/live") == 200
    asking.join()
    assert answers == [200] and process.exit_code() == 0


def test_a_pod_without_memory_is_one_line(
    node: Path, start: Callable[[str], ServerProcess]
) -> None:
    """What the limit is too small for is said before it is taken, with what to lower."""
    (node / "group" / "memory.max").write_text(f"{32 << 20}\n")
    process = start("model")
    assert process.exit_code() == 1
    (line,) = [line for line in process.log if line["level"] == "critical"]
    assert "0.03 GiB are free" in line["message"] and "lower kv_cache_bytes" in line["message"]
