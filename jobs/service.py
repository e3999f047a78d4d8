"""The lab as one object: its folder, store, runs and dispatcher, with the verbs that pages, API and CLI share."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Self

import duckdb
import pyarrow as pa

from jobs import exporting, importing, queries, registry
from jobs.dispatcher import Dispatcher, Place
from jobs.executors import Executor
from jobs.executors.local import LocalExecutor
from jobs.folder import LabFolder
from jobs.importing_offline import Imported
from jobs.keys import Keys
from jobs.ledger import Ledger
from jobs.ledger_rows import Move, Run
from jobs.pace import Progress
from jobs.planning import plan
from jobs.specs import RunSpec, SpecHash, StudySpec
from jobs.states import FINISHED, NotAllowedError, State
from jobs.store import Store
from jobs.study_clock import StudyClock, StudyProgress


@dataclass(frozen=True)
class Purged:
    """What a purge removed."""

    runs: int
    bytes: int


class Service:
    """One lab folder, owned by this process from `open` to `close`. Every method may be called from any thread."""

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        slots: int | None = None,
        executor: Executor | None = None,
        lease: float = 30.0,
        grace: float = 30.0,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """Say which lab; nothing is touched before `open`.

        Args:
            folder: The lab's folder, else `$SYMLAB_LAB`, else `./lab`.
            slots: Runs at once; by default what the machine has room for.
            executor: What starts workers; by default processes of this machine.
            lease: Seconds without a word after which a worker counts as lost.
            grace: Seconds between asking a worker to end and killing it.
            on_failure: Called once when the database cannot be written any more; `store.failure` says why.
        """
        self.lab = LabFolder.find(folder)
        self.store: Store
        self.keys: Keys
        self.ledger: Ledger
        self.dispatcher: Dispatcher
        self._executor = executor or LocalExecutor(slots)
        self._watching: dict[str, Any] = {"lease": lease, "grace": grace, "on_failure": on_failure}
        self._lock: BinaryIO | None = None
        self._clock: StudyClock

    @property
    def folder(self) -> Path:
        """The lab's folder."""
        return self.lab.path

    def open(self) -> Self:
        """Own the folder, bring the database up to date, take over running workers and start the dispatcher.

        Raises:
            LabUnusableError: The folder has another owner, is from a newer version, or cannot be written; one line.
        """
        self._lock = self.lab.own()
        try:
            self.keys = Keys.load(self.lab.secret)
            self.store = Store.open(self.lab.database, registry.tables())
            try:
                self._dispatch()
            except BaseException:
                self.store.close()
                raise
        except BaseException:
            self._lock.close()
            self._lock = None
            raise
        return self

    def _dispatch(self) -> None:
        """Read what there is, and look after it."""
        self.ledger = Ledger(self.store, self._has_its_files)
        place = Place(self.lab.runs, self.lab.data, self.lab.address_file, self.keys.worker_token)
        self.dispatcher = Dispatcher(self.ledger, place, self._executor, **self._watching)
        self._clock = StudyClock(self.store, self.dispatcher)
        self.dispatcher.start()

    def announce(self, address: str) -> None:
        """Write down where this process listens, for workers and clients."""
        self.lab.announce(address, datetime.now(UTC).isoformat(timespec="seconds"))

    def close(self) -> None:
        """Stop workers at a checkpoint, write everything out and let go of the folder."""
        if self._lock is None:
            return
        try:
            self.dispatcher.stop()
        finally:
            self.store.close()
            self.lab.retract()
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(
        self, spec: StudySpec | RunSpec | Mapping[str, Any] | str, *, fresh: bool = False, title: str = ""
    ) -> str:
        """Queue a study, or a single run as a study of its own; runs that exist already are reused.

        Args:
            spec: A spec, or the dictionary or JSON text of one.
            fresh: Make every run anew.
            title: A name for people.

        Returns:
            The study's id.

        Raises:
            ValidationError: Wrong fields, each named with its value and what is accepted; nothing is queued.
            NotAllowedError: A single run reads one that is neither done nor on its way.
        """
        checked = spec if isinstance(spec, StudySpec | RunSpec) else registry.spec(spec)
        if isinstance(checked, RunSpec):
            registry.kind_of(checked).check_inputs(checked, self._known(checked.inputs()))
        return self.ledger.create(checked, plan(checked), title=title, fresh=fresh)

    def _known(self, inputs: Sequence[SpecHash]) -> dict[SpecHash, RunSpec]:
        """Specs of the runs here that a new run would read."""
        with self.ledger.lock:
            runs = {key: self.ledger.reusable(key, whole=True) for key in inputs}
        return {
            key: registry.run_spec(queries.run(self.store, run)["spec"], stored=True)
            for key, run in runs.items()
            if run
        }

    def cancel(self, ids: Sequence[str]) -> list[str]:
        """Cancel runs, and of studies those unfinished runs that no other study waits for; returns their ids.

        Raises:
            UnknownError: An id names neither a run nor a study.
        """
        with self.ledger.lock:
            chosen = self._cancellable(ids)
            moves = [
                Move(
                    run.run,
                    State.CANCELLED if run.state is State.QUEUED else State.CANCELLING,
                    {"reason": "on request"},
                )
                for run in chosen
            ]
            self.ledger.move(moves, studies=self.ledger.named_studies(ids), cancelled=True)
            return [move.run for move in moves]

    def resume(self, ids: Sequence[str]) -> list[str]:
        """Queue cancelled and failed runs again, with those they read; they go on from their checkpoints.

        Raises:
            UnknownError: An id names neither a run nor a study, or a run reads one that is deleted.
        """
        with self.ledger.lock:
            chosen: dict[str, Run] = {}
            waiting = self.ledger.members(ids)
            while waiting:
                run = waiting.pop()
                if run.state in {State.FAILED, State.CANCELLED} and run.run not in chosen:
                    chosen[run.run] = run
                    waiting += [self.ledger.get(source) for source in run.inputs.values()]
            order = [run for run in self.ledger.runs if run in chosen]
            moves = [Move(run, State.QUEUED, {"reason": "resumed", "stalled": 0}) for run in order]
            self.ledger.move(moves, studies=self.ledger.named_studies(ids))
            return order

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Delete finished runs, and studies with the runs that no other has; files stay until `purge`.

        Returns:
            The ids of the deleted runs.

        Raises:
            UnknownError: An id names neither a run nor a study.
            NotAllowedError: One of them is not finished or is needed; nothing is deleted then.
        """
        return self.ledger.delete(ids)

    def purge(self) -> Purged:
        """Remove the folders of deleted runs for good."""
        with self.ledger.transfer:
            with self.ledger.lock:
                runs = [run.run for run in self.ledger.runs.values() if run.deleted and not run.purged]
            size = 0
            for folder in (self.run_folder(run) for run in runs):
                if folder.exists():
                    size += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
                    shutil.rmtree(folder)
            self.ledger.mark_purged(runs)
            return Purged(len(runs), size)

    def import_folder(self, path: str | Path) -> Imported:
        """Store what the offline worker made, or what `export` wrote; what is known already is left as it is.

        Raises:
            ImportRefusedError: The folder holds neither, nothing that is finished, or something damaged; one line.
        """
        return importing.import_path(self.ledger, self.lab, Path(path))

    def export(self, ids: Sequence[str], path: str | Path) -> Path:
        """Write studies and runs to a folder, or to a file where the name ends in `.zip`; returns its path.

        Raises:
            UnknownError: An id names neither a run nor a study.
            FileExistsError: There is something of that name.
        """
        return exporting.export(self.ledger, self.lab, ids, Path(path), self.results)

    def results(self, study: str) -> dict[str, pa.Table]:
        """Result tables of a study by name; none for a single run.

        Raises:
            UnknownError: There is no such study.
        """
        found = queries.study(self.store, study)
        if found["kind"] not in registry.studies():
            return {}
        spec = registry.study_spec(found["spec"], stored=True)
        module = registry.study_of(spec)
        runs = list(found["roles"].values())
        tables = {table: queries.records(self.store, table, runs) for table in module.RECORDS}
        return module.results(spec, found["roles"], tables)

    def progress(self, run: str) -> Progress | None:
        """How far a run with a worker is; none for others, and before the worker's first word."""
        return self.dispatcher.progress(run)

    def study_progress(self, study: str) -> StudyProgress:
        """How far a study is and how long it will still take.

        Raises:
            UnknownError: There is no such study.
        """
        return self._clock.progress(study)

    def ready(self) -> dict[str, bool]:
        """Whether the store answers, the writer writes and the dispatcher looks after its workers; `ready` is all."""
        parts = {
            "store": self._store_answers(),
            "writer": self.store.alive,
            "dispatcher": self.dispatcher.alive,
        }
        return {"ready": all(parts.values()), **parts}

    def run_folder(self, run: str) -> Path:
        """Where a run's files are: log.txt, environment.json and its artifacts."""
        return self.lab.runs / run

    def _store_answers(self) -> bool:
        try:
            self.store.read("SELECT 1")
        except duckdb.Error:
            return False
        return True

    def _cancellable(self, ids: Sequence[str]) -> list[Run]:
        """Unfinished runs among these, without those that another study or run waits for."""
        named = set(ids)
        open_states = set(State) - FINISHED - {State.CANCELLING}
        chosen = {run.run for run in self.ledger.members(ids) if run.state in open_states}
        # A run is always younger than those it reads: youngest first, each finds its readers decided.
        for run in [run for run in reversed(self.ledger.runs.values()) if run.run in chosen - named]:
            users = self.ledger.users(run.run)
            shared = any(not user.cancelled and user.study not in named for user in users)
            if shared or any(reader.run not in chosen for reader in self.ledger.readers(run.run)):
                chosen.remove(run.run)
        return [run for run in self.ledger.runs.values() if run.run in chosen]

    def _has_its_files(self, run: str) -> bool:
        """Whether all artifacts of a run are still in its folder."""
        artifacts = queries.records(self.store, "artifact", [run])["path"].to_pylist()
        return all(self.lab.inside(run, path) for path in artifacts)


_current: Service | None = None
_current_lock = threading.Lock()


def start(folder: str | Path | None = None, **options: Any) -> Service:  # noqa: ANN401  (those of Service)
    """Open the lab of this process; pages find it with `current`.

    Raises:
        NotAllowedError: This process serves a lab already.
        LabUnusableError: See `Service.open`.
    """
    global _current  # noqa: PLW0603  (pages are scripts without arguments; they need one known place)
    with _current_lock:
        if _current is not None:
            message = f"this process serves the lab {_current.folder} already"
            raise NotAllowedError(message)
        _current = Service(folder, **options).open()
        return _current


def current() -> Service:
    """The lab of this process.

    Raises:
        LookupError: None is open.
    """
    if _current is None:
        message = "no lab is open in this process; start one with `symlab up`"
        raise LookupError(message)
    return _current


def stop() -> None:
    """Close the lab of this process, if there is one."""
    global _current  # noqa: PLW0603
    with _current_lock:
        if _current is not None:
            _current.close()
            _current = None
