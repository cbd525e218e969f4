"""The folder that a dataset's scores go to: what is done, what is refused, what is torn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from app.cli.score.dataset.block_writer import BlockWriter
from app.cli.score.dataset.folder import BLOCK_ATTEMPTS, BlockFiles, OutputFolder
from app.cli.score.output import OutputError

MANIFEST = {"input": ["a"], "options": {}, "model": "m"}


@contextmanager
def opened(
    path: Path, manifest: dict[str, Any] = MANIFEST, *, overwrite: bool = False
) -> Iterator[OutputFolder]:
    """The folder, for as long as the block lasts."""
    folder = OutputFolder(path, manifest, overwrite=overwrite)
    try:
        yield folder
    finally:
        folder.close()


def line(number: int, **fields: Any) -> bytes:
    """A line as a run writes it."""
    return json.dumps({"line": number, **fields}).encode() + b"\n"


def write(folder: OutputFolder, number: int, *, fails: bool = False) -> None:
    """A block of one record that is scored and one that is not, or one that is not finished."""
    files = BlockFiles(folder.path, number)
    with BlockWriter(files, "in", "int", {"model": "m"}) as writer:
        writer.result(line(1, id=7, results=[{"index": 0, "score": -1.5}]))
        writer.error(line(2, id=8, error={"message": "no", "type": "t", "param": None}))
        if fails:
            raise KeyError


def test_a_block_is_done_where_its_scores_are(tmp_path: Path) -> None:
    """The rows say where a record stood; what was torn leaves nothing."""
    with opened(tmp_path / "out") as folder:
        write(folder, 3)
        with pytest.raises(KeyError):
            write(folder, 4, fails=True)
        done = folder.done()
    assert {number: (one.scored, one.failed) for number, one in done.items()} == {3: (1, 1)}
    (row,) = pq.read_table(tmp_path / "out/scores").to_pylist()
    assert (row["file"], row["line"], row["id"]) == ("in", 1, 7)
    assert row["results"][0]["score"] == -1.5
    (row,) = pq.read_table(tmp_path / "out/errors").to_pylist()
    assert row == {"file": "in", "line": 2, "id": 8, "message": "no", "type": "t", "param": None,
                   "code": None}  # fmt: skip
    assert len(list((tmp_path / "out/errors").iterdir())) == 1


def test_an_id_of_another_kind_is_an_error(tmp_path: Path) -> None:
    """A column has one type."""
    with opened(tmp_path / "out") as folder:
        with BlockWriter(BlockFiles(folder.path, 0), "in", "int", {}) as writer:
            writer.result(line(1, id="a", results=[]))
            writer.result(line(2, id=None, results=[]))
        assert (writer.tally.scored, writer.tally.failed) == (1, 1)
    (row,) = pq.read_table(tmp_path / "out/errors").to_pylist()
    assert (row["line"], row["id"], row["param"]) == (1, None, "id")


def test_a_block_without_errors_has_no_file_of_them(tmp_path: Path) -> None:
    """And not that of an earlier attempt; without any the folder goes."""
    with opened(tmp_path / "out") as folder:
        files = BlockFiles(folder.path, 0)
        files.errors.touch()
        with BlockWriter(files, "in", "none", {}) as writer:
            writer.result(line(1, results=[]))
    assert not (tmp_path / "out/errors").exists()
    assert "id" not in pq.read_schema(files.scores).names


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"options": {"top_n": 1}}, "options differ"),
        ({"model": "n"}, "model differ"),
        ({"input": ["b"]}, "input differ"),
    ],
)
def test_another_run_is_refused_by_name(tmp_path: Path, other: dict[str, Any], words: str) -> None:
    """What is there stays, unless it is to be overwritten."""
    with opened(tmp_path) as folder:
        write(folder, 0)
    with pytest.raises(OutputError, match=words):
        OutputFolder(tmp_path, {**MANIFEST, **other}, overwrite=False)
    with opened(tmp_path) as folder:
        assert list(folder.done()) == [0]
    with opened(tmp_path, {**MANIFEST, **other}, overwrite=True) as folder:
        assert folder.done() == {}
    assert not list(tmp_path.glob("*/part*"))


def test_one_run_at_a_time(tmp_path: Path) -> None:
    """Another one is told."""
    with opened(tmp_path), pytest.raises(OutputError, match="another process writes to"):
        OutputFolder(tmp_path, MANIFEST, overwrite=False)


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    """It is not taken for done, nor for nothing."""
    with opened(tmp_path) as folder:
        write(folder, 0)
        BlockFiles(tmp_path, 0).scores.write_bytes(b"PAR1")
        with pytest.raises(OutputError, match=r"part-000000\.parquet cannot be read"):
            folder.done()


def test_parts_of_nobody_are_kept(tmp_path: Path) -> None:
    """A folder that holds parts and does not say of what."""
    with opened(tmp_path) as folder:
        write(folder, 0)
    (tmp_path / "run.json").unlink()
    with pytest.raises(OutputError, match="of another run"):
        OutputFolder(tmp_path, MANIFEST, overwrite=False)


def test_a_block_that_ends_its_actors_is_given_up(tmp_path: Path) -> None:
    """In one run; the next one tries again, and what is done does not count."""
    with opened(tmp_path) as folder:
        files = BlockFiles(folder.path, 0)
        for _ in range(BLOCK_ATTEMPTS):
            files.begin("in")
        with pytest.raises(OutputError, match="actors have died, as when memory runs out, over in"):
            files.begin("in")
    with opened(tmp_path):
        files.begin("in")
        files.end()
        files.begin("in")
