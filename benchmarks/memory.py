"""Resident memory of a process, as Linux counts it."""

from __future__ import annotations

from pathlib import Path

_PROC = Path("/proc")

MIB = 1 << 20


def resident(process: int | str = "self") -> int:
    """Bytes resident now."""
    return _status(process, "VmRSS")


def peak_resident(process: int | str = "self") -> int:
    """The most bytes that were resident since the start, or since ``forget_peak``."""
    return _status(process, "VmHWM")


def forget_peak(process: int | str = "self") -> None:
    """Let the peak begin again at what is resident now."""
    (_PROC / str(process) / "clear_refs").write_text("5")


def _status(process: int | str, field: str) -> int:
    status = _PROC / str(process) / "status"
    for line in status.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"{status} has no {field}: memory cannot be measured here")
