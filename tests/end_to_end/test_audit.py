"""POST /v1/audit over a socket: a real model behind uvicorn, healthy and with bugs planted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import torch
import uvicorn

from app.main import create_app
from app.settings import Settings
from tests.conftest import TinyFolder
from tests.end_to_end import planted_bugs
from tests.end_to_end.planted_bugs import Plant
from tests.offline import eager_model

CONTEXT = "The capital of France is"
BODY = {"context": CONTEXT, "candidates": [" Paris.", " the text", " no: 42"]}
LONG_S = 60.0

Ask = Any


@pytest.fixture(scope="module")
def ask(tiny_folder: TinyFolder) -> Iterator[Ask]:
    """Posts to /v1/audit of a live server whose tokenizer puts BOS before texts."""
    settings = Settings(model=str(tiny_folder("gemma3")), kv_cache_bytes="64MiB", device="cpu")
    config = uvicorn.Config(
        create_app(settings), port=0, http="h11", ws="none", lifespan="on", log_config=None
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        with httpx.Client(base_url=_url(server), timeout=LONG_S) as client:
            _await_ready(client)

            def post(**changes: Any) -> dict[str, Any]:
                response = client.post("/v1/audit", json={**BODY, **changes})
                assert response.status_code == 200, response.text
                return dict(response.json())

            yield post
    finally:
        server.should_exit = True
        thread.join()


def _url(server: uvicorn.Server) -> str:
    deadline = time.monotonic() + LONG_S
    while not server.started:
        assert time.monotonic() < deadline, "the server does not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    return f"http://127.0.0.1:{port}"


def _await_ready(client: httpx.Client) -> None:
    deadline = time.monotonic() + LONG_S
    while client.get("/health/ready").status_code != 200:
        assert time.monotonic() < deadline, "the model does not load"
        time.sleep(0.02)


def failed(answer: dict[str, Any]) -> dict[str, str]:
    """Names and words of the checks that failed."""
    return {
        check["name"]: check["detail"] for check in answer["checks"] if check["passed"] is False
    }


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"append_eos": True},
        {"boundary": "separate"},
        {"candidates": [" Paris"]},
        {"candidates": ["x", " isn't", [5, 6, 7], ""]},
        {"context": [3, 17, 90, 4]},
        {"context": "It is", "candidates": [" yes", "n't", "n't it"]},
        {"context": [{"role": "user", "content": "Is it?"}], "append_eos": True},
        {"context": "", "candidates": ["yes", "no"]},
        {"context": "It is", "candidates": [" yes"], "start_token": 2},
    ],
)
def test_a_healthy_server_passes_every_check(ask: Ask, changes: dict[str, Any]) -> None:
    """Texts, ids, messages, merges, ends and failures: all is looked at, nothing is found."""
    answer = ask(**changes)
    assert failed(answer) == {}
    assert all(check["passed"] is True for check in answer["checks"])
    assert answer["passed"] is True


@pytest.mark.parametrize(
    ("plant", "name", "words"),
    [
        (planted_bugs.logits_of_the_next_position, "shifted_positions", "has seen the token"),
        (planted_bugs.logits_of_the_position_before, "shifted_positions", "position before"),
        (planted_bugs.softmax_over_candidates, "softmax_over_candidates", "add up to 1.000000"),
        (
            planted_bugs.softmax_over_candidate_tokens,
            "softmax_over_candidates",
            "only the candidates' own tokens",
        ),
        (planted_bugs.bos_by_the_tokenizer_too, "doubled_special_tokens", "twice"),
        (planted_bugs.bos_on_the_way_to_the_model, "doubled_special_tokens", "was fed 1 token"),
        (planted_bugs.bos_before_candidates_only, "doubled_special_tokens", "behind a second"),
        (planted_bugs.prompt_in_the_mean, "prompt_in_length", "of the context are counted in"),
        (planted_bugs.prompt_in_the_bytes, "prompt_in_length", "bytes; it has"),
        (planted_bugs.prompt_in_the_count, "prompt_in_length", "of the context are counted in"),
        (planted_bugs.ranks_turned_round, "sums_and_ranks", "by the sums they are"),
        (planted_bugs.probability_of_the_mean, "sums_and_ranks", "not the softmax"),
        (planted_bugs.start_reported_late, "token_split", "it should start at"),
        (planted_bugs.neighbours_in_the_score, "neighbours", "score otherwise"),
        (planted_bugs.tokens_apart_from_the_text, "token_split", "other tokens"),
        (planted_bugs.entropy_in_bits, "full_vocabulary", "entropy"),
        (planted_bugs.scores_of_warmer_logits, "token_by_token", "largest difference"),
        (planted_bugs.last_token_left_out, "sums_and_ranks", "its tokens add up to"),
    ],
)
def test_a_planted_bug_is_named(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, plant: Plant, name: str, words: str
) -> None:
    """Each bug in the live backend fails the check of its name, which says what is wrong."""
    plant(monkeypatch)
    answer = ask()
    assert answer["passed"] is False
    found = failed(answer)
    assert name in found, found
    assert words in found[name]


def test_the_usual_bugs_are_not_taken_for_one_another(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the four usual bugs the audit names the one that is there, and no other."""
    usual = {
        "shifted_positions": planted_bugs.logits_of_the_next_position,
        "softmax_over_candidates": planted_bugs.softmax_over_candidates,
        "doubled_special_tokens": planted_bugs.bos_on_the_way_to_the_model,
        "prompt_in_length": planted_bugs.prompt_in_the_mean,
    }
    for name, plant in usual.items():
        with monkeypatch.context() as patch:
            plant(patch)
            assert failed(ask()).keys() & usual.keys() == {name}


def test_the_caller_may_double_bos_himself(ask: Ask) -> None:
    """BOS in the ids and add_bos beside them: the server is right, and the audit says it."""
    plain = ask(context=[0, 17, 90], candidates=[[5, 6]])
    bos = next(
        check["measured"]["special_tokens"]
        for check in plain["checks"]
        if check["name"] == "doubled_special_tokens"
    )
    assert bos == 1 and failed(plain) == {}
    doubled = ask(context=[0, 17, 90], candidates=[[5, 6]], add_bos=True)
    assert failed(doubled).keys() == {"doubled_special_tokens"}


def test_the_training_view_is_the_loss_of_transformers(ask: Ask, tiny_folder: TinyFolder) -> None:
    """The mean NLL is the loss that transformers computes with the context's labels masked."""
    model = eager_model(tiny_folder("gemma3"))
    context, path = [0, 17, 90, 33], [5, 6, 7, 120]
    answer = ask(context=context, candidates=[path])
    labels = torch.tensor([[-100] * len(context) + path])
    with torch.no_grad():
        loss = model(input_ids=torch.tensor([context + path]), labels=labels).loss
    (candidate,) = answer["candidates"]
    assert candidate["training"]["labels"] == len(path)
    assert candidate["training"]["mean_nll"] == pytest.approx(float(loss), abs=1e-4)
    assert candidate["ranking"]["mean"]["score"] == pytest.approx(-float(loss), abs=1e-4)
