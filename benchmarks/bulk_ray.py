"""Many short records: ``chainrule score --ray`` with one actor and with two beside ``--local``.

Each run is the command itself, over the same JSONL file, with one compute thread for each model.
The records come in groups of ten that share a context of about 32 tokens, one behind the other, as
questions with several answers do; each has two candidates of two or three tokens:

    python -m benchmarks.bulk_ray                    # 100,000 records, which takes a while
    python -m benchmarks.bulk_ray --records 3000
    python -m benchmarks.bulk_ray --actors 2 --local-records 5000    # the first of them by --local

The time of starting (Ray, processes, loading the model) is that of a run over one record, and is
told apart. Memory is of all processes of a run: their proportional set sizes together, looked at
twice a second, and the largest resident set of one of them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.catalogue import PRODUCTS, names
from benchmarks.memory import MIB
from benchmarks.table import Table

GROUP = 10
"""Records that share a context."""

BLOCK_ROWS = 1000
IN_FLIGHT = 64
"""Records at once; of an actor, 32 of each of its two blocks."""

SAMPLED_S = 0.5


@dataclass(slots=True)
class Run:
    """What a run took."""

    seconds: float
    all_bytes: int
    largest_bytes: int
    table: pa.Table


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--local-records", type=int, metavar="N", help="of them, by --local")
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 2], metavar="N")
    args = parser.parse_args()
    ways = {"--local": ["--local", "--concurrency", str(IN_FLIGHT)]}
    for actors in args.actors:
        name = f"--ray --actors {actors}"
        ways[name] = [*name.split(), "--block-rows", str(BLOCK_ROWS)]
    with tempfile.TemporaryDirectory() as folder:
        _compare(Path(folder), args.records, args.local_records or args.records, ways)


def _compare(folder: Path, count: int, local_count: int, ways: dict[str, list[str]]) -> None:
    one, files = folder / "one.jsonl", {n: folder / f"{n}.jsonl" for n in (local_count, count)}
    for size, path in {1: one, **files}.items():
        with path.open("w") as file:
            file.writelines(_records(size))
    table = Table(
        f"{count} records ({local_count} by --local), {GROUP} to a context; one thread for a model",
        *("run", "starts in", "records/s", "tokens/s", "peak, all", "peak, largest", "ratio"),
    )
    first: Run | None = None
    rates: list[float] = []
    for name, flags in ways.items():
        start = _timed(one, folder / f"one {name}.parquet", flags).seconds
        records = count if first else local_count
        found = _timed(files[records], folder / f"{name}.parquet", flags)
        first = first or found
        if not _scores(found)[: 2 * local_count].equals(_scores(first)):
            raise SystemExit(f"{name}: the scores are others than those of --local")
        seconds = found.seconds - start
        if seconds < start:
            raise SystemExit(f"{name}: {records} records took no longer than starting; take more")
        rates.append(records / seconds)
        table.row(
            f"`{name}`",
            f"{start:.1f} s",
            f"{rates[-1]:.1f}",
            f"{_tokens(found.table) / seconds:.0f}",
            f"{found.all_bytes / MIB:.0f} MiB",
            f"{found.largest_bytes / MIB:.0f} MiB",
            f"{rates[-1] / rates[0]:.2f}",
        )
    if first is not None:
        mean = _tokens(first.table) / local_count
        print(f"\nall scores are equal to the bit; a record has {mean:.1f} tokens")


def _records(count: int) -> Iterator[str]:
    source = random.Random(7)
    words = names(400)
    context = ""
    for number in range(count):
        if number % GROUP == 0:
            shown = " and".join(source.sample(words, 2))
            context = f"{number // GROUP}: a customer has looked at{shown}, and bought a"
        candidates = [f" {word}" for word in source.sample(PRODUCTS, 2)]
        yield json.dumps({"id": number, "context": context, "candidates": candidates}) + "\n"


def _timed(given: Path, out: Path, flags: list[str]) -> Run:
    command = [sys.executable, "-m", "app", "score", str(given), "-o", str(out), *flags]
    variables = {"CHAINRULE_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    start = time.monotonic()
    process = subprocess.Popen(
        command, env=os.environ | variables, stderr=subprocess.PIPE, text=True
    )
    peaks = [0, 0]
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, peaks, ended))
    watcher.start()
    _, said = process.communicate()
    seconds = time.monotonic() - start
    ended.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {said}")
    table = pq.read_table(out / "scores" if out.is_dir() else out)
    return Run(seconds, peaks[0], peaks[1], table.sort_by("line"))


def _watch(root: int, peaks: list[int], ended: threading.Event) -> None:
    while not ended.wait(SAMPLED_S):
        sizes = [size for pid in _family(root) if (size := _sizes(pid)) is not None]
        peaks[0] = max(peaks[0], sum(pss for pss, _ in sizes))
        peaks[1] = max(peaks[1], *(rss for _, rss in sizes), 0)


def _family(root: int) -> list[int]:
    """A process and all that it has started."""
    parents: dict[int, int] = {}
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                stat = (place / "stat").read_text()
            except OSError:
                continue
            parents[int(place.name)] = int(stat.rpartition(")")[2].split()[1])
    return [pid for pid in parents if _descends(pid, root, parents)]


def _descends(pid: int, root: int, parents: dict[int, int]) -> bool:
    while pid not in (root, 0):
        pid = parents.get(pid, 0)
    return pid == root


def _sizes(pid: int) -> tuple[int, int] | None:
    """Proportional and resident set size; None of a process that is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    found = {line.split(":")[0]: line.split()[1] for line in text.splitlines()[1:]}
    return int(found["Pss"]) * 1024, int(found["Rss"]) * 1024


def _tokens(table: pa.Table) -> int:
    """Of every path once: the context of a record, and the scored tokens of its candidates."""
    context = pc.struct_field(table.column("boundary"), "context_tokens")
    results = pc.list_flatten(table.column("results"))
    scored = pc.struct_field(results, "token_count")
    return int(pc.sum(context).as_py()) + int(pc.sum(scored).as_py())


def _scores(run: Run) -> pa.ChunkedArray:
    return pc.struct_field(pc.list_flatten(run.table.column("results")), "score").combine_chunks()


if __name__ == "__main__":
    main()
