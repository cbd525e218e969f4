"""In which orders the options of a question are shown."""

from __future__ import annotations

from typing import Literal

Debias = Literal["none", "cyclic", "all"]
"""none shows the options once, in the order in which they were sent. cyclic shows n options in
their n rotations, all in every order. A scale is never torn apart: both show it from the lowest
level and from the highest."""
