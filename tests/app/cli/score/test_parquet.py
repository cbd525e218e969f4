"""``chainrule score`` over Parquet: the rows that it reads and writes are those of JSONL."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.cli.score.arrow_types import arrow_type
from app.cli.score.input import Source
from app.cli.score.parquet_file import ParquetRows
from app.cli.score.record import Place
from app.schemas.score_response import ScoreResponse
from tests.app.calls import log
from tests.app.cli.scoring import RECORDS, answer_from, read_jsonl, run, write_jsonl
from tests.app.fake_engine import FakeEngine

ROWS: list[dict[str, Any]] = [
    {"id": 7, "context": "it is", "candidates": [" yes", " no", "n't"]},
    {"id": 8, "context": "it is", "candidates": [" yes.\n"], "normalization": "mean"},
    {"id": 9, "context": "it is", "candidates": [""]},
    {"id": 10, "context": "a", "candidates": ["b", "c", "bc"], "top_n": 1},
]
OF_THE_RUN = ("model", "fingerprint", "numeric_error")


class CountingEngine(FakeEngine):
    """Counts what it is asked, and becomes another model after some of it."""

    asked = 0
    lasts = 1000

    async def score(self, *args: Any) -> Any:
        """Answer."""
        self.asked += 1
        if self.asked > self.lasts:
            rename(self, "other")
        return await super().score(*args)


def rename(engine: FakeEngine, fingerprint: str) -> None:
    """Take it for a model of this fingerprint."""
    object.__setattr__(engine.info, "fingerprint", fingerprint)


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> CountingEngine:
    """Whoever is asked, it answers."""
    engine = CountingEngine()
    answer_from(monkeypatch, engine)
    return engine


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where the scores go."""
    return tmp_path / "out.parquet"


def write_parquet(path: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    """A file of rows, with null where one lacks what another has."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    pq.write_table(pa.table(columns), path, **options)
    return path


def without_nulls(value: Any) -> Any:
    """What a JSON object has of a row."""
    if isinstance(value, dict):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value


def metadata(path: Path) -> dict[str, Any]:
    """What a file says of its run."""
    found: dict[str, Any] = json.loads(pq.read_schema(path).metadata[b"chainrule"])
    return found


@pytest.mark.parametrize(
    "flags", [(), ("--token-logprobs",), ("--compact",), ("--receipt",), ("--top-n", "1")]
)
def test_a_row_has_what_a_line_has(tmp_path: Path, out: Path, flags: tuple[str, ...]) -> None:
    """Every field and, in float64, every bit; what all share is in the metadata."""
    given = write_jsonl(tmp_path / "in", RECORDS)
    run(given, "-o", tmp_path / "lines", *flags, status=3)
    run(given, "-o", out, *flags, status=3)
    lines = read_jsonl(tmp_path / "lines")
    shared = {name: lines[0][name] for name in OF_THE_RUN if name in lines[0]}
    found = [without_nulls(row) for row in pq.read_table(out).to_pylist()]
    kept = [{k: v for k, v in line.items() if k not in OF_THE_RUN} for line in lines]
    assert [{k: v for k, v in row.items() if k != "id"} for row in found] == [
        {k: v for k, v in line.items() if k != "id"} for line in kept
    ]
    assert {name: metadata(out)[name] for name in shared} == shared
    errors = [(tmp_path / name).read_bytes() for name in ("lines.errors.jsonl",)]
    assert errors == [(tmp_path / "out.parquet.errors.jsonl").read_bytes()]
    assert sorted(path.name for path in tmp_path.glob("out*")) == [
        "out.parquet",
        "out.parquet.errors.jsonl",
    ]


def test_numbers_have_their_types(tmp_path: Path, out: Path) -> None:
    """Whole numbers are int64, scores are float64 with the bits of the computed ones."""
    rows = [{"id": 1, "context": "it is", "candidates": [" yes"]}]
    run(write_parquet(tmp_path / "in.parquet", rows), "-o", out)
    table = pq.read_table(out)
    assert table.schema.field("line").type == pa.int64()
    assert table.schema.field("id").type == pa.int64()
    score = table.schema.field("results").type.value_type
    assert (score.field("score").type, score.field("rank").type) == (pa.float64(), pa.int64())
    found = table.column("results")[0].as_py()[0]["score"]
    assert struct.pack("d", found) == struct.pack("d", log(0.5))


def test_every_field_of_an_answer_has_a_type() -> None:
    """Also those that no test asks for."""
    assert arrow_type(ScoreResponse).num_fields == len(ScoreResponse.model_fields)
    with pytest.raises(TypeError):
        arrow_type(dict[str, int])


@pytest.mark.parametrize(
    ("ids", "kind", "written"),
    [
        ([1, 2], pa.int64(), [1, 2]),
        (["a", "b"], pa.string(), ["a", "b"]),
        (["a", 1], pa.string(), ['"a"', "1"]),
        ([True, [1]], pa.string(), ["true", "[1]"]),
        ([1 << 70, 1], pa.string(), [str(1 << 70), "1"]),
        ([None, 2], pa.int64(), [None, 2]),
    ],
    ids=["numbers", "texts", "mixed", "odd", "large", "null"],
)
def test_ids(tmp_path: Path, out: Path, ids: list[Any], kind: pa.DataType, written: Any) -> None:
    """Of one kind they keep it; else they are written as JSON."""
    good = {"context": "it is", "candidates": [" yes"]}
    run(write_jsonl(tmp_path / "in", [{**good, "id": one} for one in ids]), "-o", out)
    table = pq.read_table(out)
    assert table.schema.field("id").type == kind
    assert table.column("id").to_pylist() == written


def test_rows_are_read_as_lines_are(tmp_path: Path) -> None:
    """The same records in either format give the same lines; null is what a record lacks."""
    run(write_jsonl(tmp_path / "in.jsonl", ROWS), "-o", tmp_path / "one", status=3)
    given = write_parquet(tmp_path / "in.parquet", ROWS, row_group_size=2)
    run(given, "-o", tmp_path / "other", status=3)
    for name in ("{}", "{}.errors.jsonl"):
        one, other = (tmp_path / name.format(which) for which in ("one", "other"))
        assert one.read_bytes() == other.read_bytes()


def test_ids_and_messages_are_contexts_too(tmp_path: Path) -> None:
    """Lists of numbers, and lists of structs."""
    rows = [{"context": [97, 98], "candidates": [[99]]}]
    run(write_parquet(tmp_path / "in.parquet", rows), "-o", tmp_path / "out")
    chat = [{"context": [{"role": "user", "content": "a"}], "candidates": ["b"]}]
    given = write_parquet(tmp_path / "chat", chat)
    source = Source(given, "parquet")
    assert [record.fields() for record in source.records()] == chat


@pytest.mark.parametrize("start", range(8))
def test_rows_from_a_place_on(tmp_path: Path, start: int) -> None:
    """Whatever groups of rows there are."""
    rows = [{"context": str(n), "candidates": ["x"]} for n in range(7)]
    source = Source(write_parquet(tmp_path / "in", rows, row_group_size=3), "parquet")
    found = list(source.records(Place(start, start + 1)))
    assert [record.line for record in found] == list(range(start + 1, 8))
    assert [record.fields()["context"] for record in found] == [str(n) for n in range(start, 7)]


def test_a_large_group_of_rows_is_never_whole_in_memory(tmp_path: Path) -> None:
    """Nor is a large output: it has a group for so many rows, or so many bytes."""
    count = 50_000
    texts = [f"{n} {n * n} " * 20 for n in range(count)]
    columns = {"context": texts, "candidates": [["x"]] * count}
    path = tmp_path / "in"
    pq.write_table(pa.table(columns), path, row_group_size=count, use_dictionary=False)
    size = sum(map(len, texts))
    before, most, read = pa.total_allocated_bytes(), 0, 0
    for _ in Source(path, "parquet").records():
        read += 1
        if read % 500 == 0:
            most = max(most, pa.total_allocated_bytes() - before)
    assert read == count
    assert most < size / 2


@pytest.mark.parametrize("limit", ["ROWS_IN_GROUP", "GROUP_BYTES"])
def test_rows_are_written_in_groups(
    tmp_path: Path, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as the limit allows; a file that fails leaves nothing."""
    monkeypatch.setattr(f"app.cli.score.parquet_file.{limit}", 3)
    schema = pa.schema([("n", pa.int64())])
    with ParquetRows(tmp_path / "out", schema) as rows:
        for n in range(7):
            rows.add({"n": n}, 1)
    assert pq.read_metadata(tmp_path / "out").num_row_groups == 3
    assert pq.read_table(tmp_path / "out").column("n").to_pylist() == list(range(7))
    with pytest.raises(KeyError), ParquetRows(tmp_path / "other", schema):
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_row_that_is_no_text_is_its_own_error(tmp_path: Path) -> None:
    """The others are scored."""
    buffer = pa.array([b"it is", b"\xff", b"it is"], pa.binary()).cast(pa.string(), safe=False)
    lists = pa.array([[" yes"]] * 3)
    pq.write_table(pa.table({"context": buffer, "candidates": lists}), tmp_path / "in.parquet")
    run(tmp_path / "in.parquet", "-o", tmp_path / "out", status=3)
    assert [line["line"] for line in read_jsonl(tmp_path / "out")] == [1, 3]
    (error,) = read_jsonl(tmp_path / "out.errors.jsonl")
    assert (error["line"], error["error"]["message"]) == (2, "it is not UTF-8")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"context": ["a"]}, "has no column candidates"),
        ({"context": ["a"], "candidates": [["b"]], "label": [1]}, "a column 'label'"),
        ({"id": [1.5], "context": ["a"], "candidates": [["b"]]}, "column id is double"),
    ],
)
def test_columns_that_cannot_be_used(
    tmp_path: Path, columns: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is a wrong command line: nothing is written."""
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    run(tmp_path / "in.parquet", "-o", tmp_path / "out", status=2)
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, before anything is asked."""
    (tmp_path / "in.parquet").write_bytes(b"PAR1 and more")
    run(tmp_path / "in.parquet", status=1)
    assert "cannot be read as Parquet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("-", "--format", "parquet"), "not from standard input"),
        (("in.jsonl", "--output-format", "parquet"), "goes with --output"),
        (("out.parquet.draft.jsonl", "-o", "out.parquet"), "the input itself"),
        (
            ("in.jsonl", "-o", "out.parquet", "--errors", "out.parquet.draft.jsonl"),
            "which the output is made of",
        ),
    ],
)
def test_a_wrong_command_line(
    argv: tuple[str, ...],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line and status 2."""
    monkeypatch.chdir(tmp_path)
    for name in ("in.jsonl", "out.parquet.draft.jsonl"):
        write_jsonl(tmp_path / name, ROWS[:1])
    run(*argv, status=2)
    assert words in capsys.readouterr().err


def test_a_missing_package_is_named(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that says what to install."""
    monkeypatch.setattr("app.cli.extras.find_spec", lambda _name: None)
    run(write_jsonl(tmp_path / "in", ROWS), "-o", out, status=2)
    assert capsys.readouterr().err == (
        "chainrule: error: Parquet needs pyarrow: pip install 'chainrule[parquet]'\n"
    )


def test_an_interrupted_run_goes_on(tmp_path: Path, out: Path, engine: CountingEngine) -> None:
    """Nothing is asked twice, and the file is that of a run that was never ended."""
    rows = [{"id": n, "context": "it is", "candidates": [" yes"]} for n in range(9)]
    given = write_parquet(tmp_path / "in.parquet", rows)
    run(given, "-o", tmp_path / "whole.parquet", "--concurrency", "1")
    engine.asked, engine.lasts = 0, 5
    before = engine.info.fingerprint
    run(given, "-o", out, "--concurrency", "1", status=1)
    assert not out.exists()
    written = (tmp_path / "out.parquet.draft.jsonl").read_bytes().count(b"\n")
    engine.asked, engine.lasts = 0, 1000
    rename(engine, before)
    run(given, "-o", out, "--concurrency", "1")
    assert 0 < written == 9 - engine.asked
    found, whole = (pq.read_table(path) for path in (out, tmp_path / "whole.parquet"))
    assert found.equals(whole, check_metadata=False)
    assert len(list(tmp_path.glob("out*"))) == 1


def test_a_finished_run_is_left_alone(
    tmp_path: Path, out: Path, engine: CountingEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is asked, whatever else lies there; another run is refused by name."""
    given = write_jsonl(tmp_path / "in", RECORDS)
    run(given, "-o", out, status=3)
    asked, before = engine.asked, out.read_bytes()
    first = capsys.readouterr().err
    run(given, "-o", out, status=3)
    assert capsys.readouterr().err == first
    assert (engine.asked, out.read_bytes()) == (asked, before)
    run(given, "-o", out, "--normalization", "mean", status=1)
    assert "of another run: options differ; --overwrite begins anew" in capsys.readouterr().err
    rename(engine, "other")
    run(given, "-o", out, status=1)
    assert "of another run: model differ" in capsys.readouterr().err
    run(given, "-o", out, "--overwrite", status=3)
    assert metadata(out)["fingerprint"] == "other"


def test_what_is_not_ours_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A Parquet file of somebody else's."""
    other = write_parquet(tmp_path / "other.parquet", ROWS)
    before = other.read_bytes()
    run(write_jsonl(tmp_path / "in", ROWS), "-o", other, status=1)
    assert "of a run that cannot be recognized" in capsys.readouterr().err
    assert other.read_bytes() == before


def test_a_file_without_records(tmp_path: Path, out: Path) -> None:
    """It has the columns, and no row."""
    (tmp_path / "in").write_text("\n")
    run(tmp_path / "in", "-o", out)
    assert pq.read_table(out).num_rows == 0
