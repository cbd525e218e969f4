"""``chainrule selftest`` against a real model behind uvicorn, healthy and with bugs planted."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import torch
import uvicorn
from transformers import AutoTokenizer

from app.cli.main import main
from app.cli.selftest import CHECKS, CONTEXT, TEXTS, Facts, run_checks
from app.client import Client
from app.main import create_app
from app.settings import Settings
from tests.conftest import TinyFolder
from tests.end_to_end import planted_bugs
from tests.end_to_end.planted_bugs import Plant
from tests.offline import eager_model

LONG_S = 60.0

USUAL = {
    "shifted_positions": (planted_bugs.logits_of_the_next_position, "seen them already"),
    "softmax_over_candidates": (planted_bugs.softmax_over_candidates, "add up to 1"),
    "doubled_special_tokens": (planted_bugs.bos_on_the_way_to_the_model, "is fed"),
    "prompt_in_length": (planted_bugs.prompt_in_the_mean, "own tokens"),
}


@pytest.fixture(scope="module")
def url(tiny_folder: TinyFolder) -> Iterator[str]:
    """A live server whose tokenizer puts BOS before texts."""
    settings = Settings(model=str(tiny_folder("gemma3")), kv_cache_bytes="64MiB", device="cpu")
    config = uvicorn.Config(
        create_app(settings), port=0, http="h11", ws="none", lifespan="on", log_config=None
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        url = _url(server)
        with httpx.Client(base_url=url, timeout=LONG_S) as client:
            _await_ready(client)
        yield url
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


def test_a_healthy_server_passes(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each check, and status 0."""
    assert main(["selftest", "--url", url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"ok    {check.__name__}" for check in CHECKS]


def test_the_same_server_has_the_numbers_of_transformers(url: str, tiny_folder: TinyFolder) -> None:
    """Its tokenizer, which puts BOS first once; its loss, the context masked; its distributions."""
    folder = tiny_folder("gemma3")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), eager_model(folder)
    with Client(url) as client:
        audit = client.audit(context=CONTEXT, candidates=list(TEXTS))
    start = audit.boundary.start_token
    for text, candidate in zip(TEXTS, audit.candidates, strict=True):
        ids = torch.tensor(tokenizer(CONTEXT + text).input_ids)
        labels = ids.clone()
        labels[:start] = -100
        with torch.no_grad():
            answer = model(input_ids=ids[None], labels=labels[None])
        rows = answer.logits[0, start - 1 : -1].double().log_softmax(-1)
        training = candidate.training
        assert [token.id for token in candidate.tokens] == ids[start:].tolist()
        assert training is not None and training.labels == len(ids) - start
        assert training.mean_nll == pytest.approx(float(answer.loss), abs=1e-4)
        entropies = (-(rows.exp() * rows).sum(-1)).tolist()
        assert [token.entropy for token in candidate.tokens] == pytest.approx(entropies, abs=1e-4)


def test_a_failure_is_the_exit_status(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line of the check that fails says what is wrong; the others are printed as well."""
    planted_bugs.ranks_turned_round(monkeypatch)
    assert main(["selftest", "--url", url]) == 1
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if not line.startswith("ok    ")]
    assert line.startswith("FAIL  sums_and_ranks: the candidate with ")
    assert len(lines) == len(CHECKS)


def test_no_server_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        assert main(["selftest", "--url", url]) == 1
    assert capsys.readouterr().err.startswith("chainrule: error: ")


@pytest.mark.parametrize(
    ("plant", "name", "words"),
    [
        (planted_bugs.logits_of_the_position_before, "shifted_positions", "last token"),
        (
            planted_bugs.softmax_over_candidate_tokens,
            "softmax_over_candidates",
            "only the candidates' own tokens",
        ),
        (planted_bugs.bos_by_the_tokenizer_too, "doubled_special_tokens", "is counted as"),
        (planted_bugs.bos_before_candidates_only, "doubled_special_tokens", "one more BOS"),
        (planted_bugs.prompt_in_the_bytes, "prompt_in_length", "own bytes"),
        (planted_bugs.prompt_in_the_count, "prompt_in_length", "is counted as"),
        (planted_bugs.ranks_turned_round, "sums_and_ranks", "has rank"),
        (planted_bugs.probability_of_the_mean, "sums_and_ranks", "not the softmax"),
        (planted_bugs.last_token_left_out, "sums_and_ranks", "its tokens add up to"),
        (planted_bugs.neighbours_in_the_score, "batch_invariance", "among others"),
        (planted_bugs.tokens_apart_from_the_text, "token_split", "beside other texts"),
        (planted_bugs.scores_of_warmer_logits, "chain_rule", "asked for alone"),
    ],
)
def test_a_planted_bug_is_named(
    url: str, monkeypatch: pytest.MonkeyPatch, plant: Plant, name: str, words: str
) -> None:
    """Each bug in the live backend fails the check of its name, which says what is wrong."""
    plant(monkeypatch)
    (check,) = [check for check in CHECKS if check.__name__ == name]
    with Client(url) as client:
        assert words in next(check(Facts(client)), "")


@pytest.mark.parametrize("name", USUAL)
def test_the_usual_bugs_are_not_taken_for_one_another(
    url: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Of these the check of the one that is there fails, and no other."""
    plant, words = USUAL[name]
    plant(monkeypatch)
    with Client(url) as client:
        failed = {check: problem for check, problem in run_checks(client) if problem is not None}
    assert failed.keys() & USUAL.keys() == {name}
    assert words in failed[name]
