"""A real server process whose control group leaves little memory: smaller batches, the same bits.

What the kernel says of the group is written by the test, from what the process really has: a real
group would have to be made inside the one that others have put the tests into. A process beyond its
limit would be killed; so here it must never have had more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.app.process.test_file_system import MS_BIND, call, needs_mounts, own_mounts
from tests.app.stub_server import TIMEOUT_S, ServerProcess
from tests.tiny_models import save_tiny_model

pytestmark = pytest.mark.process

MIB = 1 << 20
LIMIT = 1 << 40
ROOM = 100 * MIB
"""What is left to a process that has started; the batch below would take more."""

BESIDE = 40 * MIB
"""What answers leave behind that is no batch's: compiled products, the request, its answer."""

PATHS = [[(7 * row + place) % 300 + 5 for place in range(250)] for row in range(8)]


def status(process: ServerProcess, field: str) -> int:
    """A number of bytes that the kernel tells of a process."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


class Group:
    """The files of a control group that holds one process.

    Args:
        folder: where they are.

    Attributes:
        taken: bytes that others in the group have.
    """

    def __init__(self, folder: Path) -> None:
        self.taken = 0
        (folder / "memory.max").write_text(f"{LIMIT}\n")
        (folder / "memory.stat").write_text("anon 0\n")
        self._usage = (folder / "memory.current").open("wb", buffering=0)
        self._tell(0)
        self._ended = threading.Event()

    @contextmanager
    def holding(self, process: ServerProcess) -> Iterator[None]:
        """What the process has counts in the group."""

        def count() -> None:
            while not self._ended.wait(0.005):
                self._tell(self.taken + status(process, "VmRSS"))

        counter = threading.Thread(target=count)
        counter.start()
        yield
        self._ended.set()
        counter.join()
        self._usage.close()

    def _tell(self, bytes_used: int) -> None:
        # In one piece, so that nobody reads half of it.
        self._usage.seek(0)
        self._usage.write(f"{bytes_used:020}\n".encode())


def enter(folder: str) -> None:
    """All that this process can see of control groups is in the folder."""
    own_mounts()
    call("mount", folder, "/sys/fs/cgroup", None, MS_BIND, None)


@pytest.fixture(scope="module")
def wide_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose forwards take much memory for each token."""
    return save_tiny_model(
        "llama", tmp_path_factory.mktemp("wide"), intermediate_size=4096, num_hidden_layers=2
    )


def answers(process: ServerProcess, salt: str) -> tuple[list[Any], float]:
    """What it says of all paths in one request, and how many batches that took."""
    before = batches(process)
    body = {"context": [5], "candidates": PATHS, "token_logprobs": True, "cache_salt": salt}
    response = httpx.post(f"{process.url}/v1/score", json=body, timeout=TIMEOUT_S)
    assert response.status_code == 200, response.text
    return response.json()["results"], batches(process) - before


def batches(process: ServerProcess) -> float:
    """Forwards so far."""
    lines = httpx.get(f"{process.url}/metrics").text.splitlines()
    name = "chainrule_batches_total "
    return next(float(line.removeprefix(name)) for line in lines if line.startswith(name))


@needs_mounts
def test_a_narrow_group_makes_batches_smaller(tmp_path: Path, wide_folder: Path) -> None:
    """All is answered, with the bits that a process without a limit gives, and none runs out."""
    settings = {"model": str(wide_folder), "kv_cache_bytes": "16MiB", "max_batch_tokens": 2048}
    group = Group(tmp_path)
    free = ServerProcess("model", **settings)
    narrow = ServerProcess("model", prepare=partial(enter, str(tmp_path)), **settings)
    try:
        free.await_line("ready")
        want, whole = answers(free, "")
        narrow.await_line("ready")
        before, files = status(narrow, "VmRSS"), status(narrow, "RssFile")
        Path(f"/proc/{narrow.pid}/clear_refs").write_text("5")
        group.taken = LIMIT - before - ROOM
        with group.holding(narrow):
            time.sleep(1.5)  # what was read of a group is good for a second
            first, more = answers(narrow, "")
            second, as_many = answers(narrow, "again")
        assert first == second == want
        assert min(more, as_many) > whole
        # Pages of libraries are the page cache's, which the kernel drops before it kills.
        files = status(narrow, "RssFile") - files
        assert status(narrow, "VmHWM") - before - files < ROOM + BESIDE
    finally:
        free.kill()
        narrow.kill()
    assert not [line for line in free.log + narrow.log if line["level"] != "info"]
