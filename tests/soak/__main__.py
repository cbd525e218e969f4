"""`make soak`: overload and twenty thousand mixed requests against a server of its own.

Prints a table for each; the exit status is 1 where a figure is out of bounds.
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

PARTS = ("overload", "mixed")


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
    # Without ``choices``: argparse would compare them with the empty list of no parts.
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}, or all")
    parser.add_argument("--seconds", type=float, default=60, help="of overload")
    parser.add_argument("--factor", type=float, default=10, help="times the capacity")
    parser.add_argument(
        "--warm-up", type=int, default=6_000, help="mixed requests before it counts"
    )
    parser.add_argument("--requests", type=int, default=20_000, help="mixed requests that count")
    parser.add_argument("--leaking", type=int, default=2_000, help="and those with a planted leak")
    parser.add_argument("--leak", type=int, default=20_480, help="bytes that each of these leaves")
    parser.add_argument("--seed", type=int, default=0, help="of the mixed requests")
    given = parser.parse_args()
    if unknown := set(given.parts).difference(PARTS):
        parser.error(f"no part: {', '.join(sorted(unknown))}")
    parts = given.parts or PARTS
    held = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "overload" in parts:
            plan = overload.Plan(overload_s=given.seconds, factor=given.factor)
            figures = overload.run(overload.save_model(folder / "overload"), plan)
            checks = overload_checks.checks(figures, plan, overload_checks.Bounds())
            held.append(table(f"Overload for {given.seconds:g} s", checks))
        if "mixed" in parts:
            tiny = save_tiny_model("llama", folder / "tiny")
            counts = given.warm_up, given.requests, given.leaking
            plan = mixed.Plan(*counts, leak=given.leak, seed=given.seed)
            checks = mixed_checks.checks(mixed.run(tiny, plan), mixed_checks.Bounds())
            title = f"{given.requests} mixed requests after {given.warm_up}"
            held.append(table(title, checks))
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
