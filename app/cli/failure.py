"""How every command fails: one line on standard error, and an exit status."""

from __future__ import annotations

import sys


def fail(error: Exception, status: int) -> int:
    """Say what went wrong; the exit status."""
    sys.stderr.write(f"chainrule: error: {' '.join(str(error).split())}\n")
    return status
