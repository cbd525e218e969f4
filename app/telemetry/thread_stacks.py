"""Where every thread of this process stands, for the log of one that hangs."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from typing import Final

logger = logging.getLogger(__name__)

MAX_THREADS: Final = 64
MAX_FRAMES: Final = 40
"""What is logged at most: so many threads, and of each so many of its innermost frames."""


def log_thread_stacks() -> None:
    """A line for each thread: its name, and its frames with the innermost one last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in list(sys._current_frames().items())[:MAX_THREADS]:
        places = traceback.StackSummary.extract(
            traceback.walk_stack(frame), limit=MAX_FRAMES, lookup_lines=False
        )
        stack = [f"{place.filename}:{place.lineno} {place.name}" for place in reversed(places)]
        logger.error("thread stack", extra={"of": names.get(ident, str(ident)), "stack": stack})
