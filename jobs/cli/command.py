"""The `symlab` command: what it can do, and how it ends."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

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


def _command(name: str, place: str, group: Group) -> None:
    """Adds a command that is imported when it is called; what it says of itself is read from its source until then.

    Some of what commands stand on takes seconds to import.
    """
    module, _, function = place.partition(":")
    found = find_spec(module)
    assert found is not None
    assert found.origin is not None
    app.command(place, name=name, group=group, help=_docstring(found.origin, function))


def _docstring(file: str, function: str) -> str | None:
    own = (node for node in _parsed(file).body if isinstance(node, ast.FunctionDef))
    return ast.get_docstring(next(node for node in own if node.name == function))


@cache
def _parsed(file: str) -> ast.Module:
    return ast.parse(Path(file).read_text(encoding="utf-8"))


_command("up", "jobs.cli.serve:up", SERVE)
_command("demo", "jobs.cli.demo:demo", SERVE)
_command("ls", "jobs.cli.look:ls", WORK)
_command("show", "jobs.cli.look:show", WORK)
_command("cancel", "jobs.cli.verbs:cancel", WORK)
_command("resume", "jobs.cli.verbs:resume", WORK)
_command("export", "jobs.cli.verbs:export", KEEP)
_command("import", "jobs.cli.verbs:import_folder", KEEP)
_command("delete", "jobs.cli.verbs:delete", KEEP)
_command("purge", "jobs.cli.verbs:purge", KEEP)
app.command(
    "jobs.cli.run:app", name="run", group=WORK, help="Start a study, wait for it and show its result."
)
_command("doctor", "jobs.cli.doctor:doctor", CHECK)


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
