"""The limit that a process is killed at, read off made-up file trees."""

from __future__ import annotations

from mmap import PAGESIZE
from pathlib import Path

import pytest

from model_runtime.memory.available import AvailableMemory

MIB = 1 << 20
MEMINFO = "MemTotal:       1024 kB\nMemFree:  1 kB\nMemAvailable:    512 kB\nHugePages_Total: 0\n"


def tree(root: Path, files: dict[str, object]) -> AvailableMemory:
    """Memory over a root that holds these files."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return AvailableMemory(root)


def version_2(folder: str, limit: object, used: int, cached: int = 0) -> dict[str, object]:
    """The files of a group."""
    base = f"sys/fs/cgroup/{folder}"
    stat = (
        f"anon {used - cached}\ninactive_file {cached - 1}\nactive_file 1" if cached else "anon 0"
    )
    return {
        f"{base}/memory.max": limit,
        f"{base}/memory.current": used,
        f"{base}/memory.stat": stat,
    }


def version_1(folder: str, limit: int, used: int, cached: int = 0) -> dict[str, object]:
    """The files of a group in the older layout."""
    base = f"sys/fs/cgroup/memory/{folder}"
    return {
        f"{base}/memory.limit_in_bytes": limit,
        f"{base}/memory.usage_in_bytes": used,
        f"{base}/memory.stat": f"inactive_file 7\ntotal_inactive_file {cached}",
    }


def test_without_a_group_the_machine_is_the_limit(tmp_path: Path) -> None:
    """Total and available memory of the machine, in bytes."""
    memory = tree(tmp_path, {"proc/meminfo": MEMINFO})
    assert (memory.total, memory.free()) == (MIB, MIB // 2)


def test_where_nothing_is_known_nothing_is_said(tmp_path: Path) -> None:
    """No such files, as off Linux: no limit, no number that looks like one."""
    memory = AvailableMemory(tmp_path)
    assert (memory.total, memory.free(), memory.resident()) == (None, None, 0)


def test_the_narrowest_group_up_to_the_root_counts(tmp_path: Path) -> None:
    """A group without a limit of its own is bound by those above it."""
    files = {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/slice/pod/unit"}
    files |= version_2("slice/pod/unit", "max", 100) | version_2("slice/pod", 5000, 1000)
    files |= version_2("slice", 9000, 8500)
    memory = tree(tmp_path, files)
    assert (memory.total, memory.free()) == (5000, 500)


def test_a_container_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    """The path may be one that only the host knows; the mount itself is looked at anyway."""
    for path in ("/", "/docker/0123"):
        files = {"proc/self/cgroup": f"0::{path}"} | version_2("", 5000, 1000)
        memory = tree(tmp_path, files)
        assert (memory.total, memory.free()) == (5000, 4000)


def test_cached_files_count_as_free(tmp_path: Path) -> None:
    """The kernel drops them before it kills anybody."""
    files = {"proc/self/cgroup": "0::/a"} | version_2("a", 5000, 4000, cached=1500)
    assert tree(tmp_path, files).free() == 2500


def test_the_older_layout_is_read_too(tmp_path: Path) -> None:
    """Version 1 has other names, one line a controller, and a huge number for no limit."""
    lines = "9:name=systemd:/\n4:cpu,memory:/docker/1\n3:cpuset:/x\n0::/"
    files = {"proc/self/cgroup": lines, "proc/meminfo": MEMINFO}
    files |= version_1("docker/1", 5000, 4000, cached=500)
    files |= version_1("", 9223372036854771712, 10_000)
    memory = tree(tmp_path, files)
    assert (memory.total, memory.free()) == (5000, 1500)


def test_nothing_is_free_beyond_the_limit(tmp_path: Path) -> None:
    """A lowered limit is no negative number."""
    files = {"proc/self/cgroup": "0::/a"} | version_2("a", 1000, 4000)
    assert tree(tmp_path, files).free() == 0


@pytest.mark.parametrize(("statm", "pages"), [("500 20 3 1 0 9 0", 20), ("", 0)])
def test_what_the_process_has_is_counted_in_pages(tmp_path: Path, statm: str, pages: int) -> None:
    """The second number of its line."""
    memory = tree(tmp_path, {"proc/self/statm": statm})
    assert memory.resident() == pages * PAGESIZE


def test_this_machine_can_be_read() -> None:
    """On the machine that runs the tests the numbers hang together."""
    memory = AvailableMemory()
    free = memory.free()
    if memory.total is None or free is None:
        pytest.skip("this machine tells nothing about its memory")
    assert 0 < free <= memory.total
    assert 0 < memory.resident() <= memory.total
