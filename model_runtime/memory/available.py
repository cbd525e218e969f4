"""How much memory this process may take: its control groups' limits, else the machine's.

A process beyond its control group's limit is killed without a word, so both are read before
memory is taken. Every group up to the root may have a limit, in one of two file layouts::

    version 2   /sys/fs/cgroup/<path>/memory.max               memory.current         memory.stat
    version 1   /sys/fs/cgroup/memory/<path>/memory.limit_in_bytes  memory.usage_in_bytes  ...
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from mmap import PAGESIZE
from pathlib import Path, PurePosixPath
from typing import NamedTuple


class _Layout(NamedTuple):
    """The names of one version's files; ``cached`` are keys of its ``memory.stat``."""

    mount: str
    limit: str
    usage: str
    cached: tuple[str, str]


_VERSION_2 = _Layout(
    "sys/fs/cgroup", "memory.max", "memory.current", ("inactive_file", "active_file")
)
_VERSION_1 = _Layout(
    "sys/fs/cgroup/memory",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
)


_NO_LIMIT = 1 << 60
"""Version 1 says so by a number that no machine reaches."""


@dataclass(frozen=True, slots=True)
class _Group:
    """A control group that has a limit."""

    folder: Path
    layout: _Layout

    @property
    def limit(self) -> int | None:
        number = _number(self.folder / self.layout.limit)
        return None if number is None or number >= _NO_LIMIT else number

    def free(self) -> int | None:
        """Bytes up to the limit. Cached files count as free: they are dropped before a kill."""
        limit, used = self.limit, _number(self.folder / self.layout.usage)
        if limit is None or used is None:
            return None
        stat = _table(self.folder / "memory.stat")
        return max(0, limit - used + sum(stat.get(key, 0) for key in self.layout.cached))


class AvailableMemory:
    """The memory that this process can take from.

    Args:
        root: the file system's; another one in tests.

    Attributes:
        total: bytes of the narrowest limit; None where nothing is known, as off Linux.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._machine = root / "proc/meminfo"
        self._process = root / "proc/self/statm"
        self._groups = list(_groups(root))
        physical = _table(self._machine).get("MemTotal")
        limits = [group.limit for group in self._groups]
        self.total = min(
            (bytes_ for bytes_ in (physical, *limits) if bytes_ is not None), default=None
        )

    def free(self) -> int | None:
        """Bytes that can be taken now, of the narrowest of machine and groups."""
        available = _table(self._machine).get("MemAvailable")
        every = (available, *(group.free() for group in self._groups))
        return min((bytes_ for bytes_ in every if bytes_ is not None), default=None)

    def resident(self) -> int:
        """Bytes that this process has in memory; 0 where that is not known."""
        try:
            return int(self._process.read_text().split()[1]) * PAGESIZE
        except (OSError, ValueError, IndexError):
            return 0


def _groups(root: Path) -> Iterator[_Group]:
    """The limited groups that this process is in, of either version, from its own one up."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        layout = _VERSION_1 if controllers else _VERSION_2
        for folder in _upwards(root / layout.mount, path):
            group = _Group(folder, layout)
            if group.limit is not None:
                yield group


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """The folder of a group and of all above it. In a container the mount may begin lower."""
    inside = PurePosixPath(path.lstrip("/"))
    for part in (inside, *inside.parents):
        yield mount / part


def _number(file: Path) -> int | None:
    """The file's number; None for no such file, and for ``max``, which is no limit."""
    text = "".join(_lines(file))
    return int(text) if text.isdigit() else None


def _table(file: Path) -> dict[str, int]:
    """Lines of a name and a number; kilobytes in bytes."""
    table = {}
    for line in _lines(file):
        words = line.replace(":", " ").split()
        if len(words) > 1 and words[1].isdigit():
            table[words[0]] = int(words[1]) * (1024 if words[2:] == ["kB"] else 1)
    return table


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
