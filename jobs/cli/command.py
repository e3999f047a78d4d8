"""The `symlab` command: what it can do, and how it ends."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Group
from rich.console import Console

from jobs.cli.errors import ExitCode, lines
from jobs.cli.help import Formatter
from jobs.client import RefusedError, UnreachableError
from jobs.folder import LabUnusableError


def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415  (only here)

    return version("symmetry-lab")


SERVE, WORK, KEEP, CHECK = (
    Group.create_ordered(name) for name in ("Serve", "Run and look", "Keep and clear away", "Check")
)

app = App(
    name="symlab",
    help="Compare neural networks with and without their parameter symmetries.",
    version_flags=("--version",),
    version=_version,
    help_formatter=Formatter(),
    result_action="return_value",
)
# Commands are named by their places, and imported when they are called or listed. The last two need torch, which takes
# seconds, so they are listed by the words here.
app.command("jobs.cli.serve:up", group=SERVE)
app.command("jobs.cli.demo:demo", group=SERVE)
app.command("jobs.cli.look:ls", group=WORK)
app.command("jobs.cli.look:show", group=WORK)
app.command("jobs.cli.verbs:cancel", group=WORK)
app.command("jobs.cli.verbs:resume", group=WORK)
app.command("jobs.cli.verbs:export", group=KEEP)
app.command("jobs.cli.verbs:import_folder", name="import", group=KEEP)
app.command("jobs.cli.verbs:delete", group=KEEP)
app.command("jobs.cli.verbs:purge", group=KEEP)
app.command(
    "jobs.cli.run:app", name="run", group=WORK, help="Start a study, wait for it and show its result."
)
app.command(
    "jobs.cli.doctor:doctor", group=CHECK, help="Check this machine and the lab folder, and say what to do."
)


def run(tokens: Sequence[str] | None = None) -> int:
    """Carries out one command line.

    Args:
        tokens: The words after `symlab`; this process's own by default.

    Returns:
        The exit code, see `ExitCode`.
    """
    try:
        code = app(tokens, exit_on_error=False, print_error=False)
    except (CycloptsError, LabUnusableError, RefusedError, UnreachableError, OSError) as error:
        console = Console(stderr=True, highlight=False)
        for line in lines(error):
            console.print(f"symlab: {line}", markup=False, soft_wrap=True)
        return ExitCode.USAGE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    return code if isinstance(code, int) else ExitCode.OK


def main() -> None:
    """The `symlab` program."""
    sys.exit(run())
