"""`make bench`: every comparison that needs nothing but this repository."""

from __future__ import annotations

import argparse

from benchmarks import coalescing, offline

BENCHMARKS = {"offline": offline.run, "coalescing": coalescing.run}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", default=list(BENCHMARKS), choices=list(BENCHMARKS))
    parser.add_argument("--runs", type=int, default=5, help="alternating runs of each side")
    arguments = parser.parse_args()
    for name in arguments.names:
        BENCHMARKS[name](arguments.runs)
