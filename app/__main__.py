"""``python -m app`` is ``chainrule``, and ``chainrule`` is this."""

import os
import signal
import sys


def main() -> int:
    """Run the command line; the exit status."""
    # Its imports take a moment, in which Ctrl+C is no reason for a traceback. In the background of
    # a script it is ignored, and stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from app.cli.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
