"""``python -m app`` is ``chainrule``, and ``chainrule`` is this."""

import os
import signal
import sys


def main() -> int:
    """Run the command line; the exit status."""
    # Its imports take a moment, in which Ctrl+C is no reason for a traceback. In the background of
    # a script it is ignored, and stays so.
    is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_heard:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from app.cli.main import main as run

    try:
        if is_heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return run()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
