"""Resident memory of this process, as Linux counts it."""

from __future__ import annotations

from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")

MIB = 1 << 20


def resident() -> int:
    """Bytes resident now."""
    return _status("VmRSS")


def peak_resident() -> int:
    """The most bytes that were resident since the start, or since ``forget_peak``."""
    return _status("VmHWM")


def forget_peak() -> None:
    """Let the peak begin again at what is resident now."""
    _CLEAR_REFS.write_text("5")


def _status(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"{_STATUS} has no {field}: memory cannot be measured here")
