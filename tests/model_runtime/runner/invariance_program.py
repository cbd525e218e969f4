"""A program: whether bits depend on crowd with the instruction sets of this process.

Its arguments are folders, each with the precision of its products and a number of threads; a line
of JSON answers each.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import torch

from model_runtime.runner.model_runner import DTYPES
from tests.batch_invariance import changed_by_crowd, crowded
from tests.offline import Offline


def main(*arguments: str) -> None:
    for folder, dtype, threads in zip(*(arguments[i::3] for i in range(3)), strict=True):
        torch.set_num_threads(int(threads))
        rng = random.Random(folder)
        changed = changed_by_crowd(Path(folder), crowded(rng, 340, 9), rng, DTYPES[dtype])
        layout = Offline(Path(folder), dtype=DTYPES[dtype]).runner.rows
        answer = {
            "capability": torch.backends.cpu.get_cpu_capability(),
            "batch_invariant": layout.batch_invariant,
            "layout": str(layout),
            "changed": changed[:3],
        }
        sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
