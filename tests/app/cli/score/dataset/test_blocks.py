"""How a dataset's files are found, and cut into blocks that hold each record once."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.cli.score.dataset.blocks import CutFile, cut_file, find_files
from app.cli.score.input import Format, Source
from app.client import InvalidRequest

JSONL = b"".join(
    json.dumps({"id": n, "context": f"é{n}", "candidates": ["x"]}).encode() + b"\n" * (1 + n % 3)
    for n in range(11)
)
CSV = (
    b"id,context,candidates\r\n"
    b'a,"two\nlines","[""x""]"\r\n'
    b"\r\n"
    b'b,\xc3\xa9,"[""x""]"\r\n'
    b'c,"\xff","[""x""]"\r\n'
    b"d,short\r\n"
    b'e,"quoted ""twice""\r\n and on","[""x"", ""y""]"\n'
    b'f,last,"[""x""]"'
)


def read_all(cut: CutFile) -> list[tuple[int, object]]:
    """The records of every block, with their lines; what is wrong with one by its words."""
    records = [record for block in cut.blocks for record in block.read()]
    return [(one.line, str(one.raw)) for one in records]


@pytest.mark.parametrize("block_rows", [1, 2, 3, 5, 100])
@pytest.mark.parametrize(
    ("format", "content"),
    [
        ("jsonl", JSONL),
        ("jsonl", b"\xef\xbb\xbf" + JSONL.rstrip()),
        ("jsonl", b"\n{}\n[\n\n{}"),
        ("csv", CSV),
        ("csv", b"\xef\xbb\xbf" + CSV),
        ("csv", CSV.replace(b"\r\n", b"\r")),
        ("jsonl", b""),
        ("csv", b"context,candidates\n"),
    ],
)
def test_blocks_hold_every_record_once(
    tmp_path: Path, format: Format, content: bytes, block_rows: int
) -> None:
    """With the line that it has in the whole file, and what is wrong with it."""
    path = tmp_path / "in"
    path.write_bytes(content)
    whole = [(one.line, str(one.raw)) for one in Source(path, format).records()]
    cut = cut_file(str(path), format, block_rows)
    assert read_all(cut) == whole
    assert all(0 < block.records <= block_rows for block in cut.blocks)
    assert sum(block.records for block in cut.blocks) == len(whole)


@pytest.mark.parametrize("block_rows", [1, 3, 4, 100])
def test_blocks_of_rows(tmp_path: Path, block_rows: int) -> None:
    """They need not lie in one group of rows."""
    path = tmp_path / "in"
    columns = {"id": [*"abcdefghij"], "context": ["x"] * 10, "candidates": [["y"]] * 10}
    pq.write_table(pa.table(columns), path, row_group_size=4)
    cut = cut_file(str(path), "parquet", block_rows)
    whole = [(one.line, str(one.raw)) for one in Source(path, "parquet").records()]
    assert read_all(cut) == whole
    assert cut.ids == "text"


@pytest.mark.parametrize(
    ("lines", "ids"),
    [
        (['{"id": 3}', '{"id": "a"}'], "int"),
        (["[", '{"id": null}', '{"id": "a"}'], "text"),
        (['{"id": [1]}'], "json"),
        (["{}"], "none"),
    ],
)
def test_the_first_id_tells_their_kind(tmp_path: Path, lines: list[str], ids: str) -> None:
    """Whatever comes before it."""
    (tmp_path / "in").write_text("\n".join(lines))
    assert cut_file(str(tmp_path / "in"), "jsonl", 10).ids == ids


def test_a_changed_file_has_another_digest(tmp_path: Path) -> None:
    """So that a run is not gone on with over other records."""
    path = tmp_path / "in"
    path.write_bytes(JSONL)
    first = cut_file(str(path), "jsonl", 10)
    path.write_bytes(JSONL.replace(b"x", b"y"))
    assert cut_file(str(path), "jsonl", 10).digest != first.digest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With files of all kinds."""
    for name in ("b.jsonl", "a.csv", "deep/c.parquet", "README.md", "_run.csv", ".x/d.csv"):
        place = tmp_path / "data" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    return tmp_path / "data"


def test_files_of_a_folder(folder: Path) -> None:
    """By name, each by its ending; what is hidden or something else is not read."""
    found = [(Path(path).name, format) for path, format in find_files(str(folder), None)]
    assert found == [("a.csv", "csv"), ("b.jsonl", "jsonl"), ("c.parquet", "parquet")]


def test_files_of_a_pattern(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also below; a given format holds for whatever it names."""
    assert [Path(path).name for path, _ in find_files(f"{folder}/**/*.parquet", None)] == [
        "c.parquet"
    ]
    assert find_files(f"{folder}/*.md", "jsonl") == [(str(folder / "README.md"), "jsonl")]
    monkeypatch.chdir(folder)
    assert find_files("a.csv", None) == [(str(folder / "a.csv"), "csv")]


@pytest.mark.parametrize("given", ["nothing", "*.xyz", "README.md"])
def test_what_cannot_be_read_is_refused(folder: Path, given: str) -> None:
    """Before a cluster is asked for anything."""
    with pytest.raises(InvalidRequest):
        find_files(f"{folder}/{given}", None)
