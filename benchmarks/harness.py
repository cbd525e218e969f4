"""`make bench`: lm-evaluation-harness through the server, against the harness's own model.

Four choices behind a text of about 200 tokens, all different; the server is started anew for
every run, so that nothing of the task is in its cache.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

from benchmarks.server_process import running_server
from benchmarks.table import Table
from benchmarks.timing import median, seconds_of
from benchmarks.workloads import ALIAS
from model_runtime import fetch_model
from tests.end_to_end.harness import Answers, evaluate, own_model, quiet_and_offline, through_server

DOCUMENTS = 24
CONCURRENT = 8
CLOSE = 1e-3


def run(runs: int) -> None:
    """Print the table; sides take turns."""
    warnings.simplefilter("ignore")  # the harness warns of itself
    folder = fetch_model(ALIAS)
    with tempfile.TemporaryDirectory() as cache, quiet_and_offline(Path(cache)):
        sides = {size: own_model(folder, size) for size in (1, 8)}
        seconds: dict[str, list[float]] = {"own 1": [], "own 8": [], "server": []}
        for _ in range(runs):
            found: dict[str, Answers] = {}
            for size, model in sides.items():
                seconds[f"own {size}"].append(_timed(model, found, f"own {size}"))
            with running_server() as port:
                url = f"http://127.0.0.1:{port}"
                served = through_server(
                    url, folder, tokenizer_backend="huggingface", num_concurrent=CONCURRENT
                )
                seconds["server"].append(_timed(served, found, "server"))
            _check(found["own 1"], found["server"])
    _report({name: median(values) for name, values in seconds.items()})


def _timed(model: object, found: dict[str, Answers], name: str) -> float:
    def side() -> None:
        found[name] = evaluate(model, DOCUMENTS)[1]

    return seconds_of(side)


def _check(want: Answers, found: Answers) -> None:
    for key, (logprob, greedy) in want.items():
        if abs(found[key][0] - logprob) > CLOSE or found[key][1] != greedy:
            raise SystemExit(f"document and choice {key}: {found[key]}, not {logprob, greedy}")


def _report(seconds: dict[str, float]) -> None:
    table = Table(
        f"lm-eval, {DOCUMENTS} documents x 4 choices behind about 200 tokens",
        *("side", "median s", "server is faster by"),
    )
    for name, label in (
        ("own 1", "its own `hf` model, one at a time"),
        ("own 8", "the same, 8 in a batch"),
        ("server", f"`local-completions`, {CONCURRENT} concurrent requests"),
    ):
        table.row(label, f"{seconds[name]:.1f}", f"{seconds[name] / seconds['server']:.1f}x")
