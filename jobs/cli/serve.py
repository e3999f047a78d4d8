"""`symlab up`: serves a lab in the foreground, or says where it is served already."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

from cyclopts import Parameter, validators
from rich.console import Console

from jobs.cli import browsing
from jobs.cli.errors import ExitCode
from jobs.cli.options import Browser, LabPath, Port
from jobs.folder import LabFolder
from jobs.lab import Lab, running

Slots = Annotated[
    int | None,
    Parameter(
        help="Runs at once; without it what the machine has room for.", validator=validators.Number(gte=1)
    ),
]
Host = Annotated[str, Parameter(help="Address to listen on; 0.0.0.0 is every address of this machine.")]
Names = Annotated[
    tuple[str, ...],
    Parameter(
        name="--allow-host", negative=(), help="Name, beside localhost, under which browsers may ask for it."
    ),
]


def up(
    *,
    lab: LabPath = None,
    port: Port = None,
    host: Host = "127.0.0.1",
    slots: Slots = None,
    allow_host: Names = (),
    browser: Browser = True,
) -> int:
    """Serve the lab and print a link that logs a browser in. Where it is served already, print a link to that."""
    folder = LabFolder.find(lab)
    options = [f"--host={host}", *(f"--allow-host={name}" for name in allow_host)]
    options += [] if port is None else [f"--port={port}"]
    options += [] if slots is None else [f"--slots={slots}"]
    wanted = browser and browsing.available()
    if running(folder) is None and not wanted:
        # The server takes this process's place, so that signals reach it and its log is seen here.
        command = [sys.executable, "-P", "-m", "app.server", "--lab", str(folder.path), *options]
        os.execv(sys.executable, command)  # noqa: S606  (no shell is wanted)
    with Lab(folder.path, options=options) as served:
        return show(served, "/", Console(highlight=False), browser=wanted)


def show(lab: Lab, page: str, console: Console, *, browser: bool) -> int:
    """Prints a one-time link to a page and opens it; if the server was started here, serves until Ctrl-C.

    Returns:
        The exit code: 2 when the server ended by itself.
    """
    # Whoever ends this process with a signal means the lab too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        link = lab.login_link(page)
        console.print(f"\n{link}", soft_wrap=True, markup=False)
        if browser:
            browsing.open_page(link)
        if not lab.started:
            return ExitCode.OK
        console.print("The link works once; `symlab up` prints another. Ctrl-C stops the lab.")
        lab.wait()
    except KeyboardInterrupt:
        console.print("Stopping.")
        return ExitCode.OK
    console.print(f"The server has ended; what it said is in {lab.lab.log}", soft_wrap=True, markup=False)
    return ExitCode.USAGE
