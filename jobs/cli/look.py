"""Commands that only look: `symlab ls` and `symlab show`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from cyclopts import Parameter, validators
from rich.console import Console

from jobs.cli import tables
from jobs.cli.options import Json, LabPath
from jobs.headline import Rows
from jobs.lab import Lab
from jobs.states import State
from jobs.summaries import with_spread

console = Console(highlight=False)
if not console.is_terminal:
    console.width = 200  # nothing is cut for a program that reads along

States = Annotated[
    tuple[State, ...], Parameter(name="--state", negative=(), help="Only runs in these states; means --runs.")
]
Study = Annotated[str | None, Parameter(help="Only the runs of this study; means --runs.")]
Search = Annotated[str, Parameter(help="Only runs whose id, title or spec contains this; means --runs.")]
Limit = Annotated[
    int, Parameter(help="Rows at most, newest first.", validator=validators.Number(gte=1, lte=10_000))
]
Runs = Annotated[bool, Parameter(negative=(), help="List runs; without it studies.")]
Id = Annotated[str, Parameter(help="A study's id (s...) or a run's (r...).")]
Log = Annotated[bool, Parameter(negative=(), help="Print the run's log instead.")]


def ls(
    *,
    runs: Runs = False,
    study: Study = None,
    state: States = (),
    text: Search = "",
    limit: Limit = 50,
    as_json: Json = False,
    lab: LabPath = None,
) -> None:
    """List studies, newest first; or runs."""
    with Lab(lab) as served:
        if runs or study or state or text:
            rows, count = served.runs(study=study, state=list(state) or None, text=text, limit=limit)
            columns, cells = ("run", "kind", "title", "state", "progress", "created"), map(_run_row, rows)
            footer = f"{len(rows)} of {count} runs"
        else:
            rows = served.studies(limit=limit)
            columns, cells = ("study", "kind", "title", "state", "done", "created"), map(_study_row, rows)
            footer = "" if rows else "no studies yet: `symlab run lmc --preset smoke` makes one"
    if as_json:
        print(json.dumps(rows))
        return
    if rows:
        console.print(tables.listing(columns, cells))
    if footer:
        console.print(f"[dim]{footer}[/]")


def show(name: Id, /, *, log: Log = False, as_json: Json = False, lab: LabPath = None) -> None:
    """Show a study with its runs and its result, or a run with its numbers and files."""
    with Lab(lab) as served:
        if log:
            print(served.log(name), end="")
        elif name.startswith("s"):
            found = served.study(name)
            results = served.results(name)
            if as_json:
                print(json.dumps(found | {"results": results}))
            else:
                _print_study(found, results)
        else:
            found = served.run(name)
            if as_json:
                print(json.dumps(found))
            else:
                _print_run(found)


def _print_study(study: Mapping[str, Any], results: Mapping[str, Rows]) -> None:
    _heading(study, study["study"])
    rows = [(run["run"], run["role"], run["state"], _seconds(run), run["error"]) for run in study["runs"]]
    console.print(tables.listing(("run", "role", "state", "seconds", "error"), rows))
    if any(results.values()):
        console.print()
        console.print(tables.result(study["kind"], results))


def _print_run(run: Mapping[str, Any]) -> None:
    _heading(run, run["run"])
    if run["error"]:
        console.print(run["error"], style="red", markup=False, soft_wrap=True)
    summary = with_spread(run["summary"])
    wide = max(32, *map(len, summary), 0)
    for name, (value, std) in summary.items():
        told = "not finite" if value is None else f"{value:.6g}"
        console.print(f"{name:{wide}} {told}{'' if std is None else f' ± {std:.2g}'}")
    for artifact in run["artifacts"]:
        console.print(f"{artifact['name']:{wide}} {artifact['bytes'] / 1e6:.2f} MB  {artifact['path']}")
    studies = [f"{study['study']} as {study['role']}" for study in run["studies"]]
    console.print(f"part of {', '.join(studies)}" if studies else "part of no study")
    console.print("[dim]settings[/]")
    console.print_json(data=run["spec"])


def _heading(found: Mapping[str, Any], name: str) -> None:
    style = tables.STATE_STYLES.get(found["state"], "default")
    console.print(f"[bold]{name}[/]  {found['kind']}  {found['title']}  [{style}]{found['state']}[/]")
    console.print(
        f"created {_local(found['created'])}"
        + (f", ended {_local(found['ended'])}" if found["ended"] else "")
    )
    console.print()


def _study_row(study: Mapping[str, Any]) -> tuple[object, ...]:
    done = f"{study['done']} of {study['runs']}"
    return study["study"], study["kind"], study["title"], study["state"], done, _local(study["created"])


def _run_row(run: Mapping[str, Any]) -> tuple[object, ...]:
    progress = f"{run['progress']['fraction']:.0%}" if run["progress"] else _seconds(run)
    return run["run"], run["kind"], run["title"], run["state"], progress, _local(run["created"])


def _seconds(run: Mapping[str, Any]) -> str:
    return "" if run["seconds"] is None else f"{run['seconds']:.1f} s"


def _local(time: str) -> str:
    """A time of the store, in UTC, as this machine's clock shows it."""
    return datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M")
