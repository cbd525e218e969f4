"""The team of threads, forced instruction sets, and a package that was built without a compiler."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model_runtime.native import library
from model_runtime.native.kernels import add_rows, gated, pack, product, rms_norm
from model_runtime.native.library import InstructionSet, Operation, run, use_threads
from tests.model_runtime.native.everywhere import drawn, same_bits

WEIGHTS = [pack(drawn(seed, 640, 640) / 25) for seed in range(3)]


@pytest.fixture(autouse=True)
def one_thread_afterwards() -> Iterator[None]:
    yield
    use_threads(1)


def layers(x: Tensor) -> tuple[list[Operation], Tensor]:
    """A chain of operations each of which reads what the one before it wrote."""
    operations, ones = [], torch.ones(640)
    for weight in WEIGHTS * 4:
        y, normed, acted = torch.empty_like(x), torch.empty_like(x), torch.empty_like(x)
        operations += [product(x, weight, None, y), rms_norm(y, ones, 1e-6, normed)]
        operations += [gated(normed, y, "silu", acted)]
        x = acted
    return operations, x


def computed(x: Tensor) -> Tensor:
    operations, y = layers(x)
    run(operations)
    return y


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    """Nor on how often: helpers come late, sleep between calls, and wake again."""
    x = drawn(1, 5, 640)
    use_threads(1)
    alone = computed(x)
    assert alone.isfinite().all()
    for threads in (2, 5, 3):
        assert use_threads(threads) == threads
        assert all(same_bits(computed(x), alone) for _ in range(20))


def test_calls_at_the_same_time_do_not_mix() -> None:
    """One has the team, the others run alone."""
    inputs = [drawn(seed, 3, 640) for seed in range(4)]
    expected = [computed(x) for x in inputs]
    use_threads(2)
    with ThreadPoolExecutor(4) as pool:
        for found in (list(pool.map(computed, inputs)) for _ in range(5)):
            assert all(map(same_bits, found, expected))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_goes_on_alone() -> None:
    """Its helpers have stayed behind; a new team can be made."""
    x = drawn(1, 3, 640)
    use_threads(2)
    expected = computed(x)
    child = os.fork()
    if child == 0:
        right = same_bits(computed(x), expected) and use_threads(2) == 2
        os._exit(0 if right and same_bits(computed(x), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_an_instruction_set_that_is_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than stopping the process."""
    monkeypatch.setattr(library, "best_instruction_set", lambda: InstructionSet.PORTABLE)
    with pytest.raises(library.NativeUnavailable, match="has PORTABLE, not AVX2"):
        run([], InstructionSet.AVX2)


def test_a_build_without_a_compiler_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no library beside the Python files then."""
    monkeypatch.setattr(library, "__file__", str(Path("elsewhere") / "library.py"))
    library.load.cache_clear()
    assert not library.available()
    with pytest.raises(library.NativeUnavailable, match="no C compiler"):
        library.load()
    monkeypatch.undo()
    assert library.available()


def test_no_operations_are_none() -> None:
    """An empty list is a call like any other."""
    y = torch.zeros(1)
    run([])
    assert not y.any()


@pytest.mark.usefixtures("two_threads")
def test_denormals_are_kept_whatever_the_process_has_set() -> None:
    """A library may have them flushed to zero for speed; that is for its own sums."""
    x, add = torch.full((64, 64), 1e-40), torch.full((64, 64), 2e-40)
    want = x + add
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor keeps them in any case")
    try:
        run([add_rows(x, add)])
    finally:
        torch.set_flush_denormal(False)
    assert torch.equal(x, want) and (x > 0).all()


def test_a_library_of_other_sources_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an update without an install: its arguments may have another layout."""
    assert library.why_unavailable() is None
    monkeypatch.setattr(library, "VERSION", library.VERSION + 1)
    assert library.why_unavailable() == library.STALE
    assert not library.available()


def test_both_sides_have_one_version() -> None:
    """The number in the header and the one in Python are raised together."""
    header = (Path(library.__file__).parent / "native.h").read_text()
    assert f"#define VERSION {library.VERSION}\n" in header
