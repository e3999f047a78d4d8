"""Runs and studies carried out in a folder, with no server: what tests of kinds and studies stand on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs import registry, spool
from jobs.execution import Outcome, carry_out
from jobs.headline import WIDTH, Headline
from jobs.job import Job
from jobs.kinds import train
from jobs.records import decode
from jobs.specs import RunSpec, spec_hash
from jobs.spool import Spool
from symcore.networks.mlp import MLPSpec
from symcore.training import TrainingSpec
from symcore.treatments import Standard, Treatment


def trained(treatment: Treatment, **change: Any) -> train.Spec:
    settings: dict[str, Any] = {
        "data": "digits",
        "network": MLPSpec(width=16, depth=1),
        "treatment": treatment,
        "training": TrainingSpec(epochs=3),
        "seeds": (0, 1, 2),
        "mask_seeds": () if isinstance(treatment, Standard) else (0,),
    }
    return train.Spec(**settings | change)


class Told(Job):
    """A job that is told to end when so much of it is done, or when it has looked so often whether it is."""

    stop_at: float | None = None
    stop_after: int | None = None
    looks = 0

    def stopping(self) -> bool:
        self.looks += 1
        late = self.stop_after is not None and self.looks > self.stop_after
        if late or (self.stop_at is not None and self.latest.done >= self.stop_at):
            self.stop("interrupted")
        return super().stopping()


def carried_out(
    spec: RunSpec,
    folder: Path,
    inputs: dict[str, Path],
    stop_at: float | None = None,
    stop_after: int | None = None,
) -> Outcome:
    """Carries out a run in a folder; see `Told` for when it is told to end."""
    folder.mkdir(exist_ok=True)
    with Spool(folder / "records.spool") as opened:
        job = Told(folder, opened, registry.tables(), device="cpu", data_folder=folder, inputs=inputs)
        job.stop_at, job.stop_after = stop_at, stop_after
        return carry_out(spec, job)


def records(folder: Path, table: str) -> pa.Table:
    """The rows that a run recorded in one table."""
    decoded = (decode(payload) for _, payload in spool.read(folder / "records.spool"))
    return pa.Table.from_batches(
        [batch for name, batch in decoded if name == table],
        registry.tables()[table].with_metadata({"table": table}),
    )


def study_tables(study: Any, spec: Any, folder: Path) -> tuple[dict[str, str], dict[str, pa.Table]]:
    """Carries out all runs of a study; the run of each role, and the tables that its results are made from."""
    folders: dict[str, Path] = {}
    roles: dict[str, str] = {}
    for run in study.expand(spec):
        name = spec_hash(run.spec)
        roles[run.role] = name
        if name not in folders:
            folders[name] = folder / name
            inputs = {source: folders[source] for source in run.spec.inputs()}
            outcome = carried_out(run.spec, folders[name], inputs)
            assert outcome.state == "done", outcome.error
    tables = {}
    for table in study.RECORDS:
        parts = []
        for name, own in folders.items():
            rows = records(own, table).replace_schema_metadata(None)
            parts.append(rows.add_column(0, "run", pa.array([name] * len(rows), pa.string())))
        tables[table] = pa.concat_tables(parts)
    return roles, tables


def check_fits(said: Headline) -> None:
    """Makes sure that a study's headline fits a terminal, spreads below their means where it must."""
    shown = said.fitted()
    columns = zip(shown.columns, *shown.rows, strict=True)
    widths = [max(len(line) for cell in column for line in cell.split("\n")) for column in columns]
    assert sum(widths) + 2 * len(widths) <= WIDTH
