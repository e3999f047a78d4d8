"""Watches a study in the terminal: a live bar with the time left, then its result or what failed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
)
from rich.table import Column
from rich.text import Text

from jobs.cli import tables
from jobs.cli.errors import ExitCode
from jobs.lab import Lab

Study = Mapping[str, Any]


class TimeLeft(ProgressColumn):
    """The lab's own estimate, which knows what each run costs."""

    def render(self, task: Task) -> Text:
        """Say "0:00:12 left", or nothing before the first estimate."""
        eta = task.fields["eta"]
        text = "" if eta is None else f"{timedelta(seconds=round(eta))} left"
        return Text(text, style="progress.remaining")


def finish(lab: Lab, study: str, console: Console) -> int:
    """Waits for a study to end and prints its result.

    Returns:
        The exit code: 0 when it is done, 1 when it failed or was cancelled, 130 after Ctrl-C.
    """
    try:
        ended = _watch(lab, study, console)
    except KeyboardInterrupt:
        rest = "goes on when the lab is served again" if lab.started else "goes on without this command"
        console.print(f"{study} {rest}; `symlab cancel {study}` ends it")
        return ExitCode.INTERRUPTED
    if ended["state"] == "done":
        results = lab.results(study)
        if results:
            console.print(tables.result(ended["kind"], results))
        return ExitCode.OK
    console.print(f"[red]{study} is {ended['state']}[/]")
    for run in ended["runs"]:
        if run["error"]:
            console.print(f"{run['run']} {run['role']}: {run['error']}", markup=False, soft_wrap=True)
    return ExitCode.FAILED


def _watch(lab: Lab, study: str, console: Console) -> Study:
    """The study as it ended; a line for each run that ends and a bar below them."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TimeLeft(table_column=Column(no_wrap=True)),
        TextColumn(
            "[dim]{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
        ),
    )
    told: set[str] = set()
    found: Study = {}
    with Progress(*columns, console=console, transient=True, expand=True) as progress:
        bar = progress.add_task("starting", total=1.0, eta=None, note="")
        for found in lab.watch(study, seconds=0.25):
            state = found["progress"]
            _tell(found, told, console)
            count = f"{state['states'].get('done', 0)} of {sum(state['states'].values())} runs"
            note = escape(", ".join(f"{role}: {note}" for role, note in state["notes"].items()))
            progress.update(bar, completed=state["fraction"], eta=state["eta"], description=count, note=note)
    return found


def _tell(study: Study, told: set[str], console: Console) -> None:
    """Prints each run that has ended since the last look, once."""
    for run in study["runs"]:
        if run["ended"] is None or run["run"] in told:
            continue
        told.add(run["run"])
        how = "reused" if run["reused"] else f"{run['state']} in {run['seconds'] or 0:.1f} s"
        console.print(f"{run['run']}  {run['role']:20} {how}", highlight=False)
