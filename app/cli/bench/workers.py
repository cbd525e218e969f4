"""Several processes that send at once: one Python process would be the bottleneck."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
from multiprocessing.connection import Connection
from typing import Any, Final

from app.cli.bench.load import Load
from app.cli.bench.sender import Record, send_share

START_S: Final = 60.0
"""Seconds in which every process must be ready to send."""


class WorkerDied(Exception):
    """A sending process has ended without its record."""


def run_load(load: Load) -> Record:
    """Make the load; everything that was sent, in the order of completion.

    Raises:
        SenderDied: a process has ended early.
    """
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(load.processes)
    readers, workers = [], []
    for process in range(load.processes):
        reader, writer = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(load, process, start, writer), daemon=True)
        worker.start()
        writer.close()
        readers.append(reader)
        workers.append(worker)
    try:
        return _merged([_received(reader) for reader in readers])
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
        for reader in readers:
            reader.close()


def _received(reader: Connection[Any, Any]) -> Record:
    try:
        record: Record = reader.recv()
    except EOFError:
        raise WorkerDied("a process of the load generator has ended early") from None
    return record


def _merged(records: list[Record]) -> Record:
    whole = Record()
    for record in records:
        whole.sent += record.sent
        whole.error_samples = record.error_samples | whole.error_samples
        whole.fingerprints |= record.fingerprints
    whole.sent.sort(key=lambda one: one.done_s)
    return whole


def _work(load: Load, process: int, start: Any, writer: Connection[Any, Any]) -> None:
    # Ctrl+C reaches all processes of a terminal; the one that started these ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    start.wait(START_S)
    writer.send(asyncio.run(send_share(load, process)))
    writer.close()
