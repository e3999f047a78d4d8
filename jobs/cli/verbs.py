"""Commands that change what a lab holds: cancel, resume, delete, purge, export, import."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from jobs.cli.options import Ids, LabPath
from jobs.lab import Lab

console = Console(highlight=False)


def _each(lab: Path | None, verb: Callable[[Lab], Sequence[str]], done: str, nothing: str) -> None:
    """Does something to runs and says to which."""
    with Lab(lab) as served:
        runs = verb(served)
    console.print(f"{done}: {' '.join(runs)}" if runs else nothing, soft_wrap=True)


def cancel(ids: Ids, /, *, lab: LabPath = None) -> None:
    """Cancel runs, and the unfinished runs of studies that no other study waits for."""
    _each(lab, lambda served: served.cancel(ids), "cancelled", "nothing to cancel: every run has ended")


def resume(ids: Ids, /, *, lab: LabPath = None) -> None:
    """Queue cancelled and failed runs again; they go on where they were, as far as their kind can."""
    _each(
        lab, lambda served: served.resume(ids), "queued", "nothing to resume: no run was cancelled or failed"
    )


def delete(ids: Ids, /, *, lab: LabPath = None) -> None:
    """Delete finished runs, and studies with the runs that no other study has; files stay until `symlab purge`."""
    _each(lab, lambda served: served.delete(ids), "deleted", "deleted; other studies keep all its runs")


def purge(*, lab: LabPath = None) -> None:
    """Remove the files of deleted runs for good."""
    with Lab(lab) as served:
        removed = served.purge()
    console.print(f"removed the files of {removed['runs']} runs, {removed['bytes'] / 1e6:.1f} MB")


Target = Annotated[
    Path | None,
    Parameter(help="New folder, or new file that ends in .zip; without it the first id and .zip."),
]
Source = Annotated[Path, Parameter(help="Folder or .zip that `symlab export` or the offline worker wrote.")]


def export(ids: Ids, /, *, to: Target = None, lab: LabPath = None) -> None:
    """Write studies and runs with specs, records, results and weights to a folder or a zip file."""
    path = to or Path(f"{ids[0]}.zip")
    with Lab(lab) as served:
        console.print(str(served.export(ids, path)), soft_wrap=True)


def import_folder(path: Source, /, *, lab: LabPath = None) -> None:
    """Store what `symlab export` or the offline worker wrote; what is known already is left as it is."""
    with Lab(lab) as served:
        found = served.import_folder(path)
    count = f"{found['runs']} runs stored, {found['known']} known already"
    if found["left"]:
        count += f", {found['left']} not finished: resume the study here, or import it again when they are"
    console.print(f"{' '.join(found['studies'])}: {count}", soft_wrap=True)
