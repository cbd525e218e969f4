"""Products that oneDNN compiles for a number of rows: few are kept, however many numbers come."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from app.environment import PRODUCTS_KEPT

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="mallinfo2 is glibc's"
)

PROGRAM = """
import ctypes, sys
from app.environment import bound_compiled_products
bound_compiled_products()
import torch
from model_runtime.kernels.linear import PackedLinear
from model_runtime.kernels.threads import ThreadLimiter

libc = ctypes.CDLL(None)
names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
fields = [(name, ctypes.c_size_t) for name in names.split()]
libc.mallinfo2.restype = type("Info", (ctypes.Structure,), {"_fields_": fields})
torch.set_num_threads(1)
layer = PackedLinear(torch.randn(128, 64), None, torch.float32, ThreadLimiter())

def taken_by(rows):
    before = libc.mallinfo2().uordblks
    for count in rows:
        layer(torch.zeros(count, 64))
    return libc.mallinfo2().uordblks - before

with torch.inference_mode():
    taken_by(range(2, 300))
    print(taken_by(range(300, 600)))
"""


def grown(**environment: str) -> int:
    """Bytes that 300 numbers of rows take after as many others."""
    inherited = {name: value for name, value in os.environ.items() if name not in PRODUCTS_KEPT}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=inherited | environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout)


def test_memory_for_compiled_products_has_a_bound() -> None:
    """Past the bound none is kept but in the place of another."""
    assert grown() < 8 << 20


def test_an_operators_own_bound_is_left_alone() -> None:
    """Whoever wants more of them kept has them kept; the first test would notice."""
    more = dict.fromkeys(PRODUCTS_KEPT, "4096")
    assert grown(**more) > 16 << 20
