"""`symlab demo`: the digits study from nothing to a page, in one command."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from jobs.cli import serve, watch
from jobs.cli.errors import ExitCode
from jobs.cli.options import Browser, LabPath, Port
from jobs.lab import Lab

Preset = Annotated[
    Literal["smoke", "laptop", "paper"],
    Parameter(help="Size of the study; smoke is the quickest, paper takes MNIST."),
]


def demo(
    *, preset: Preset = "laptop", lab: LabPath = None, port: Port = None, browser: Browser = True
) -> int:
    """Train, align and compare 30 networks on digits, print the result, and serve it until Ctrl-C.

    Runs that are done already in this lab are reused, so a second demo only shows them.
    """
    console = Console(highlight=False)
    options = () if port is None else (f"--port={port}",)
    with Lab(lab, options=options) as served:
        # The preset is asked of the server: this process would take seconds to import what it is made of.
        spec = served.schema()["presets"]["lmc"][preset]
        study = served.submit(spec)
        console.print(f"Study {study} in {served.lab.path}", soft_wrap=True)
        code = watch.finish(served, study, console)
        if code != ExitCode.OK:
            return code
        return serve.show(served, f"/study?id={study}", console, browser=browser)
