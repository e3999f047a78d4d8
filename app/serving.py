"""The life of a server process: own the lab, take a port, serve, and stop the workers in order."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import threading
from types import FrameType

import uvicorn
from streamlit.runtime.runtime_util import get_max_message_size_bytes

from app.listening import PortTakenError, address, listen
from app.site import site
from jobs import service
from jobs.access import login_link
from jobs.folder import LabUnusableError
from jobs.service import Service


def serve(arguments: argparse.Namespace) -> int:
    """Serve a lab until SIGTERM, Ctrl-C or a failure of its database.

    Returns:
        The process's exit status: 0 after a stop, 2 when the lab cannot be served, which is said in one line.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if arguments.with_parent:
        threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    try:
        lab = service.start(arguments.lab, slots=arguments.slots, on_failure=_end)
    except LabUnusableError as error:
        return _refuse(error)
    # From here on there is something to end in order. uvicorn hands its signals on when it has closed its sockets.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    try:
        with listen(arguments.host, arguments.port) as listener:
            _run(lab, arguments, listener)
    except PortTakenError as error:
        return _refuse(error)
    except SystemExit:
        pass
    finally:
        _stop(lab)
    if lab.store.failure is not None:
        return _refuse(lab.store.failure)
    return 0


def _run(lab: Service, arguments: argparse.Namespace, listener: socket.socket) -> None:
    """Say where the lab is, and answer requests until a signal comes."""
    here = address(arguments.host, listener)
    if not arguments.with_parent:
        print(f"Symmetry Lab {lab.folder}\n{login_link(here, lab.keys)}", flush=True)  # noqa: T201
    config = uvicorn.Config(
        site(lab, arguments.allow_host, here),
        ws="websockets-sansio",
        ws_max_size=get_max_message_size_bytes(),
        log_level="warning",
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=5,
    )
    uvicorn.Server(config).run(sockets=[listener])


def _stop(lab: Service) -> None:
    """Stop the workers at a checkpoint; another signal cuts their time short."""

    def hurry(_signal: int, _frame: FrameType | None) -> None:
        lab.dispatcher.grace = 0.0

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, hurry)
    service.stop()


def _leave(_signal: int, _frame: FrameType | None) -> None:
    """Leave what is being done for the end of `serve`."""
    raise SystemExit


def _end_with_parent() -> None:
    """Wait until the other end of standard input is closed, by will or by death, and end this process in order."""
    while os.read(0, 1024):
        pass
    _end()


def _end() -> None:
    """Ask this process to end in order."""
    os.kill(os.getpid(), signal.SIGTERM)


def _refuse(error: Exception) -> int:
    print(error, file=sys.stderr, flush=True)  # noqa: T201
    return 2
