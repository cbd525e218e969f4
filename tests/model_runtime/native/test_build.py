"""What a compiler is told, whatever the environment tells it as well."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.model_runtime.native.compiler import compiled, compiler

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "model_runtime" / "native"
KERNELS = f'#define KERNELS kernels\n#include "{SOURCES}/kernels.h"\n'
CHANGE_BITS = ["-ffast-math", "-Ofast", "-ffinite-math-only", "-funsafe-math-optimizations"]
"""Flags of the environment that would: sums in another order, no NaNs, tiny numbers as zeros."""


@pytest.fixture(scope="module")
def package() -> dict[str, Any]:
    """How the package is built."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return dict(project["tool"]["setuptools"])


@pytest.fixture(scope="module")
def extension(package: dict[str, Any]) -> dict[str, Any]:
    """How the library in it is."""
    (extension,) = package["ext-modules"]
    return dict(extension)


@pytest.fixture
def command() -> tuple[str, ...]:
    found = compiler()
    if found is None:
        pytest.skip("no C compiler is here")
    return found


@pytest.mark.parametrize("flag", CHANGE_BITS)
def test_the_environment_changes_no_bits(
    flag: str, command: tuple[str, ...], extension: dict[str, Any], tmp_path: Path
) -> None:
    """The kernels refuse to be compiled so, and what the package adds takes such a flag back."""
    check, own = "-fsyntax-only", extension["extra-compile-args"]
    if flag != "-funsafe-math-optimizations":  # of which not every compiler tells the program
        assert not compiled(command, check, flag, folder=tmp_path, program=KERNELS)
    assert compiled(command, check, flag, *own, folder=tmp_path, program=KERNELS)


@pytest.mark.parametrize("flag", CHANGE_BITS)
def test_the_library_leaves_the_process_as_it_is(
    flag: str, command: tuple[str, ...], extension: dict[str, Any], tmp_path: Path
) -> None:
    """With such flags some linkers add code that rounds tiny numbers to zero from then on."""
    own = extension["extra-link-args"]
    assert compiled(command, "-shared", "-fPIC", flag, *own, folder=tmp_path)
    assert b"set_fast_math" not in (tmp_path / "out").read_bytes()


def test_every_source_is_in_the_package(package: dict[str, Any], extension: dict[str, Any]) -> None:
    """A change of any builds the library again, and an install has them for the fingerprint."""
    sources = {path.name for path in SOURCES.glob("*.[ch]")}
    listed = {Path(name).name for name in (*extension["sources"], *extension["depends"])}
    assert listed == sources
    patterns = package["package-data"]["model_runtime"]
    installed = {path.name for one in patterns for path in SOURCES.parent.glob(one)}
    assert sources <= installed
