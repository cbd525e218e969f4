"""`make bench-peers`: other systems against chainrule, in one run on this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.in_process import InProcess
from benchmarks.peers.catalogue import PEERS, VENVS, Peer
from benchmarks.peers.compare import COLUMNS, compare
from benchmarks.peers.gguf_file import write_gguf
from benchmarks.peers.process import NotOffered, PeerFailed, PeerProcess
from benchmarks.peers.tasks import Task, tasks
from benchmarks.table import Table
from benchmarks.workloads import ALIAS
from model_runtime import ChainruleError, UnsupportedModel, fetch_model

THREADS = 2
"""Of each side, whatever the machine has."""


def main() -> int:
    """Print a table for each peer and precision; 1 where any row is not a measurement."""
    arguments = _parse()
    folder = fetch_model(ALIAS)
    chosen = [t for t in tasks(arguments.tiny) if t.name in (arguments.workloads or [t.name])]
    complete = True
    for peer in (PEERS[name] for name in arguments.names):
        for variant in peer.variants:
            if variant in (arguments.variants or [variant]):
                complete &= measure(peer, variant, folder, chosen, arguments)
    return 0 if complete else 1


def measure(
    peer: Peer, variant: str, folder: Path, chosen: list[Task], arguments: argparse.Namespace
) -> bool:
    """One table. A peer that cannot be started is a table of one row that says why."""
    try:
        if reason := peer.missing():
            raise PeerFailed(reason)
        if peer.name == "llama.cpp":
            _make_gguf(folder, variant)
        command = peer.command(folder, variant)
        log = VENVS / f"{peer.name}-{variant}.log"
        with (
            InProcess(dtype=_our_dtype(variant), threads=THREADS) as engine,
            PeerProcess(command, peer.environment, log, arguments.timeout) as process,
        ):
            return _measure_tasks(peer, variant, process, engine, chosen, arguments.runs)
    except (PeerFailed, ChainruleError) as error:
        table = Table(f"{peer.name}, {variant}", *COLUMNS)
        table.row("all", "-", "-", "-", "-", f"**{_in_a_cell(error)}**")
        # Where the processor has no bfloat16, chainrule refuses it and there is nothing to measure.
        return isinstance(error, UnsupportedModel) and _our_dtype(variant) == "bfloat16"


def _measure_tasks(
    peer: Peer,
    variant: str,
    process: PeerProcess,
    engine: InProcess,
    chosen: list[Task],
    runs: int,
) -> bool:
    table = Table(
        f"{peer.name} {process.version} {variant} against chainrule {_our_dtype(variant)}: "
        f"medians of {runs} alternating runs",
        *COLUMNS,
    )
    complete = True
    for task in chosen:
        try:
            cells, measured = compare(task, process, engine, runs, variant == "float32")
        except NotOffered as lack:
            cells, measured = [task.name, "-", "-", "-", "-", str(lack)], True
        except PeerFailed as error:
            cells, measured = [task.name, "-", "-", "-", "-", f"**{_in_a_cell(error)}**"], False
        table.row(*cells)
        complete &= measured
    return complete


def _our_dtype(variant: str) -> str:
    """Eight-bit weights are for information: they are compared with float32."""
    return "bfloat16" if variant == "bfloat16" else "float32"


def _make_gguf(folder: Path, variant: str) -> None:
    path = VENVS / f"{folder.name}-{variant}.gguf"
    if not path.is_file():
        write_gguf(folder, path, variant)


def _in_a_cell(error: Exception) -> str:
    return str(error).replace("|", "\\|").replace("\n", " ")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("names", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--runs", type=int, default=3, help="alternating runs of each side")
    parser.add_argument("--workloads", nargs="+", choices=[t.name for t in tasks()])
    parser.add_argument("--variants", nargs="+", choices=["float32", "bfloat16", "int8"])
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one answer")
    parser.add_argument("--tiny", action="store_true", help="only to see that everything runs")
    arguments = parser.parse_args()
    if arguments.runs < 1:
        parser.error("--runs must be at least 1")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
