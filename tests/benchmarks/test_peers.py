"""The peers' side of the benchmark: the protocol, agreement, and who takes the cores."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest

from benchmarks.peers.catalogue import PEERS
from benchmarks.peers.compare import Agreement
from benchmarks.peers.process import NotOffered, PeerFailed, PeerProcess
from benchmarks.peers.protocol import BEAM, GREEDY, SCORE, Answer, Request
from benchmarks.peers.tasks import Task, tasks

ROOT = Path(__file__).parents[2]

FAKE = """
import sys
from benchmarks.peers.protocol import Ids
from benchmarks.peers.workers.serving import serve


class Fake:
    version = "0.1"

    def __init__(self, folder, variant):
        print("said while loading")

    def score(self, paths):
        return [float(len(context) + len(candidate)) for context, candidate in paths]

    def greedy(self, prompts, new_tokens):
        if new_tokens == 13:
            sys.exit("out of luck")
        raise ValueError("no such prompt")

    def beam(self, prompt, num_beams, new_tokens):
        raise NotImplementedError("it has no beams")


serve(Fake)
"""


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[PeerProcess]:
    """A worker around a peer of a few lines."""
    command = [sys.executable, "-c", FAKE, str(tmp_path), "float32"]
    environment = {"PYTHONPATH": str(ROOT)}
    with PeerProcess(command, environment, tmp_path / "log", timeout_s=30) as process:
        yield process


def stops(process: PeerProcess, within_s: float = 5.0) -> bool:
    """Whether the scheduler's letter for a process becomes T, for stopped."""
    stat = Path(f"/proc/{process.pid}/stat")
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if stat.read_text().rsplit(")", 1)[1].split()[0] == "T":
            return True
        time.sleep(0.01)
    return False


def test_a_worker_answers_and_stands_still_in_between(peer: PeerProcess) -> None:
    """What a peer prints disturbs no answer, and between requests it is stopped."""
    answer = peer.ask(Request(SCORE, groups=[([1, 2], [[3], [4, 5]])]))
    assert (peer.version, answer.scores) == ("0.1", [3.0, 4.0])
    assert stops(peer)


def test_a_peer_that_fails_once_can_be_asked_again(peer: PeerProcess) -> None:
    """An exception reaches the driver by name, a missing feature as such; neither ends it."""
    with pytest.raises(PeerFailed, match="ValueError: no such prompt"):
        peer.ask(Request(GREEDY, prompts=[[1]], new_tokens=1))
    with pytest.raises(NotOffered, match="it has no beams"):
        peer.ask(Request(BEAM, prompts=[[1]], new_tokens=1))
    assert peer.ask(Request(SCORE, groups=[([1], [[2]])])).scores == [2.0]


def test_a_peer_that_ends_says_why(peer: PeerProcess) -> None:
    """Its last line is the reason, for the request that it died of and for all that follow."""
    for _ in range(2):
        with pytest.raises(PeerFailed, match="out of luck"):
            peer.ask(Request(GREEDY, prompts=[[1]], new_tokens=13))


def test_a_peer_that_does_not_start_says_why(tmp_path: Path) -> None:
    """The reason is the last line of what it printed."""
    command = [sys.executable, "-c", "raise SystemExit('no such model')"]
    with pytest.raises(PeerFailed, match="no such model"):
        PeerProcess(command, {}, tmp_path / "log", timeout_s=30)


def test_a_peer_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    """After the time limit it is ended, as its late answer would be taken for another's."""
    slow = 'import time; print(\'{"version": "1"}\', flush=True); time.sleep(60)'
    command = [sys.executable, "-c", slow]
    with PeerProcess(command, {}, tmp_path / "log", timeout_s=0.2) as process:
        for _ in range(2):
            with pytest.raises(PeerFailed, match="no answer"):
                process.ask(Request(SCORE))


def test_a_request_survives_the_wire() -> None:
    """Every task's request is read as it was written."""
    for task in tasks(tiny=True):
        request = task.request(3)
        assert Request.from_line(request.to_line()) == request


def paths_of(request: Request) -> set[tuple[int, ...]]:
    scored = {tuple(context + candidate) for context, candidate in request.paths}
    return scored | {tuple(prompt) for prompt in request.prompts}


@pytest.mark.parametrize("task", tasks(tiny=True), ids=lambda task: task.name)
def test_no_two_runs_share_a_path(task: Task) -> None:
    """Nothing that one run left in a cache can help the next."""
    runs = [paths_of(task.request(seed)) for seed in range(4)]
    assert all(one.isdisjoint(other) for one, other in combinations(runs, 2))


def test_what_comes_before_a_repeated_context_holds_the_context_alone() -> None:
    """The unmeasured request shares the context of the measured one, and no candidate."""
    (task,) = (task for task in tasks(tiny=True) if task.before is not None)
    assert task.before is not None
    before, after = task.before(1), task.request(1)
    assert before.groups[0][0] == after.groups[0][0]
    assert paths_of(before).isdisjoint(paths_of(after))


def score(*sums: float) -> Answer:
    return Answer(1.0, scores=list(sums))


def test_sums_that_differ_are_not_the_same_work() -> None:
    """One candidate out of bounds, or not a number, in one run is enough."""
    equal = (score(-1.0, -2.0), score(-1.001, -2.0))
    assert Agreement.of([equal]).exact
    assert not Agreement.of([equal, (score(-1.0), score(-1.1))]).exact
    assert not Agreement.of([equal, (score(-1.0), score(float("nan")))]).exact


def test_most_completions_must_be_equal() -> None:
    """A near tie may break either way once in ten completions, not more often."""

    def pair(different: int) -> tuple[Answer, Answer]:
        other = [[2]] * different + [[1]] * (10 - different)
        return Answer(1.0, tokens=[[1]] * 10), Answer(1.0, tokens=other)

    assert Agreement.of([pair(1)]).exact
    assert not Agreement.of([pair(2)]).exact


def test_sides_that_answer_different_questions_are_refused() -> None:
    """A peer that drops an answer is not compared."""
    with pytest.raises(PeerFailed, match="different numbers"):
        Agreement.of([(score(-1.0), score())])


def test_every_isolated_peer_has_its_requirements() -> None:
    """What the make target installs is listed, to the version."""
    folder = ROOT / "benchmarks" / "peers"
    for peer in PEERS.values():
        if peer.isolated:
            lines = (folder / f"requirements-{peer.name}.txt").read_text().splitlines()
            named = [line for line in lines if line and not line.startswith("#")]
            assert named and all("==" in line for line in named)
