"""vLLM's router, as it comes, in front of a real server."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.app.stub_server import ServerProcess
from tests.conftest import TinyFolder

pytestmark = pytest.mark.process

START_S = 60.0
ROUTER = Path(sys.executable).with_name("vllm-router")
DOCUMENTS = ["Paris is in France.", "Tokyo is in Japan.", "It is raining."]
RERANK: dict[str, Any] = {"query": "capital of Japan", "documents": DOCUMENTS}
COMPLETION: dict[str, Any] = {"prompt": "Paris is", "max_tokens": 3, "logprobs": 1}


@pytest.fixture(scope="module")
def server(tiny_folder: TinyFolder) -> Iterator[ServerProcess]:
    """A tiny Llama, under the name, too, that the router gives a request for ranks."""
    server = ServerProcess(
        "model",
        model=str(tiny_folder("llama")),
        kv_cache_bytes="64MiB",
        served_name="tiny,default",
    )
    try:
        server.await_line("ready")
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def router(server: ServerProcess) -> Iterator[httpx.Client]:
    """A client of the router."""
    port, metrics_port = _free_port(), _free_port()
    process = subprocess.Popen(
        [
            *(str(ROUTER), "--worker-urls", server.url, "--policy", "round_robin"),
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--prometheus-port", str(metrics_port), "--log-level", "error"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=START_S) as client:
            _await_health(client, process)
            yield client
    finally:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _await_health(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + START_S
    while time.monotonic() < ends and process.poll() is None:
        try:
            if client.get("/health").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"the router did not start: {process.poll()}")


def asked(server: ServerProcess, path: str, body: dict[str, Any]) -> Any:
    """What the server itself answers."""
    return httpx.post(f"{server.url}{path}", json=body, timeout=START_S).json()


def answer_of(client: httpx.Client, path: str, body: dict[str, Any]) -> Any:
    """The answer to a request that succeeds."""
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("model", [{}, {"model": "tiny"}])
def test_completions_pass_through(
    router: httpx.Client, server: ServerProcess, model: dict[str, str]
) -> None:
    """With all the defaults that the router adds."""
    found = answer_of(router, "/v1/completions", COMPLETION | model)
    assert found["choices"] == asked(server, "/v1/completions", COMPLETION)["choices"]
    assert found["model"] == "tiny"


def test_a_stream_passes_through(router: httpx.Client, server: ServerProcess) -> None:
    """Piece by piece, to its end."""
    pieces = router.post("/v1/completions", json={**COMPLETION, "stream": True}).text
    assert pieces.endswith("data: [DONE]\n\n")
    (wanted,) = asked(server, "/v1/completions", COMPLETION)["choices"]
    lines = [line for line in pieces.splitlines() if line.startswith("data: {")]
    assert len(lines) == 3 + 1
    assert wanted["finish_reason"] == "length"


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank"])
def test_ranks_are_what_the_router_reads(
    router: httpx.Client, server: ServerProcess, path: str
) -> None:
    """It puts the answer together itself, from the bare list, with numbers of single precision."""
    found = answer_of(router, path, {**RERANK, "model": "default"})["results"]
    wanted = asked(server, "/v1/rerank", RERANK)["results"]
    assert [one["index"] for one in found] == [one["index"] for one in wanted]
    assert [one["document"] for one in found] == [DOCUMENTS[one["index"]] for one in wanted]
    for ours, theirs in zip(wanted, found, strict=True):
        assert theirs["score"] == pytest.approx(ours["relevance_score"], rel=1e-6)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v2/rerank", RERANK, "results"),
        ("/v1/score", {"context": "Paris is", "candidates": [" in", " on"]}, "results"),
        ("/v1/score", {"text_1": "Paris", "text_2": DOCUMENTS}, "data"),
        ("/tokenize", {"prompt": "Paris is"}, "tokens"),
    ],
)
def test_what_the_router_does_not_know_passes_through(
    router: httpx.Client, server: ServerProcess, path: str, body: dict[str, Any], field: str
) -> None:
    """As it is, native routes among it."""
    assert answer_of(router, path, body)[field] == asked(server, path, body)[field]


def test_a_refusal_passes_through(router: httpx.Client) -> None:
    """With its status and the field at fault."""
    response = router.post("/v1/completions", json={**COMPLETION, "min_p": 0.5})
    assert response.status_code == 422
    assert response.json()["error"]["param"] == "min_p"
