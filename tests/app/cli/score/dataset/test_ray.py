"""``chainrule score --ray`` on a cluster of this machine: real actors, real engines."""

from __future__ import annotations

import csv
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.client import InvalidRequest
from app.settings import Settings

pytestmark = [pytest.mark.fleet, pytest.mark.process]

TIMEOUT_S = 300.0
CONTEXTS = ["the cat sat", "one two three", "é and more"]


def record(number: int) -> dict[str, Any]:
    """One of a dataset; neighbours share a context."""
    context = f"{CONTEXTS[number // 5 % 3]} {number // 5}"
    return {"id": number, "context": context, "candidates": [" on", " four", f" {number}"]}


BAD = {"id": 99, "context": "it is", "candidates": []}


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all three formats, with rows that cannot be scored in each."""
    folder = tmp_path_factory.mktemp("dataset")
    lines = [json.dumps(record(number)) for number in range(20)]
    lines[7:7] = [json.dumps(BAD), "{", ""]
    (folder / "a.jsonl").write_text("\n".join(lines))
    with (folder / "b.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["context", "candidate_1", "candidate_2"])
        rows.writerows([f"line\n{number}", " a", " b"] for number in range(12))
        rows.writerow(["short"])
    good = [record(number) for number in range(20, 50)]
    pq.write_table(pa.Table.from_pylist([*good, BAD]), folder / "c.parquet", row_group_size=8)
    return folder


@pytest.fixture(scope="session")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that takes a while."""
    path = tmp_path_factory.mktemp("long") / "in.jsonl"
    lines = [json.dumps({**record(n), "context": f"{n} " * 40}) + "\n" for n in range(600)]
    path.write_text("".join(lines))
    return path


@pytest.fixture
def model(tiny_folder: Callable[[str], Path]) -> Path:
    """What is loaded."""
    return tiny_folder("llama")


def start(*argv: object, **variables: object) -> subprocess.Popen[str]:
    """``chainrule score``, with a process group of its own."""
    own = {"RAY_USAGE_STATS_ENABLED": "0", "CHAINRULE_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    given = {f"CHAINRULE_{name.upper()}": str(value) for name, value in variables.items()}
    return subprocess.Popen(
        [sys.executable, "-m", "app", "score", *map(str, argv)],
        env={**os.environ, **own, **given},
        stderr=subprocess.PIPE,
        text=True,
    )


def score(*argv: object, status: int = 0, **variables: object) -> str:
    """Run it to its end; the last line that it says."""
    process = start(*argv, **variables)
    try:
        _, said = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    assert process.returncode == status, said
    return said.strip().splitlines()[-1]


def rows(folder: Path, name: str = "scores") -> list[dict[str, Any]]:
    """Of all parts, in the order of the input."""
    found = pq.read_table(folder / name).to_pylist()
    return sorted(found, key=lambda row: (row["file"], row["line"]))


def parts(folder: Path) -> dict[str, tuple[int, int]]:
    """The blocks that are done, with what tells a file that was written again."""
    found = [(path, path.stat()) for path in (folder / "scores").glob("part-*")]
    return {path.name: (about.st_ino, about.st_mtime_ns) for path, about in found}


def await_parts(process: subprocess.Popen[str], folder: Path, count: int) -> None:
    """Wait until so many blocks are done, while the run goes on."""
    deadline = time.monotonic() + TIMEOUT_S
    while len(parts(folder)) < count:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def bits(row: dict[str, Any]) -> list[bytes]:
    """Every score of a row, as it lies in memory."""
    return [struct.pack("d", one["score"]) for one in row["results"] if one["score"] is not None]


def test_the_scores_are_those_of_the_plain_command(
    dataset: Path, model: Path, tmp_path: Path
) -> None:
    """Of all formats, bit for bit; so are the errors, and the files say whose scores they are."""
    out = tmp_path / "out"
    said = score(dataset, "-o", out, "--ray", "--actors", "2", "--block-rows", "7",
                 status=3, model=model)  # fmt: skip
    assert said == f"chainrule: 66 records: 62 scored, 4 not, see {out / 'errors'}"
    found, errors = rows(out), rows(out, "errors")
    for path in sorted(dataset.iterdir()):
        plain = tmp_path / "plain.parquet"
        score(path, "-o", plain, "--local", "--overwrite", status=3, model=model)
        expected = pq.read_table(plain).to_pylist()
        mine = [row for row in found if row["file"] == str(path)]
        assert [bits(row) for row in mine] == [bits(row) for row in expected]
        assert [{k: v for k, v in row.items() if k not in ("file", "id")} for row in mine] == [
            {k: v for k, v in row.items() if k != "id"} for row in expected
        ]
        wrong = (tmp_path / "plain.parquet.errors.jsonl").read_text().splitlines()
        told = [(one["line"], one["error"]["code"], one["error"]["param"],
                 one["error"]["message"]) for one in map(json.loads, wrong)]  # fmt: skip
        mine = [row for row in errors if row["file"] == str(path)]
        assert [(r["line"], r["code"], r["param"], r["message"]) for r in mine] == told
        about = pq.read_schema(plain).metadata[b"chainrule"]
    (first, *_) = sorted((out / "scores").iterdir())
    metadata = json.loads(pq.read_schema(first).metadata[b"chainrule"])
    shared = {name: json.loads(about)[name] for name in ("model", "fingerprint", "numeric_error")}
    assert {name: metadata[name] for name in shared} == shared


def test_a_killed_run_goes_on(long: Path, model: Path, tmp_path: Path) -> None:
    """No block is scored again, and the scores are those of a run that was never ended; another
    model or other options are refused."""
    out = tmp_path / "out"
    argv = (long, "-o", out, "--ray", "--actors", "1", "--block-rows", "20", "--concurrency", "4")
    process = start(*argv, model=model)
    try:
        await_parts(process, out, 3)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    time.sleep(2)  # actors of a cluster that is gone end too
    before = parts(out)
    assert 3 <= len(before) < 30
    said = score(*argv, "--normalization", "mean", status=1, model=model)
    assert "of another run: options differ; --overwrite begins anew" in said
    said = score(*argv, status=1, model=model, dtype="bfloat16")
    assert "of another run: model differ" in said
    assert parts(out) == before
    assert score(*argv, model=model) == "chainrule: 600 records: 600 scored"
    after = parts(out)
    assert len(after) == 30
    assert before.items() <= after.items()
    assert not list((out / "scores").glob(".part*"))
    plain = tmp_path / "plain.parquet"
    score(long, "-o", plain, "--local", model=model)
    assert [bits(row) for row in rows(out)] == [
        bits(row) for row in pq.read_table(plain).to_pylist()
    ]
    assert score(*argv, model=model) == "chainrule: 600 records: 600 scored"
    assert parts(out) == after


def test_an_actor_that_dies_is_replaced(long: Path, model: Path, tmp_path: Path) -> None:
    """Its blocks are scored by others; nothing is missing and nothing is there twice."""
    out = tmp_path / "out"
    argv = (long, "-o", out, "--ray", "--actors", "2", "--block-rows", "20", "--concurrency", "4")
    process = start(*argv, model=model)
    try:
        await_parts(process, out, 2)
        victim = next(_actors_of(process.pid))
        os.kill(victim, signal.SIGKILL)
        _, said = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert [row["line"] for row in rows(out)] == list(range(1, 601))


def test_what_cannot_start_is_one_line(dataset: Path, model: Path, tmp_path: Path) -> None:
    """A model that is not there, a file that is damaged, more actors than there is room for."""
    argv = (dataset, "-o", tmp_path / "out", "--ray")
    assert "nowhere" in score(*argv, status=1, model=tmp_path / "nowhere")
    assert "have no room for 99 actors" in score(*argv, "--actors", "99", status=2, model=model)
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    torn = (tmp_path / "torn.parquet", "-o", tmp_path / "out", "--ray")
    assert "torn.parquet: the input cannot be read as Parquet" in score(
        *torn, status=2, model=model
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("nodes", "actors", "settings", "expected"),
    [
        ([{"CPU": 8}], None, {}, (1, 8, 0)),
        ([{"CPU": 8}], 2, {}, (2, 4, 0)),
        ([{"CPU": 8}, {"CPU": 4}, {}], None, {}, (2, 4, 0)),
        ([{"CPU": 8}], 3, {"threads": 2}, (3, 2, 0)),
        ([{"CPU": 8, "GPU": 2}], None, {}, (2, 4, 1)),
        ([{"CPU": 8, "GPU": 2}], None, {"device": "cpu"}, (1, 8, 0)),
        ([{"CPU": 2}], 3, {}, None),
        ([{"CPU": 8}], 1, {"device": "cuda"}, None),
        ([{"memory": 1}], None, {}, None),
    ],
)
def test_actors_share_the_cluster(
    nodes: list[dict[str, float]],
    actors: int | None,
    settings: dict[str, Any],
    expected: tuple[int, int, int] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or have no room in it."""
    from app.cli.score.dataset import cluster

    listed = [{"Alive": True, "Resources": one} for one in nodes]
    monkeypatch.setattr(cluster, "ray", SimpleNamespace(nodes=lambda: listed))
    with _refused_if(expected is None):
        layout = cluster.ActorLayout.plan(actors, Settings(**settings))
        assert (layout.actors, layout.threads, layout.gpus) == expected


@contextmanager
def _refused_if(is_refused: bool) -> Iterator[None]:
    if not is_refused:
        yield
        return
    with pytest.raises(InvalidRequest):
        yield


def _actors_of(root: int) -> Iterator[int]:
    """The processes of a run that score blocks."""
    parents: dict[int, int] = {}
    names: dict[int, bytes] = {}
    for place in Path("/proc").iterdir():
        if not place.name.isdigit():
            continue
        try:
            stat, name = (place / "stat").read_text(), (place / "cmdline").read_bytes()
        except OSError:
            continue
        parents[int(place.name)] = int(stat.rpartition(")")[2].split()[1])
        names[int(place.name)] = name
    for pid, name in names.items():
        ancestor = pid
        while ancestor not in (root, 0):
            ancestor = parents.get(ancestor, 0)
        if ancestor == root and name.startswith(b"ray::") and b"BlockScorer" in name:
            yield pid
