"""The HTTP service, its client and its command line."""

from __future__ import annotations

from importlib import metadata
from typing import Final


def _installed() -> str:
    try:
        return metadata.version("chainrule")
    except metadata.PackageNotFoundError:
        return "0+source"


_VERSION: Final = _installed()
"""Found once: packages are looked for in folders, which no event loop should wait for."""


def version() -> str:
    """The installed version; a source tree that was never installed has none."""
    return _VERSION
