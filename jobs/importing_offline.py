"""Stores what the offline worker made: a study carried out where there was no server."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs import planning, registry, spool
from jobs.execution import Outcome
from jobs.folder import LabFolder
from jobs.ledger import Ledger
from jobs.ledger_rows import STUDY_RUN, Run, new_id, run_rows
from jobs.records import decode
from jobs.specs import RunSpec, SpecHash, StudySpec, canonical_json, spec_hash
from jobs.states import State
from jobs.store import fit_rows

FORMAT = 1
"""Version of the folder that is read here."""


class ImportRefusedError(ValueError):
    """A folder cannot be imported; the message is one line that says why."""


@dataclass(frozen=True)
class Imported:
    """What an import did."""

    studies: list[str]
    """Studies of the folder, by their ids in this lab."""
    runs: int
    """Runs that are new to this lab."""
    known: int
    """Runs that it had already."""
    left: int = 0
    """Runs that are neither finished there nor here; what this lab had of them it keeps, and others stand as cancelled or failed."""


@dataclass(frozen=True)
class Made:
    """One run that the offline worker finished."""

    folder: Path
    spec: RunSpec
    outcome: Outcome
    environment: Mapping[str, Any]

    @property
    def ended(self) -> datetime:
        """When its outcome was written."""
        return datetime.fromtimestamp((self.folder / Outcome.FILE).stat().st_mtime, UTC)

    @property
    def started(self) -> datetime:
        """When its last attempt began."""
        return self.ended - timedelta(seconds=self.outcome.seconds)


@dataclass
class Rows:
    """Rows that an import adds, by table."""

    runs: list[tuple[Run, RunSpec]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    batches: list[dict[str, Any]] = field(default_factory=list)
    summaries: list[dict[str, Any]] = field(default_factory=list)
    records: dict[str, list[pa.Table]] = field(default_factory=dict)

    def add(
        self, run: Run, spec: RunSpec, state: State, payload: Mapping[str, object], time: datetime
    ) -> None:
        """Add a run and its first event."""
        self.runs.append((run, spec))
        self.move(run, state, time, payload)

    def move(self, run: Run, state: State, time: datetime, payload: Mapping[str, object]) -> None:
        """Add an event of a run."""
        text = json.dumps(payload)
        self.events.append({"run": run.run, "time": time, "type": state, "attempt": 1, "payload": text})


def import_out(ledger: Ledger, lab: LabFolder, path: Path) -> Imported:
    """Store a folder of the offline worker; runs that are here already, by their spec, are left as they are.

    Of a study that was stopped the finished runs are stored. The others stand as cancelled, or failed: they can be resumed here, and
    once the worker has finished them a later import brings them, in a study of its own.

    Raises:
        ImportRefusedError: It has another format, no run of it is done, or the records of one are not whole.
    """
    head = json.loads((path / "study.json").read_text(encoding="utf-8"))
    if head["format"] != FORMAT:
        message = (
            f"{path} has format {head['format']}; this version of Symmetry Lab reads {FORMAT}: upgrade it"
        )
        raise ImportRefusedError(message)
    keys = dict.fromkeys(entry["run"] for entry in head["runs"])
    made = {key: found for key in keys if (found := _read_run(path / "runs" / key))}
    if not made:
        message = f"{path}: no run of it is finished: let the offline worker go on (--resume) and import then"
        raise ImportRefusedError(message)
    spec = (
        registry.study_spec(head["study"], stored=True)
        if head["study"]
        else made[head["runs"][-1]["run"]].spec
    )
    unfinished = _unfinished(path, spec, [key for key in keys if key not in made])
    names, rows = _collect_runs(ledger, list(keys), made, unfinished, path / "runs")
    new = {run.hash: run for run, _ in rows.runs}
    began = min(found.started for found in made.values())
    plan = [(entry["role"], names[entry["run"]], entry["run"] not in new) for entry in head["runs"]]
    folders = {run.run: path / "runs" / key for key, run in new.items() if key in made}
    with run_folders(lab, folders) as place, ledger.lock:
        study, tables = _study_rows(ledger, spec, plan, began)
        place()
        ledger.store.adopt(_run_tables(rows) | tables).result()
        ledger.load()
    stored = len(new.keys() & made.keys())
    with ledger.lock:
        left = sum(ledger.done(key, whole=False) is None for key in unfinished)
    return Imported([study], stored, len(keys) - left - stored, left)


def _unfinished(path: Path, study: StudySpec | RunSpec, keys: Sequence[SpecHash]) -> dict[SpecHash, RunSpec]:
    """Specs of runs that are not finished: as they were begun, or else from the study's plan.

    Raises:
        ImportRefusedError: One was never begun, and is not in the plan that this version makes.
    """
    if not keys:
        return {}  # a plan may need networks that are not registered here
    planned = {spec_hash(run.spec): run.spec for run in planning.plan(study)}
    found = dict[SpecHash, RunSpec]()
    for key in keys:
        begun = path / "runs" / key / "spec.json"
        if begun.exists():
            found[key] = registry.run_spec(begun.read_text(encoding="utf-8"), stored=True)
        elif key in planned:
            found[key] = planned[key]
        else:
            message = (
                f"run {key} was never begun, and is not in the study's plan: another version of Symmetry Lab made it; "
                "accepted: a study that this version plans likewise, or a finished one"
            )
            raise ImportRefusedError(message)
    return found


def _collect_runs(
    ledger: Ledger,
    keys: Sequence[SpecHash],
    made: Mapping[SpecHash, Made],
    unfinished: Mapping[SpecHash, RunSpec],
    folders: Path,
) -> tuple[dict[SpecHash, str], Rows]:
    """Each run's id in this lab, and the rows of those that are new to it.

    Args:
        ledger: Runs and studies of the lab.
        keys: The study's runs, each after those it reads.
        made: Those that are finished.
        unfinished: Specs of the others.
        folders: Where each run's folder is.

    Raises:
        ImportRefusedError: The records of a finished run are not whole.
    """
    names, rows = dict[SpecHash, str](), Rows()
    began = min(found.started for found in made.values())
    for key in keys:
        found = made.get(key)
        with ledger.lock:
            known = ledger.done(key, whole=_is_whole(found)) if found else ledger.any(key)
        names[key] = known or new_id("r")
        if known is not None:
            continue
        spec = found.spec if found else unfinished[key]
        inputs = {source: names[source] for source in spec.inputs()}
        run = Run(names[key], spec.kind, key, inputs, found.started if found else began)
        if found:
            _collect(ledger, rows, found, run)
        else:
            rows.add(run, spec, *_end(folders / key), began)
    return names, rows


@contextlib.contextmanager
def run_folders(lab: LabFolder, sources: Mapping[str, Path]) -> Iterator[Callable[[], None]]:
    """Copies folders of new runs into the lab; what it yields gives them their names there, which takes no time.

    When the block fails, none of them stays. One import at a time.
    """
    scratch = lab.path / ".import"
    shutil.rmtree(scratch, ignore_errors=True)  # of an import that was killed
    scratch.mkdir(mode=0o700)
    placed: list[Path] = []

    def place() -> None:
        for run in sources:
            shutil.rmtree(lab.runs / run, ignore_errors=True)  # an import that was killed may have left it
            placed.append((scratch / run).rename(lab.runs / run))

    try:
        for run, source in sources.items():
            shutil.copytree(source, scratch / run, ignore=shutil.ignore_patterns("*.lock"))
        yield place
    except BaseException:
        for folder in placed:
            shutil.rmtree(folder)
        raise
    finally:
        shutil.rmtree(scratch)


def _read_run(folder: Path) -> Made | None:
    """One finished run; none if it is not finished.

    Raises:
        ImportRefusedError: It was made by a version that computes something else.
    """
    outcome = Outcome.read(folder)
    if outcome is None or outcome.state != "done":
        return None
    spec = registry.run_spec((folder / "spec.json").read_text(encoding="utf-8"), stored=True)
    if spec_hash(spec) != folder.name:
        message = f"run {folder.name} has a spec whose hash is {spec_hash(spec)}: another version of Symmetry Lab made it"
        raise ImportRefusedError(message)
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    return Made(folder, spec, outcome, environment)


def _end(folder: Path) -> tuple[State, dict[str, object]]:
    """How a run that is not done stands here: failed as it did there, or else cancelled."""
    outcome = Outcome.read(folder)
    if outcome is not None and outcome.state == "failed":
        return State.FAILED, {"error": outcome.error}
    return State.CANCELLED, {"reason": "not finished when it was imported"}


def _is_whole(run: Made) -> bool:
    """Whether the folder has all artifacts that its records name."""
    batches = (decode(payload) for _, payload in spool.read(run.folder / "records.spool"))
    paths = [path for table, rows in batches if table == "artifact" for path in rows["path"].to_pylist()]
    return all((run.folder / path).is_file() for path in paths)


def _collect(ledger: Ledger, rows: Rows, made: Made, run: Run) -> None:
    """Add one new run's rows.

    Raises:
        ImportRefusedError: Its spool lacks batches.
    """
    payloads = [payload for _, payload in spool.read(made.folder / "records.spool")]
    if len(payloads) < made.outcome.batches:
        message = f"run {made.folder.name} made {made.outcome.batches} batches of records, {len(payloads)} are readable"
        raise ImportRefusedError(message)
    for table, batch in map(decode, payloads):
        rows.records.setdefault(table, []).append(fit_rows(ledger.store.tables, run.run, table, batch))
    device = {"device": made.environment.get("device"), "threads": made.environment.get("threads")}
    rows.add(run, made.spec, State.QUEUED, {"reason": "carried out without a server, imported"}, made.started)
    rows.move(run, State.RUNNING, made.started, device)
    rows.move(run, State.DONE, made.ended, {"seconds": made.outcome.seconds, "batches": made.outcome.batches})
    if payloads:
        rows.batches.append({"run": run.run, "first": 0, "count": len(payloads)})
    for name, value in made.outcome.summary.items():
        number = float("nan") if value is None else value
        rows.summaries.append({"run": run.run, "name": name, "value": number})


def _run_tables(rows: Rows) -> dict[str, pa.Table]:
    """The rows of new runs as Arrow tables, without those that are empty."""
    tables = {table: pa.concat_tables(parts) for table, parts in rows.records.items()}
    listed = (
        ("run_event", rows.events, _EVENT),
        ("batch", rows.batches, None),
        ("summary", rows.summaries, _SUMMARY),
    )
    tables |= {table: pa.Table.from_pylist(content, schema) for table, content, schema in listed if content}
    return tables | ({"run": run_rows(rows.runs)} if rows.runs else {})


def _study_rows(
    ledger: Ledger, spec: StudySpec | RunSpec, plan: Sequence[tuple[str, str, bool]], began: datetime
) -> tuple[str, dict[str, pa.Table]]:
    """The study's id, and its rows unless this lab has a study with the same spec and runs.

    Args:
        ledger: Runs and studies of the lab.
        spec: The study's spec.
        plan: Role, run and whether that was known already, for each of its runs.
        began: When its first run began.
    """
    text = canonical_json(spec)
    query = "SELECT study FROM study_current WHERE NOT deleted AND spec = $spec ORDER BY created"
    runs = list(dict.fromkeys(run for _, run, _ in plan))
    for found in ledger.store.read(query, {"spec": text})["study"].to_pylist():
        if ledger.studies[found].runs == runs:
            return found, {}
    study = new_id("s")
    members = [
        {"study": study, "position": position, "role": role, "run": run, "reused": reused}
        for position, (role, run, reused) in enumerate(plan)
    ]
    head = {"study": [study], "time": [began], "kind": [spec.kind], "title": [""], "spec": [text]}
    event = {"study": [study], "time": [began], "type": ["created"], "payload": ["{}"]}
    return study, {
        "study": pa.table(head),
        "study_event": pa.table(event),
        "study_run": pa.Table.from_pylist(members, STUDY_RUN),
    }


_TIME = pa.timestamp("us", "UTC")
_EVENT = pa.schema(
    [
        ("run", pa.string()),
        ("time", _TIME),
        ("type", pa.string()),
        ("attempt", pa.int32()),
        ("payload", pa.string()),
    ]
)
_SUMMARY = pa.schema([("run", pa.string()), ("name", pa.string()), ("value", pa.float64())])
