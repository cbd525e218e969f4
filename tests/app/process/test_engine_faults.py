"""What a forward may do to a real server process: fail, run out of memory, die, hang. And what a
tokenizer may do."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.app.faulty_engine import (
    DIES,
    DOES_NOT_FIT,
    FAILS,
    HANGS,
    HELD,
    STUCK,
    WAITS_FOR_MEMORY,
)
from tests.app.stub_server import TIMEOUT_S, ServerProcess, await_true

pytestmark = pytest.mark.process

Start = Callable[..., ServerProcess]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts processes with a faulty model, and ends those that are left."""
    started: list[ServerProcess] = []

    def start(**settings: object) -> ServerProcess:
        started.append(ServerProcess("faulty", **settings))
        started[-1].await_line("ready")
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture(scope="module")
def survivor() -> Iterator[ServerProcess]:
    """One process for the faults that it has to survive."""
    process = ServerProcess("faulty")
    process.await_line("ready")
    yield process
    process.kill()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for requests that wait."""
    with ThreadPoolExecutor(8) as pool:
        yield pool


def reasons(process: ServerProcess) -> list[str]:
    """What the log calls critical."""
    return [line["message"] for line in process.log if line["level"] == "critical"]


def stacks(process: ServerProcess) -> dict[str, list[str]]:
    """The stack of each thread that was logged."""
    lines = [line for line in process.log if line["message"] == "thread stack"]
    return {line["of"]: line["stack"] for line in lines}


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [(FAILS, 500, "forward_failed"), (DOES_NOT_FIT, 503, "out_of_memory")],
)
def test_a_forward_that_fails_fails_its_culprit_alone(
    survivor: ServerProcess, pool: ThreadPoolExecutor, fault: int, status: int, code: str
) -> None:
    """Its neighbours in the batch have the bits that they have alone; the next one is served."""
    process = survivor
    alone = [process.score(i, 1).json()["results"][0]["logprob"] for i in range(1, 5)]
    held = pool.submit(process.score, HELD, 1)
    process.await_requests(1)
    culprit = pool.submit(process.score, fault, 1)
    neighbours = [pool.submit(process.score, i, 1) for i in range(1, 5)]
    process.await_requests(6)
    process.release()
    error = culprit.result()
    assert (error.status_code, error.json()["error"]["code"]) == (status, code)
    assert "/some/path" not in error.text
    assert held.result().status_code == 200
    answers = [neighbour.result().json()["results"][0]["logprob"] for neighbour in neighbours]
    assert answers == alone
    assert process.score(1, 1).status_code == 200
    assert process.passes("/health/live")
    assert process.passes("/health/ready")


def test_a_moment_without_memory_fails_nobody(
    survivor: ServerProcess, pool: ThreadPoolExecutor
) -> None:
    """Who waits for it and who is queued beside are answered."""
    process = survivor
    held = pool.submit(process.score, HELD, 1)
    process.await_requests(1)
    waiting = [pool.submit(process.score, i, 1) for i in (WAITS_FOR_MEMORY, 1, 2)]
    process.await_requests(4)
    process.release()
    assert [task.result().status_code for task in (held, *waiting)] == 4 * [200]


def test_when_the_model_thread_dies_all_hear_of_it(start: Start, pool: ThreadPoolExecutor) -> None:
    """Running and queued requests get 503, probes fail, and the exit is not 0."""
    process = start()
    held = pool.submit(process.score, HELD, 1)
    process.await_requests(1)
    waiting = [pool.submit(process.score, i, 1) for i in (DIES, 1, 2)]
    process.await_requests(4)
    process.release()
    for answer in [task.result() for task in waiting]:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_died")
    assert held.result().status_code == 200
    await_true(lambda: not process.passes("/health/live"))
    assert process.exit_code() == 1
    assert reasons(process) == ["the engine died: SystemExit: out of luck"]


def test_a_forward_that_hangs_ends_the_process(start: Start, pool: ThreadPoolExecutor) -> None:
    """Running and queued requests get 503, the log has the stacks, and the exit is not 0."""
    process = start(watchdog_timeout_s=1)
    hangs = pool.submit(process.score, HANGS, 1)
    process.await_requests(1)
    queued = [pool.submit(process.score, i, 1) for i in range(1, 3)]
    for answer in [task.result() for task in (hangs, *queued)]:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_died")
    await_true(lambda: not process.passes("/health/live"))
    assert process.exit_code() == 1
    assert reasons(process) == [
        "the engine died: EngineStalled: the model thread has made no step for 1 s"
    ]
    assert any(place.endswith(" on_run") for place in stacks(process)["model"])
    assert "MainThread" in stacks(process)


def test_a_first_forward_that_hangs_ends_the_process() -> None:
    """A server that never becomes ready says where it hangs, and gives up as well."""
    process = ServerProcess("stuck", watchdog_timeout_s=0.2)
    try:
        assert process.exit_code() == 1
        assert "ready" not in [line["message"] for line in process.log]
        assert len(reasons(process)) == 1
        assert any(place.endswith(" on_run") for place in stacks(process)["model"])
    finally:
        process.kill()


def test_a_first_forward_that_raises_ends_the_process() -> None:
    """Never ready, one line that tells why, and status 1."""
    process = ServerProcess("unfit")
    try:
        assert process.exit_code() == 1
        assert "ready" not in [line["message"] for line in process.log]
        assert reasons(process) == [
            "cannot serve the model: the warm-up forward of ToyForCausalLM failed: "
            "mat1 and mat2 shapes cannot be multiplied"
        ]
        assert not [line for line in process.log if "traceback" in line]
    finally:
        process.kill()


@pytest.mark.parametrize("timeout_ms", [1_000, 60_000], ids=["given up before", "in flight"])
def test_a_tokenizer_that_hangs_keeps_no_process_alive(
    start: Start, pool: ThreadPoolExecutor, timeout_ms: int
) -> None:
    """Its request is answered by its deadline or at the drain timeout, and the exit is on time."""
    process = start(drain_timeout_s=0.5)
    body = {"context": STUCK, "timeout_ms": timeout_ms}
    url = f"{process.url}/v1/next_token"
    hangs = pool.submit(httpx.post, url, json=body, timeout=TIMEOUT_S)
    health = f"{process.url}/health"
    if timeout_ms == 1_000:
        assert hangs.result().status_code == 504
    else:
        await_true(lambda: httpx.get(health).json()["queue"]["queued_tokens"] > 0)
    assert process.score(1, 1).status_code == 200
    began = time.monotonic()
    process.signal(signal.SIGTERM)
    assert process.exit_code() == 0
    assert time.monotonic() - began < TIMEOUT_S / 2
    assert hangs.result().status_code == (504 if timeout_ms == 1_000 else 503)
    assert process.log[-1]["message"] == "stopped"
