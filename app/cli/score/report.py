"""What is said at the end of a run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from app.cli.score.output import Counts

EXIT_SOME_FAILED: Final = 3
"""Exit status where every record was read and some could not be scored."""


def tell(counts: Counts, unit: str, errors: Path | None) -> int:
    """Say what was done; the exit status.

    Args:
        counts: of the whole output.
        unit: what they count.
        errors: where those that failed are described; None where it has been said.
    """
    about = f"{counts.lines} {unit}: {counts.scored} scored"
    if counts.failed:
        where = "" if errors is None else f", see {errors}"
        about += f", {counts.failed} not{where}"
    sys.stderr.write(f"chainrule: {about}\n")
    return EXIT_SOME_FAILED if counts.failed else 0
