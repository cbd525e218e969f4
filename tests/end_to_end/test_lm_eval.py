"""lm-evaluation-harness against a live server: its own model on the same weights is the oracle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.harness import (
    Answers,
    answers_to_chats,
    evaluate,
    own_model,
    quiet_and_offline,
    through_chat,
    through_server,
)
from tests.end_to_end.live_server import LiveServer

pytestmark = [
    pytest.mark.real_model,
    pytest.mark.process,
    pytest.mark.filterwarnings("ignore"),  # the harness and its packages warn of themselves
]

DOCUMENTS = 2
CLOSE = 1e-3


@pytest.fixture(autouse=True, scope="module")
def _quiet_and_offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with quiet_and_offline(tmp_path_factory.mktemp("datasets")):
        yield


@pytest.fixture(scope="module")
def by_harness(real_folder: Path) -> tuple[float, Answers]:
    """What lm-eval's own model finds."""
    return evaluate(own_model(real_folder), DOCUMENTS)


@pytest.mark.parametrize(
    ("tokenized", "batch_size", "concurrent", "backend"),
    [
        (True, 1, 1, "huggingface"),
        (True, 8, 1, "huggingface"),
        (True, 1, 8, "auto"),
        (False, 1, 8, "huggingface"),
        (False, 8, 1, "huggingface"),
    ],
)
def test_local_completions_finds_what_its_own_model_finds(
    real_server: LiveServer,
    real_folder: Path,
    by_harness: tuple[float, Answers],
    tokenized: bool,
    batch_size: int,
    concurrent: int,
    backend: str,
) -> None:
    """The same log-likelihoods and greedy flags, sample by sample, however it asks."""
    accuracy, want = by_harness
    served = through_server(
        real_server.url,
        real_folder,
        tokenizer_backend=backend,
        tokenized_requests=tokenized,
        batch_size=batch_size,
        num_concurrent=concurrent,
    )
    found_accuracy, found = evaluate(served, DOCUMENTS)
    assert found_accuracy == accuracy
    assert found.keys() == want.keys()
    for key, (logprob, greedy) in want.items():
        assert found[key] == (pytest.approx(logprob, abs=CLOSE), greedy), key


def test_some_choice_is_greedy_and_some_is_not(by_harness: tuple[float, Answers]) -> None:
    """The flags that are compared are not all the same."""
    _, want = by_harness
    assert {greedy for _, greedy in want.values()} == {True, False}


def test_local_chat_completions_says_what_its_own_model_says(
    real_server: LiveServer, real_folder: Path
) -> None:
    """The same words, greedy, behind the same chat template; two questions at a time."""
    want = answers_to_chats(own_model(real_folder), DOCUMENTS)
    assert all(want)
    assert answers_to_chats(through_chat(real_server.url, num_concurrent=2), DOCUMENTS) == want
