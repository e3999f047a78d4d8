"""Writes studies and runs to a folder or zip that other programs, and another lab, can read.

export.json                 format, time, ids
tables/NAME.parquet, .csv   the lab's own tables, cut down to these runs
studies/ID/study.json       spec, title and which run plays which role
studies/ID/NAME.csv         the study's result tables
runs/ID/                    spec.json, environment.json, outcome.json, log.txt and artifacts
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import csv, parquet

from jobs import queries
from jobs.folder import LabFolder
from jobs.ledger import Ledger
from jobs.states import FINISHED, NotAllowedError

FORMAT = 1
"""Version of this layout."""
RUN_TABLES = ("run", "run_event", "batch", "summary")
"""Tables of the lab that say something of runs, beside the record tables."""
STUDY_TABLES = ("study", "study_event", "study_run")
FILES = ("spec.json", "environment.json", "outcome.json", "log.txt")
"""Files of a run that are exported beside its artifacts."""

Results = Callable[[str], Mapping[str, pa.Table]]


def export(ledger: Ledger, lab: LabFolder, ids: Sequence[str], path: Path, results: Results) -> Path:
    """Write studies and runs to `path`, whole or not at all; returns it.

    Args:
        ledger: Runs and studies of the lab.
        lab: Its folder.
        ids: Studies and runs.
        path: A new folder, or a new file whose name ends in `.zip`.
        results: Result tables of a study.

    Raises:
        UnknownError: An id names neither a run nor a study.
        NotAllowedError: One of them is not finished.
        FileExistsError: There is something of that name.
    """
    if path.exists():
        message = f"{path} exists already; name another place"
        raise FileExistsError(message)
    runs = _finished(ledger, ids)
    studies = [name for name in ids if name in ledger.studies]
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as scratch:
        folder = Path(scratch) / path.stem
        _write_tables(ledger, folder / "tables", runs, studies)
        for study in studies:
            _write_study(ledger, folder / "studies" / study, study, results(study))
        for run in runs:
            _copy_run(ledger, lab, run, folder / "runs" / run)
        written = datetime.now(UTC).isoformat(timespec="seconds")
        head = {"format": FORMAT, "written": written, "studies": studies, "runs": runs}
        (folder / "export.json").write_text(json.dumps(head, indent=1), encoding="utf-8")
        if path.suffix == ".zip":
            shutil.make_archive(str(Path(scratch) / "whole"), "zip", scratch, path.stem)
            (Path(scratch) / "whole.zip").replace(path)
        else:
            folder.replace(path)
    return path


def _finished(ledger: Ledger, ids: Sequence[str]) -> list[str]:
    """The runs that ids name, all finished; under the lock, so that what the database says is known here too."""
    with ledger.lock:
        runs = [run.run for run in ledger.members(ids)]
        for run in runs:
            if ledger.runs[run].state not in FINISHED:
                message = f"run {run} is {ledger.runs[run].state}: wait for its end, or cancel it, before exporting it"
                raise NotAllowedError(message)
        return runs


def _write_tables(ledger: Ledger, folder: Path, runs: Sequence[str], studies: Sequence[str]) -> None:
    """The rows of all tables that belong to these runs and studies, as Parquet and CSV."""
    folder.mkdir(parents=True)
    chosen: Iterable[tuple[str, str, Sequence[str]]] = [
        *((table, "run", runs) for table in (*RUN_TABLES, *ledger.store.tables)),
        *((table, "study", studies) for table in STUDY_TABLES),
    ]
    for table, column, ids in chosen:
        query = f'SELECT * FROM "{table}" WHERE {column} IN (SELECT unnest($ids::VARCHAR[]))'  # noqa: S608
        rows = ledger.store.read(query, {"ids": list(ids)})
        if table == "study_run":
            rows = rows.filter(pc.is_in(rows["run"], pa.array(runs, pa.string())))
        parquet.write_table(rows, folder / f"{table}.parquet")
        csv.write_csv(rows, folder / f"{table}.csv")


def _write_study(ledger: Ledger, folder: Path, study: str, results: Mapping[str, pa.Table]) -> None:
    """A study's spec, roles and result tables."""
    folder.mkdir(parents=True)
    found = queries.study(ledger.store, study)
    kept = {name: found[name] for name in ("study", "kind", "title", "state", "spec", "roles")}
    kept["created"] = found["created"].isoformat()
    (folder / "study.json").write_text(json.dumps(kept, indent=1), encoding="utf-8")
    for name, table in results.items():
        csv.write_csv(table, folder / f"{name}.csv")


def _copy_run(ledger: Ledger, lab: LabFolder, run: str, target: Path) -> None:
    """A run's own files and artifacts; those that are gone are left out."""
    target.mkdir(parents=True)
    artifacts = queries.records(ledger.store, "artifact", [run])["path"].to_pylist()
    for name in (*FILES, *artifacts):
        path = lab.inside(run, name)
        if path is not None:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target / name)
