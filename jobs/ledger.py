"""The runs and studies as their owner keeps them in mind, equal to the tables after every commit.

All changes of state go through here: one lock, one check of the move, one commit, and only then the memory.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from jobs.ledger_rows import STUDY_RUN, Move, Run, Study, insert_summary, new_id, run_rows
from jobs.specs import PlannedRun, RunSpec, SpecHash, StudySpec, canonical_json, spec_hash
from jobs.states import FINISHED, NotAllowedError, State, UnknownError, check_move
from jobs.store import Connection, Store, insert


class Ledger:
    """Runs and studies, their moves and the search for runs to reuse. Safe from every thread."""

    def __init__(self, store: Store, is_whole: Callable[[str], bool] = lambda _run: True) -> None:
        """Read the tables.

        Args:
            store: Where the tables are.
            is_whole: Whether a done run's files are still there, so that others can read its results.
        """
        self.store = store
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        """Notified after every change."""
        self.transfer = threading.Lock()
        """Held while run folders are brought in or removed, which may take minutes; `lock` is free meanwhile."""
        self.runs: dict[str, Run] = {}
        self.studies: dict[str, Study] = {}
        self._is_whole = is_whole
        self._by_hash: dict[SpecHash, list[str]] = {}
        self.load()

    def get(self, run: str) -> Run:
        """A run by its id.

        Raises:
            UnknownError: There is no such run, or it is deleted.
        """
        found = self.runs.get(run)
        if found is None or found.deleted:
            message = f"there is no run {run!r}"
            raise UnknownError(message)
        return found

    def members(self, ids: Iterable[str]) -> list[Run]:
        """The runs of some run and study ids, each once.

        Raises:
            UnknownError: An id names neither a run nor a study.
        """
        found: dict[str, Run] = {}
        for name in ids:
            study = self.studies.get(name)
            if study is None or study.deleted:
                found[name] = self.get(name)
            else:
                found |= {run: self.runs[run] for run in study.runs if not self.runs[run].deleted}
        return list(found.values())

    def named_studies(self, ids: Iterable[str]) -> list[Study]:
        """The studies among some ids of runs and studies."""
        return [self.studies[name] for name in ids if name in self.studies and not self.studies[name].deleted]

    def users(self, run: str) -> list[Study]:
        """Studies that are not deleted and contain a run."""
        return [study for study in self.studies.values() if not study.deleted and run in study.runs]

    def readers(self, run: str) -> list[Run]:
        """Unfinished runs that read a run's results."""
        return [
            other
            for other in self.runs.values()
            if run in other.inputs.values() and other.state not in FINISHED and not other.deleted
        ]

    def move(
        self,
        moves: Sequence[Move],
        *,
        attempt: int | None = None,
        studies: Iterable[Study] = (),
        cancelled: bool = False,
    ) -> None:
        """Take runs to their next states in one commit.

        Args:
            moves: Runs and states; all of them happen or none.
            attempt: The attempt that starts with this move, when it is a start.
            studies: Studies that are cancelled or resumed by it.
            cancelled: Which of both.

        Raises:
            NotAllowedError: A move that does not follow the run's state.
            StoreFailedError: The database cannot be written.
        """
        with self.changed:
            for move in moves:
                check_move(move.run, self.runs[move.run].state, move.state)

            def change(connection: Connection) -> None:
                for move in moves:
                    number = self.runs[move.run].attempt if attempt is None else attempt
                    self.store.append_event(
                        connection, move.run, move.state, attempt=number, payload=dict(move.payload)
                    )
                    insert_summary(connection, move)
                for study in studies:
                    kind = "cancelled" if cancelled else "resumed"
                    self.store.append_study_event(connection, study.study, kind)

            self.store.write(change).result()
            for move in moves:
                run = self.runs[move.run]
                run.state = move.state
                run.attempt = run.attempt if attempt is None else attempt
                run.threads = run.threads or move.payload.get("threads")
                run.stalled = int(move.payload.get("stalled", run.stalled))
            for study in studies:
                study.cancelled = cancelled
            self.changed.notify_all()

    def create(
        self,
        spec: StudySpec | RunSpec,
        planned: Sequence[PlannedRun],
        *,
        title: str = "",
        fresh: bool = False,
    ) -> str:
        """Store a study and those of its runs that neither exist nor are on their way; returns the study's id.

        Args:
            spec: The study's spec, or the one run's.
            planned: Its runs, each after those it reads.
            title: The person's name for it.
            fresh: Make every run anew.

        Raises:
            NotAllowedError: A run reads one that is not in the study, not done and not on its way.
        """
        with self.changed:
            study = Study(new_id("s"))
            now = datetime.now(UTC)
            by_hash = {} if fresh else self.reuse(planned)
            created: dict[SpecHash, tuple[Run, RunSpec]] = {}
            rows: list[dict[str, Any]] = []
            for position, plan in enumerate(planned):
                key = spec_hash(plan.spec)
                if key not in by_hash:
                    run = Run(new_id("r"), plan.spec.kind, key, self._inputs(plan, by_hash), now)
                    created[key] = run, plan.spec
                    by_hash[key] = run.run
                row = {
                    "position": position,
                    "role": plan.role,
                    "run": by_hash[key],
                    "reused": key not in created,
                }
                rows.append(row)
            study.runs = list(dict.fromkeys(row["run"] for row in rows))
            self._commit_study(study, spec, title, list(created.values()), rows)
            self.studies[study.study] = study
            for run, _ in created.values():
                self._add(run)
            self.changed.notify_all()
            return study.study

    def reusable(self, key: SpecHash, *, whole: bool = False) -> str | None:
        """A run with this spec that is done, else one that is on its way, else none.

        Args:
            key: The spec's hash.
            whole: Whether a done run must still have its files, for another run to read.
        """
        coming = (
            run.run for run in self._alike(key) if run.state in {State.QUEUED, State.RUNNING, State.LOST}
        )
        return self.done(key, whole=whole) or next(coming, None)

    def done(self, key: SpecHash, *, whole: bool) -> str | None:
        """A run with this spec that is done and, if so asked, still has its files; none if there is none."""
        done = (run.run for run in self._alike(key) if run.state is State.DONE)
        return next((run for run in done if not whole or self._is_whole(run)), None)

    def any(self, key: SpecHash) -> str | None:
        """A run with this spec in any state, a done one first, then one on its way; none if there is none."""
        others = (run.run for run in self._alike(key))
        return self.reusable(key) or next(others, None)

    def _alike(self, key: SpecHash) -> list[Run]:
        """Runs with this spec that are not deleted."""
        return [self.runs[run] for run in self._by_hash.get(key, []) if not self.runs[run].deleted]

    def reuse(self, planned: Sequence[PlannedRun]) -> dict[SpecHash, str]:
        """Existing runs that may stand for planned ones.

        Readers come first: what they read needs its files only when they are to be computed.
        """
        found: dict[SpecHash, str] = {}
        read: set[SpecHash] = set()
        for plan in reversed(planned):
            key = spec_hash(plan.spec)
            known = self.reusable(key, whole=key in read)
            if known is None:
                read.update(plan.spec.inputs())
            else:
                found[key] = known
        return found

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Mark runs, and studies with the runs that no other has, as deleted; files stay until a purge.

        Returns:
            The ids of the deleted runs.

        Raises:
            UnknownError: An id names neither a run nor a study.
            NotAllowedError: One of them is not finished, or unfinished runs read it; nothing is deleted then.
        """
        with self.changed:
            studies = [
                self.studies[name] for name in ids if name in self.studies and not self.studies[name].deleted
            ]
            going = {study.study for study in studies}
            runs = {name: self.get(name) for name in ids if name not in self.studies}
            for study in studies:
                own = [run for run in study.runs if {user.study for user in self.users(run)} <= going]
                runs |= {run: self.runs[run] for run in own if not self.runs[run].deleted}
            self._check_deletable(runs)

            def change(connection: Connection) -> None:
                for study in studies:
                    self.store.append_study_event(connection, study.study, "deleted")
                for run in runs:
                    self.store.append_event(connection, run, "deleted", attempt=runs[run].attempt)

            self.store.write(change).result()
            for study in studies:
                study.deleted = True
            for run in runs.values():
                run.deleted = True
            self.changed.notify_all()
            return list(runs)

    def mark_purged(self, runs: Sequence[str]) -> None:
        """Record that the folders of deleted runs are gone."""
        with self.changed:

            def change(connection: Connection) -> None:
                for run in runs:
                    self.store.append_event(connection, run, "purged", attempt=self.runs[run].attempt)

            self.store.write(change).result()
            for run in runs:
                self.runs[run].purged = True

    def _inputs(self, plan: PlannedRun, by_hash: Mapping[SpecHash, str]) -> dict[SpecHash, str]:
        """The runs that a planned run reads: of its own study first."""
        inputs: dict[SpecHash, str] = {}
        for key in plan.spec.inputs():
            found = by_hash.get(key) or self.reusable(key, whole=True)
            if found is None:
                message = f"source: {key} is the hash of no run here that is done or on its way; run that spec first"
                raise NotAllowedError(message)
            inputs[key] = found
        return inputs

    def _check_deletable(self, runs: Mapping[str, Run]) -> None:
        """Refuse to delete what is unfinished or needed."""
        for run in runs.values():
            if run.state not in FINISHED:
                message = f"run {run.run} is {run.state}: cancel it before deleting it"
                raise NotAllowedError(message)
            needed = [reader.run for reader in self.readers(run.run) if reader.run not in runs]
            if needed:
                message = (
                    f"run {run.run} is read by {', '.join(needed)}, which is not finished: cancel that first"
                )
                raise NotAllowedError(message)

    def _commit_study(
        self,
        study: Study,
        spec: StudySpec | RunSpec,
        title: str,
        created: Sequence[tuple[Run, RunSpec]],
        rows: Sequence[Mapping[str, Any]],
    ) -> None:
        """One commit with the study, its new runs and their first events."""
        now = datetime.now(UTC)

        def change(connection: Connection) -> None:
            if created:
                insert(connection, "run", run_rows(created))
            for run, _ in created:
                self.store.append_event(connection, run.run, State.QUEUED)
            members = pa.Table.from_pylist([{"study": study.study, **row} for row in rows], schema=STUDY_RUN)
            insert(connection, "study_run", members)
            row = [study.study, now, spec.kind, title, canonical_json(spec)]
            connection.execute("INSERT INTO study VALUES (?, ?, ?, ?, ?)", row)
            self.store.append_study_event(connection, study.study, "created")

        self.store.write(change).result()

    def _add(self, run: Run) -> None:
        """Keep a run in mind."""
        self.runs[run.run] = run
        self._by_hash.setdefault(run.hash, []).append(run.run)

    def load(self) -> None:
        """Read the tables into memory, anew after an import."""
        with self.changed:
            self.runs, self.studies, self._by_hash = {}, {}, {}
            self._read()
            self.changed.notify_all()

    def _read(self) -> None:
        # The ordinal is the order of creation, so that a run is always younger than those it reads.
        query = """
            SELECT run, kind, hash, inputs, created, state, attempt, threads, stalled, deleted, purged
            FROM run_current ORDER BY ordinal
        """
        for row in self.store.read(query).to_pylist():
            row |= {"inputs": json.loads(row["inputs"]), "state": State(row["state"])}
            self._add(Run(**row | {"stalled": row["stalled"] or 0}))
        studies = "SELECT study, cancelled, deleted FROM study_current ORDER BY created"
        for row in self.store.read(studies).to_pylist():
            self.studies[row["study"]] = Study(**row)
        members = "SELECT study, run FROM study_run GROUP BY study, run ORDER BY study, min(position)"
        for row in self.store.read(members).to_pylist():
            if row["run"] in self.runs:  # exports of earlier versions name deleted runs that they leave out
                self.studies[row["study"]].runs.append(row["run"])
