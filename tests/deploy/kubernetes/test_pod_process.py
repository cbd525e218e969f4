"""The server in what a pod gives it: a Service's variables, a numeric user, a read-only root."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.app.faulty_engine import HELD
from tests.app.process.test_file_system import needs_mounts
from tests.app.stub_server import TIMEOUT_S, ServerProcess
from tests.conftest import TinyFolder
from tests.deploy.kubernetes.kustomize import Document
from tests.deploy.kubernetes.overlays import ALL, Pod, environment
from tests.deploy.kubernetes.pod import enter_pod
from tests.deploy.kubernetes.test_pods import size

pytestmark = [pytest.mark.process, needs_mounts]

Start = Callable[..., ServerProcess]
KEY = {"Authorization": "Bearer a-key"}
OTHERS = {"CHAINRULE_METRICS_PORT": "0", "CHAINRULE_DRAIN_DELAY_S": "0.1"}
"""Values of the test: a port that is free on this machine, and less to wait for."""
READ = {
    "chainrule_queued_seconds",
    "vllm:num_requests_waiting",
    "vllm:num_requests_running",
    "vllm:kv_cache_usage_perc",
    "vllm:cache_config_info",
}
"""What KEDA's query names, and what the extractor of llm-d's router takes by default."""


def server_of(name: str) -> tuple[Pod, Document]:
    """The pod that serves in an overlay, and its container."""
    (overlay,) = [overlay for overlay in ALL if overlay.name == name]
    (pod,) = [pod for pod in overlay.pods() if pod.servers]
    (server,) = pod.servers
    return pod, server


POD, SERVER = server_of("cpu")
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
def start(node: Path) -> Iterator[Start]:
    """Starts a server in a pod; ``model`` loads one, the others have engines for tests."""
    started: list[ServerProcess] = []

    def start(load: str, overlay: str = "cpu") -> ServerProcess:
        given = environment(server_of(overlay)[1])
        given |= {name: other for name, other in OTHERS.items() if name in given}
        prepare = partial(enter_pod, str(node), given, USER, models=load == "model")
        settings = {"model": str(node / "model"), "kv_cache_bytes": "16MiB"}
        started.append(ServerProcess(load, prepare=prepare, **settings))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def score(process: ServerProcess, *tokens: int, **headers: str) -> int:
    """The status of the answer to a path's last token."""
    body = {"context": tokens[:-1], "candidates": [tokens[-1:]]}
    url = f"{process.url}/v1/score"
    return httpx.post(url, json=body, headers=headers, timeout=TIMEOUT_S).status_code


def test_a_pod_serves_and_ends(start: Start) -> None:
    """Ready for the kubelet without a key, for others with one; SIGTERM ends it with 0."""
    process = start("model")
    process.await_line("ready")
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert f"Uid:\t{USER}\t{USER}" in status and "CapEff:\t0000000000000000" in status
    assert process.status("/health/ready") == process.status("/health/live") == 200
    assert (score(process, 5, 6, 9), score(process, 5, 6, 9, **KEY)) == (401, 200)
    process.signal(signal.SIGTERM)
    assert process.exit_code() == 0
    assert not [line for line in process.log if line["level"] in ("error", "critical")]


def test_a_pod_that_ends_finishes_what_it_has(start: Start) -> None:
    """Readiness ends at once, what is in the middle of a forward is answered, the exit is 0."""
    process = start("faulty")
    process.await_line("ready")
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(score, process, HELD, 1, **KEY)
        process.await_requests(1)
        process.signal(signal.SIGTERM)
        process.await_line("draining")
        assert process.status("/health/ready") == 503
        assert process.status("/health/live") == 200
        process.release()
        assert held.result() == 200
    assert process.exit_code() == 0


def test_a_pod_that_loads_is_not_ready(start: Start) -> None:
    """It is alive; whoever asks for its models, as routers do, hears that there is none yet."""
    process = start("slow")
    assert process.status("/health/live") == 200
    assert process.status("/health/ready") == 503
    assert httpx.get(f"{process.url}/v1/models", headers=KEY).status_code == 503


def test_what_the_picker_and_the_autoscaler_read_is_there(start: Start) -> None:
    """On the port of the metrics, without a key; the other port wants one."""
    process = start("ok", "inference-pool")
    port = process.await_line("listening for metrics")["port"]
    process.await_line("ready")
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics")
    names = {line.partition("{")[0].partition(" ")[0] for line in answer.text.splitlines()}
    assert answer.status_code == 200 and names >= READ
    assert process.status("/metrics") == 401


def test_a_pod_without_memory_is_one_line(node: Path, start: Start) -> None:
    """What the limit is too small for is said before it is taken, with what to lower."""
    (node / "group" / "memory.max").write_text(f"{32 << 20}\n")
    process = start("model")
    assert process.exit_code() == 1
    (line,) = [line for line in process.log if line["level"] == "critical"]
    assert "0.03 GiB are free" in line["message"] and "lower kv_cache_bytes" in line["message"]
