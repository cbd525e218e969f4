"""`make bench`: every comparison that needs nothing but this repository."""

from __future__ import annotations

import argparse

from benchmarks import (
    beam,
    coalescing,
    decisions,
    decode_mix,
    exact_table,
    greedy,
    groups,
    harness,
    invariance,
    large_request,
    long_context,
    next_token,
    offline,
    open_loop,
    page,
    repeated,
    scrape,
    top_n,
    traces,
    wire_shapes,
)

BENCHMARKS = {
    "offline": offline.run,
    "repeated": repeated.run,
    "invariance": invariance.run,
    "next_token": next_token.run,
    "greedy": greedy.run,
    "beam": beam.run,
    "exact": exact_table.run,
    "top_n": top_n.run,
    "large_request": large_request.run,
    "groups": groups.run,
    "long_context": long_context.run,
    "coalescing": coalescing.run,
    "decode_mix": decode_mix.run,
    "open_loop": open_loop.run,
    "wire_shapes": wire_shapes.run,
    "scrape": scrape.run,
    "page": page.run,
    "decisions": decisions.run,
    "traces": traces.run,
    "harness": harness.run,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", default=list(BENCHMARKS), choices=list(BENCHMARKS))
    parser.add_argument("--runs", type=int, default=3, help="alternating runs of each side")
    arguments = parser.parse_args()
    if arguments.runs < 1:
        parser.error("--runs must be at least 1")
    for name in arguments.names:
        BENCHMARKS[name](arguments.runs)
