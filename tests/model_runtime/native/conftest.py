"""Without a compiler there are no native kernels, and nothing here can be asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from model_runtime.native import library


@pytest.fixture(autouse=True)
def built() -> None:
    """The library, which installing the package builds."""
    if not library.available():
        pytest.skip("the native kernels were not built")


@pytest.fixture
def two_threads() -> Iterator[None]:
    """A team of two for one test."""
    library.use_threads(2)
    yield
    library.use_threads(1)
