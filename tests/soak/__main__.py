"""`make soak`: overload and ten thousand mixed requests against a server of its own.

Prints a table for each; the exit status is 1 where a figure is out of bounds. The third is the
second once more with a leak planted into the server, which its check of memory has to find.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.soak import mixed, mixed_checks, overload, overload_checks
from tests.soak.checks import Check, broken
from tests.tiny_models import save_tiny_model

PARTS = ("overload", "mixed", "leak")


def table(title: str, checks: Sequence[Check]) -> bool:
    """Print one; whether all of it holds."""
    lines = [f"\n{title}; {os.cpu_count()} cores\n", "| figure | measured | must be | holds |"]
    lines.append("| --- | --- | --- | --- |")
    for check in checks:
        holds = ("yes" if check.holds else "**no**") if check.bound else ""
        lines.append(f"| {check.figure} | {check.measured} | {check.bound} | {holds} |")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
    return not broken(checks)


def main() -> int:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--seconds", type=float, default=60, help="of overload")
    parser.add_argument("--factor", type=float, default=10, help="times the capacity")
    parser.add_argument("--requests", type=int, default=10_000, help="mixed ones")
    parser.add_argument("--leak-requests", type=int, default=4_000, help="with a planted leak")
    parser.add_argument("--leak", type=int, default=20_480, help="bytes that each of them leaves")
    parser.add_argument("--seed", type=int, default=0, help="of the mixed requests")
    given = parser.parse_args()
    held = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "overload" in given.parts:
            plan = overload.Plan(overload_s=given.seconds, factor=given.factor)
            figures = overload.run(overload.save_model(folder / "overload"), plan)
            checks = overload_checks.checks(figures, plan, overload_checks.Bounds())
            held.append(table(f"Overload for {given.seconds:g} s", checks))
        tiny = save_tiny_model("llama", folder / "tiny")
        if "mixed" in given.parts:
            seen = mixed.run(tiny, given.requests, seed=given.seed)
            checks = mixed_checks.checks(seen, mixed_checks.Bounds())
            held.append(table(f"{given.requests} mixed requests", checks))
        if "leak" in given.parts:
            held.append(_leak(tiny, given.leak_requests, given.leak, given.seed))
    return 0 if all(held) else 1


def _leak(folder: Path, requests: int, leak: int, seed: int) -> bool:
    """Whether the check of memory finds a leak."""
    memory = mixed.run(folder, requests, leak, seed).trend
    bounds = mixed_checks.Bounds()
    check = mixed_checks.leak_check(memory, bounds)
    return table(
        f"{requests} mixed requests, each of which leaves {leak} bytes on purpose", [check]
    )


if __name__ == "__main__":
    sys.exit(main())
