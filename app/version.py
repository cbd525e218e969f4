"""Which chainrule this is."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """The installed version; a source tree that was never installed has none."""
    try:
        return metadata.version("chainrule")
    except metadata.PackageNotFoundError:
        return "0+source"
