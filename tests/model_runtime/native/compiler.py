"""The C compiler that an install of the package would use here."""

from __future__ import annotations

import os
import shlex
import subprocess
import sysconfig
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

PROGRAM = "#include <math.h>\n#include <pthread.h>\n"


@lru_cache
def compiler() -> tuple[str, ...] | None:
    """Its command; None where there is none that makes a library with the headers of C."""
    command = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    with TemporaryDirectory() as folder:
        made = compiled(tuple(command), "-shared", "-fPIC", folder=Path(folder))
    return tuple(command) if made else None


def compiled(command: tuple[str, ...], *flags: str, folder: Path, program: str = PROGRAM) -> bool:
    """Whether a program can be compiled; what comes of it is ``folder / "out"``."""
    source = folder / "program.c"
    source.write_text(program)
    try:
        line = [*command, str(source), "-o", str(folder / "out"), *flags]
        return subprocess.run(line, capture_output=True).returncode == 0
    except OSError:
        return False
