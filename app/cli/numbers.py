"""Numbers on the command line."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any


def at_least(least: float, *, whole: bool = False, itself: bool = True) -> Callable[[str], Any]:
    """A reader of numbers from ``least`` on, which is one of them where ``itself``."""

    def read(text: str) -> float:
        try:
            value = int(text) if whole else float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
        if not math.isfinite(value) or value < least or (value == least and not itself):
            kind = "at least" if itself else "above"
            raise argparse.ArgumentTypeError(f"it is {kind} {least:g}")
        return value

    return read
