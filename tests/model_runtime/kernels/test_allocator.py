"""glibc keeps what a forward frees: in a process of its own, since it cannot be taken back."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource, threading
from model_runtime.kernels.allocator import tune_malloc

SIZE = 100 << 20
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

def allocate():
    block = libc.malloc(SIZE)
    libc.memset(block, 1, SIZE)
    libc.free(block)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    allocate()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def work():
    allocate()
    print(faults())

if {keep} and not tune_malloc():
    raise SystemExit("mallopt refused")
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def page_faults(*, keep: bool) -> int:
    """Pages that a thread has faulted in for a block it had allocated and freed before."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("{keep}", str(keep))],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_a_block_that_was_freed_is_not_faulted_in_again() -> None:
    """100 MB are 25,600 pages by default, each time; kept, none, on any thread."""
    assert page_faults(keep=False) > 20_000
    assert page_faults(keep=True) < 200
