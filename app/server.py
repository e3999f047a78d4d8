"""`python -P -m app.server`: serves a lab. Every worker imports this module, so it imports nothing but the standard library."""

from __future__ import annotations

import argparse
import signal
import sys


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = argparse.ArgumentParser(
        prog="python -P -m app.server", description="Serve a lab.", allow_abbrev=False
    )
    options.add_argument("--lab", help="the lab's folder (else $SYMLAB_LAB, else ./lab)")
    options.add_argument("--host", default="127.0.0.1", help="address to listen on")
    options.add_argument("--port", type=int, help="port; 0 takes any (else the first free one from 8501)")
    options.add_argument("--slots", type=int, help="runs at once (else what the machine has room for)")
    options.add_argument(
        "--allow-host", action="append", default=[], help="name under which browsers may ask for it"
    )
    options.add_argument("--with-parent", action="store_true", help="end when standard input is closed")
    return options


if __name__ == "__main__":
    arguments = parser().parse_args()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until it serves there is nothing to end in order
    from jobs.executors import forks

    forks.begin()  # its imports and ours take seconds: side by side
    from app.serving import serve

    sys.exit(serve(arguments))
