"""The one owner of the database file: a writer thread that commits what has queued up, and cursors that read."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import duckdb
import pyarrow as pa

from jobs.folder import LabUnusableError
from jobs.migrations import DatabaseUnusableError, fit_record_tables, migrate

Result = TypeVar("Result")
Connection = duckdb.DuckDBPyConnection
Batch = tuple[str, pa.RecordBatch]
"""A record table's name and rows for it."""

GROUP_LIMIT = 256
"""Most changes in one commit."""


class StoreFailedError(LabUnusableError):
    """The database cannot be written any more; the message is one clear line."""


class BatchRefusedError(ValueError):
    """A batch of records does not fit its table; the message says where."""


@dataclass(frozen=True)
class _Change:
    """Something to do inside a transaction, and where its result goes."""

    apply: Callable[[Connection], Any]
    future: Future[Any]


@dataclass(frozen=True)
class _Ingest:
    """Numbered batches of a run, fitted to their tables, and where the count of stored ones goes."""

    run: str
    first: int
    batches: Sequence[tuple[str, pa.Table]]
    future: Future[int]


class Store:
    """DuckDB file with append-only tables; see `jobs.migrations` for their columns."""

    def __init__(self, path: Path, connection: Connection, tables: Mapping[str, pa.Schema]) -> None:
        self.path = path
        self.tables = dict(tables)
        self.failure: StoreFailedError | None = None
        self._connection = connection
        self._readers = connection.cursor()
        self._readers_lock = threading.Lock()
        self._changes: queue.SimpleQueue[_Change | _Ingest | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        counts = connection.sql("SELECT run, max(first + count) FROM batch GROUP BY run").fetchall()
        self._acknowledged: dict[str, int] = dict(counts)
        self._uncommitted: dict[str, int] = {}
        events = "SELECT seq FROM run_event UNION ALL SELECT seq FROM study_event"
        [(self._sequence,)] = connection.sql(f"SELECT coalesce(max(seq), 0) FROM ({events})").fetchall()  # noqa: S608
        self._writer = threading.Thread(target=self._serve, name="store-writer", daemon=True)
        self._writer.start()

    @classmethod
    def open(cls, path: Path, tables: Mapping[str, pa.Schema]) -> Self:
        """Open or create a database file, bring it to this version and start the writer.

        Args:
            path: The file; its folder exists.
            tables: Record tables and their columns, without the run's id.

        Raises:
            DatabaseUnusableError: The file is from a newer version, is locked by another process, or cannot be read
                or written. The message is one line.
        """
        try:
            connection = duckdb.connect(str(path))
            try:
                connection.execute("SET TimeZone = 'UTC'")
                migrate(connection, path)
                fit_record_tables(connection, tables)
                return cls(path, connection, tables)
            except BaseException:
                connection.close()
                raise
        except duckdb.Error as error:
            message = f"the database {path} cannot be opened: {first_line(error)}"
            raise DatabaseUnusableError(message) from error

    @property
    def alive(self) -> bool:
        """Whether the writer thread runs and no commit has failed for good."""
        return self._writer.is_alive() and self.failure is None

    def write(self, change: Callable[[Connection], Result]) -> Future[Result]:
        """Queue a change; its future resolves after the commit.

        The change may run twice (alone, when a neighbour in its group failed), so it must act on the
        connection only.
        """
        return self._queue(_Change(change, Future()))

    def ingest(self, run: str, first: int, batches: Sequence[Batch]) -> Future[int]:
        """Store numbered batches of a run, each number once, and resolve to how many it now has.

        Numbers that are stored already are dropped; batches beyond a gap are not stored, and the answer tells
        the sender where to go on.

        Raises:
            BatchRefusedError: A batch names an unknown table or does not fit it.
        """
        fitted = [(table, fit_rows(self.tables, run, table, rows)) for table, rows in batches]
        return self._queue(_Ingest(run, first, fitted, Future()))

    def _queue(self, entry: _Change | _Ingest) -> Future[Any]:
        """Hand something to the writer."""
        with self._closing:
            if self._closed:
                message = f"the database {self.path} is closed"
                raise StoreFailedError(message)
            self._changes.put(entry)
        return entry.future

    def acknowledged(self, run: str) -> int:
        """How many batches of a run are committed."""
        return self._acknowledged.get(run, 0)

    def append_event(
        self,
        connection: Connection,
        run: str,
        kind: str,
        *,
        attempt: int = 0,
        payload: Mapping[str, Any] | None = None,
    ) -> None:
        """Append an event of a run; to be called inside a change."""
        self._sequence += 1
        row = [self._sequence, run, datetime.now(UTC), kind, attempt, json.dumps(payload or {})]
        connection.execute("INSERT INTO run_event VALUES (?, ?, ?, ?, ?, ?)", row)

    def append_study_event(
        self, connection: Connection, study: str, kind: str, payload: Mapping[str, Any] | None = None
    ) -> None:
        """Append an event of a study; to be called inside a change."""
        self._sequence += 1
        row = [self._sequence, study, datetime.now(UTC), kind, json.dumps(payload or {})]
        connection.execute("INSERT INTO study_event VALUES (?, ?, ?, ?, ?)", row)

    def adopt(self, rows: Mapping[str, pa.Table]) -> Future[None]:
        """Add whole tables that came from elsewhere in one commit.

        Events have no `seq` yet: they are numbered here, in the order given. Runs must be new to this store.
        """

        def change(connection: Connection) -> None:
            for table, content in rows.items():
                if table in {"run_event", "study_event"}:
                    numbers = pa.array(
                        range(self._sequence + 1, self._sequence + 1 + len(content)), pa.int64()
                    )
                    self._sequence += len(content)
                    insert(connection, table, content.add_column(0, "seq", numbers))
                else:
                    insert(connection, table, content)
            for row in rows["batch"].to_pylist() if "batch" in rows else []:
                count = row["first"] + row["count"]
                self._uncommitted[row["run"]] = max(count, self._uncommitted.get(row["run"], 0))

        return self.write(change)

    def read(self, sql: str, params: Mapping[str, Any] | Sequence[Any] | None = None) -> pa.Table:
        """Rows of a query, seen by a cursor of its own; times are UTC."""
        with self._readers_lock:
            cursor = self._readers.cursor()
        try:
            result: pa.Table = cursor.sql(sql, params=params).to_arrow_table()
        finally:
            cursor.close()
        return result

    def close(self) -> None:
        """Commit what is queued, write the file out and let go of it."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._changes.put(None)
        self._writer.join()
        try:
            if self.failure is None:
                self._connection.execute("CHECKPOINT")
        finally:
            self._readers.close()
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        """Writer thread: take what has queued up, commit it as one group, go on."""
        while (change := self._changes.get()) is not None:
            group = [change]
            last = False
            while len(group) < GROUP_LIMIT and not self._changes.empty():
                more = self._changes.get()
                if more is None:
                    last = True
                    break
                group.append(more)
            self._commit(group)
            if last:
                return

    def _commit(self, group: Sequence[_Change | _Ingest]) -> None:
        """Apply a group in one transaction; when one of them fails, each again in its own."""
        if self.failure is not None:
            for change in group:
                change.future.set_exception(self.failure)
            return
        try:
            results = self._transact(group)
        except Exception as error:  # noqa: BLE001  (whatever it is belongs to the caller who waits)
            self._uncommitted.clear()
            self._refuse(group, error)
            return
        self._acknowledged.update(self._uncommitted)
        self._uncommitted.clear()
        for change, result in zip(group, results, strict=True):
            change.future.set_result(result)

    def _transact(self, group: Sequence[_Change | _Ingest]) -> list[Any]:
        """Begin, apply, commit; on any failure the transaction is gone."""
        self._connection.begin()
        try:
            counts = self._store_batches([entry for entry in group if isinstance(entry, _Ingest)])
            results = [
                next(counts) if isinstance(entry, _Ingest) else entry.apply(self._connection)
                for entry in group
            ]
        except BaseException:
            # After a fatal error there is no transaction left to roll back.
            with contextlib.suppress(duckdb.Error):
                self._connection.rollback()
            raise
        try:
            self._connection.commit()
        except duckdb.Error as error:
            # There is one writer, so that nothing conflicts: a commit fails when the file cannot be written.
            raise self._failed(error) from error
        return results

    def _store_batches(self, ingests: Sequence[_Ingest]) -> Iterator[int]:
        """Insert the new batches of a group with one statement per table; yields each run's count, in order."""
        parts: dict[str, list[pa.Table]] = {}
        marks: dict[str, list[Any]] = {"run": [], "first": [], "count": []}
        counts = []
        for entry in ingests:
            known = self._uncommitted.get(entry.run, self.acknowledged(entry.run))
            fresh = entry.batches[known - entry.first :] if entry.first <= known else []
            for table, rows in fresh:
                parts.setdefault(table, []).append(rows)
            if fresh:
                for column, value in zip(marks.values(), (entry.run, known, len(fresh)), strict=True):
                    column.append(value)
                self._uncommitted[entry.run] = known + len(fresh)
            counts.append(known + len(fresh))
        for table, tables in parts.items():
            insert(self._connection, table, pa.concat_tables(tables))
        if parts:
            insert(self._connection, "batch", pa.table(marks))
        return iter(counts)

    def _refuse(self, group: Sequence[_Change | _Ingest], error: Exception) -> None:
        """Tell the waiting callers: the store is broken, or this one change is, or try them one by one."""
        if isinstance(error, duckdb.FatalException | duckdb.IOException):
            error = self._failed(error)
        if isinstance(error, StoreFailedError) or len(group) == 1:
            self.failure = error if isinstance(error, StoreFailedError) else self.failure
            for change in group:
                change.future.set_exception(error)
        else:
            for change in group:
                self._commit([change])

    def _failed(self, error: duckdb.Error) -> StoreFailedError:
        """What to say when the file cannot be written."""
        return StoreFailedError(f"the database {self.path} cannot be written: {first_line(error)}")


def fit_rows(tables: Mapping[str, pa.Schema], run: str, table: str, rows: pa.RecordBatch) -> pa.Table:
    """A batch with the run's id before it and exactly its table's columns and types.

    Raises:
        BatchRefusedError: There is no such table, or the batch does not fit it.
    """
    schema = tables.get(table)
    if schema is None:
        message = f"table: {table!r} is not a record table; there are {', '.join(sorted(tables))}"
        raise BatchRefusedError(message)
    content = pa.Table.from_batches([rows])
    if set(content.column_names) <= set(schema.names):
        for column in schema:  # an earlier version did not know of it
            if column.nullable and column.name not in content.column_names:
                content = content.append_column(column, pa.nulls(len(content), column.type))
    try:
        cast = content.select(schema.names).cast(schema)
    except (KeyError, ValueError, TypeError, pa.ArrowException) as error:
        message = f"table {table}: the rows have {rows.schema}, expected {schema}: {first_line(error)}"
        raise BatchRefusedError(message) from error
    return cast.add_column(0, "run", pa.repeat(run, len(cast)))


def insert(connection: Connection, table: str, rows: pa.Table) -> None:  # noqa: ARG001  (read by its name)
    """Append Arrow rows by the names of their columns: a table that gained one has it at its end, wherever its kind does."""
    connection.execute(f'INSERT INTO "{table}" BY NAME SELECT * FROM rows')  # noqa: S608  (a table's name)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for a message of one line."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
