"""Without a compiler there are no native kernels, and nothing here can be asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from model_runtime.native import library
from tests.conftest import WITHOUT_LIBRARY
from tests.model_runtime.native.compiler import compiler


@pytest.fixture(autouse=True)
def built() -> None:
    """The library, which installing the package builds wherever there is a compiler."""
    if library.available():
        return
    if compiler() is not None and not WITHOUT_LIBRARY:
        pytest.fail("a C compiler is here, but no native kernels: install the package again")
    pytest.skip("the native kernels were not built")


@pytest.fixture
def two_threads() -> Iterator[None]:
    """A team of two for one test."""
    library.use_threads(2)
    yield
    library.use_threads(1)
