"""Packages that only some uses of a command need."""

from __future__ import annotations

from importlib.util import find_spec

from app.client import InvalidRequest


def check_extra(package: str, extra: str, use: str) -> None:
    """Say what is to be installed where a package is missing.

    Args:
        package: what is imported.
        extra: of chainrule's, which brings it.
        use: what needs it.

    Raises:
        InvalidRequest: it is not installed.
    """
    if find_spec(package) is None:
        raise InvalidRequest(f"{use} needs {package}: pip install 'chainrule[{extra}]'")
