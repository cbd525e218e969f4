"""``app/client/sync_client.py`` is ``async_client.py`` without what an event loop needs.

``python -m tests.app.client.write_sync_client`` writes it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[3] / "app" / "client"
SOURCE, TARGET = FOLDER / "async_client.py", FOLDER / "sync_client.py"

HEAD = '"""``Client``, written from ``async_client.py`` by ``make client-sync``."""\n'

WORDS = {
    "AsyncBaseTransport": "BaseTransport",
    "AsyncClient": "Client",
    "AsyncItems": "Items",
    "AsyncResults": "Results",
    "AsyncRetrying": "Retrying",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "aclose": "close",
    "aclosing": "closing",
    "aiter_sse": "iter_sse",
    "aread": "read",
    "ordered_map_async": "ordered_map",
    "sleep_async": "sleep",
}


def to_sync(source: str) -> str:
    """The same for code that waits, in the form that ruff gives it."""
    body = source.partition("\n")[2]
    body = re.sub(r"\b(async|await) ", "", body)
    body = re.sub(r"\w+", lambda word: WORDS.get(word[0], word[0]), body)
    return _ruff("format", _ruff("check --fix --unsafe-fixes --quiet", HEAD + body))


def _ruff(command: str, text: str) -> str:
    words = ["-m", "ruff", *command.split(), "--stdin-filename", str(TARGET), "-"]
    run = subprocess.run(
        [sys.executable, *words], input=text, stdout=subprocess.PIPE, text=True, check=True
    )
    return run.stdout


if __name__ == "__main__":
    TARGET.write_text(to_sync(SOURCE.read_text()))
