"""The fork server that workers come from: Python's own, begun early, since its imports take seconds."""

from __future__ import annotations

from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext

PRELOADED = "jobs.executors.preload"
"""Module that the fork server imports once, so that a worker starts in milliseconds."""


def context() -> ForkServerContext:
    """Where worker processes are made."""
    found = get_context("forkserver")
    found.set_forkserver_preload([PRELOADED])
    return found


def begin() -> None:
    """Start the fork server and return at once; its imports go on beside those of this process."""
    context()
    forkserver.ensure_running()
