"""What the libraries say by themselves: log lines in this process's form, bars where wanted."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging as transformers_logging

_LIBRARIES = ("transformers", "huggingface_hub")
"""Those that bring a handler of their own, which writes to standard error as it likes."""

_LOADING = "transformers.modeling_utils"
_SAID_BY_THE_LOADER = ("LOAD REPORT", "will NOT tie")
"""In lines about weights that the loader refuses, or warns of, by name."""


def adopt_library_logs() -> None:
    """Hand what the libraries log to the root logger. Call it once they are imported."""
    for name in _LIBRARIES:
        library = logging.getLogger(name)
        for handler in [h for h in library.handlers if type(h) is logging.StreamHandler]:
            library.removeHandler(handler)
        library.propagate = True
    logging.getLogger(_LOADING).addFilter(_is_news)


@contextmanager
def progress_bars(*, shown: bool) -> Iterator[None]:
    """Switch transformers' progress bars on or off for a while."""
    switch = (transformers_logging.disable_progress_bar, transformers_logging.enable_progress_bar)
    before = transformers_logging.is_progress_bar_enabled()
    switch[shown]()
    try:
        yield
    finally:
        switch[before]()


def _is_news(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not any(words in message for words in _SAID_BY_THE_LOADER)
