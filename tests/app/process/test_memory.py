"""What a real server process holds in memory after failures, and beside readers that never read."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from app import server
from model_runtime.batching.batch import Batch
from model_runtime.decoder.native_decoder import NativeDecoder
from model_runtime.errors import OutOfMemory
from model_runtime.runner.model_runner import ModelRunner
from tests.app.stub_server import TIMEOUT_S, ServerProcess, await_true
from tests.conftest import TinyFolder

pytestmark = pytest.mark.process

MIB = 1 << 20
Start = Callable[..., ServerProcess]


@pytest.fixture
def start(tiny_folder: TinyFolder) -> Iterator[Start]:
    """Starts processes with a tiny model, and ends those that are left."""
    started: list[ServerProcess] = []

    def start(**options: Any) -> ServerProcess:
        folder = str(tiny_folder("llama"))
        started.append(ServerProcess("model", model=folder, kv_cache_bytes="16MiB", **options))
        started[-1].await_line("ready")
        return started[-1]

    yield start
    for process in started:
        process.kill()


def resident(process: ServerProcess) -> int:
    """Bytes that it has in memory."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


EXHAUSTING = 7
"""A path that begins with this id takes ``TAKEN`` bytes, and then there is no more memory."""
TAKEN = 300 * MIB
"""More than the C library keeps of one block that is freed."""


def run_out_of_memory() -> None:
    """Let the forwards of some paths take much memory and fail for want of more."""
    torch_forward, native_forward = ModelRunner._forward, NativeDecoder.forward

    def exhaust(batch: Batch, error: type[Exception]) -> None:
        if any(extent.query.tokens[0] == EXHAUSTING for extent in batch.query_slices):
            taken = torch.ones(TAKEN // 4)
            raise error(f"no room beside {taken.numel()} elements")

    def with_torch(runner: ModelRunner, batch: Batch) -> Any:
        found = torch_forward(runner, batch)
        exhaust(batch, torch.OutOfMemoryError)
        return found

    def natively(decoder: NativeDecoder, batch: Batch, progress: Callable[[], None]) -> Any:
        found = native_forward(decoder, batch, progress)
        exhaust(batch, OutOfMemory)
        return found

    ModelRunner._forward = with_torch  # type: ignore[method-assign]
    NativeDecoder.forward = natively  # type: ignore[method-assign]


def test_who_runs_out_of_memory_leaves_none_behind(start: Start) -> None:
    """503 for it alone; then the process has what it had before, and the next one its bits."""
    process = start(prepare=run_out_of_memory)
    want = process.score(5, 6, 9).json()["results"]
    before = resident(process)
    for _ in range(3):
        failed = process.score(EXHAUSTING, 6, 9)
        assert (failed.status_code, failed.json()["error"]["code"]) == (503, "out_of_memory")
        assert process.score(5, 6, 9).json()["results"] == want
    assert resident(process) - before < TAKEN // 2


STREAMS, TOKENS, TOP = 24, 50, 320
ENTRY_BYTES = 400
"""What one listed token may take at most while it waits to be read."""


def send_little_ahead() -> None:
    """Let the system take no more than some kilobytes of an answer that nobody reads."""
    bound = server._bound

    def small(*arguments: Any) -> socket.socket:
        listener = bound(*arguments)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return listener

    server._bound = small


def unread_stream(process: ServerProcess, first: int) -> socket.socket:
    """A connection on which a long stream was asked for, and of which nothing is ever read."""
    body = json.dumps(
        {
            "context": [first, first],
            "max_tokens": TOKENS,
            "top_logprobs": TOP,
            "ignore_eos": True,
            "stream": True,
        }
    ).encode()
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(TIMEOUT_S)
    connection.connect(process.address)
    head = f"POST /v1/decode HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
    return connection


def stall(process: ServerProcess) -> int:
    """As many readers as there are streams ask, never read, and are hung up on in the end.

    The most bytes that the process had meanwhile.
    """
    most = 0

    def queue() -> dict[str, Any]:
        nonlocal most
        most = max(most, resident(process))
        found: dict[str, Any] = httpx.get(f"{process.url}/health").json()["queue"]
        return found

    with ExitStack() as stack:
        for first in range(10, 10 + STREAMS):
            stack.enter_context(unread_stream(process, first))
        await_true(lambda: queue()["queued_requests"] == 0)
        for _ in range(STREAMS):
            line = process.await_line("request")
            assert (line["route"], line["status"]) == ("/v1/decode", 499)
            queue()
    return most


def test_readers_that_never_read_take_no_more_than_their_tokens(start: Start) -> None:
    """What waits for them is bounded, is dropped with them, and the next ones need no more."""
    entries = STREAMS * TOKENS * TOP
    process = start(prepare=send_little_ahead, body_timeout_s=0.3)
    process.score(5, 6, 9)
    process.await_line("request")
    before = resident(process)
    peak = stall(process)
    assert peak - before < entries * ENTRY_BYTES
    first = resident(process)
    for _ in range(2):
        stall(process)
    assert resident(process) - first < entries * ENTRY_BYTES // 4
