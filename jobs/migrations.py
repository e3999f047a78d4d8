"""The database's own tables, as numbered migrations that each commit alone and are followed by a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from jobs.folder import LabUnusableError

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE run (
        run VARCHAR, time TIMESTAMPTZ, kind VARCHAR, hash VARCHAR, title VARCHAR, spec VARCHAR, inputs VARCHAR);
    CREATE TABLE run_event (
        seq BIGINT, run VARCHAR, time TIMESTAMPTZ, type VARCHAR, attempt INTEGER, payload VARCHAR);
    CREATE TABLE study (study VARCHAR, time TIMESTAMPTZ, kind VARCHAR, title VARCHAR, spec VARCHAR);
    CREATE TABLE study_event (seq BIGINT, study VARCHAR, time TIMESTAMPTZ, type VARCHAR, payload VARCHAR);
    CREATE TABLE study_run (study VARCHAR, position INTEGER, role VARCHAR, run VARCHAR, reused BOOLEAN);
    CREATE TABLE batch (run VARCHAR, first BIGINT, count BIGINT);
    CREATE TABLE summary (run VARCHAR, name VARCHAR, value DOUBLE);
    CREATE VIEW run_state AS
        SELECT
            run,
            arg_max(type, seq) FILTER (type NOT IN ('deleted', 'purged')) AS state,
            arg_max(payload, seq) FILTER (type NOT IN ('deleted', 'purged')) AS payload,
            max(attempt) AS attempt,
            arg_max(payload ->> '$.device', seq) FILTER (type = 'running') AS device,
            arg_min((payload ->> '$.threads')::INTEGER, seq) FILTER (type = 'running') AS threads,
            arg_max((payload ->> '$.stalled')::INTEGER, seq) AS stalled,
            min(time) FILTER (type = 'running') AS started,
            max(time) FILTER (type IN ('done', 'failed', 'cancelled')) AS ended,
            bool_or(type = 'deleted') AS deleted,
            bool_or(type = 'purged') AS purged
        FROM run_event GROUP BY run;
    CREATE VIEW run_current AS
        SELECT
            run.run, run.kind, run.title, run.hash, run_state.state, run.time AS created, run.rowid AS ordinal,
            run_state.started,
            CASE WHEN run_state.state IN ('done', 'failed', 'cancelled') THEN run_state.ended END AS ended,
            run_state.attempt, run_state.device, run_state.threads, run_state.stalled, run_state.payload,
            run_state.deleted, run_state.purged, run.spec, run.inputs
        FROM run JOIN run_state USING (run);
    CREATE VIEW study_current AS
        SELECT
            study.study, study.kind, study.title, study.time AS created, study.spec,
            coalesce(last.type, '') = 'cancelled' AS cancelled,
            study.study IN (SELECT study FROM study_event WHERE type = 'deleted') AS deleted
        FROM study LEFT JOIN (
            SELECT study, arg_max(type, seq) AS type FROM study_event
            WHERE type IN ('created', 'cancelled', 'resumed') GROUP BY study
        ) last USING (study);
    """,
)
"""SQL scripts; the version of a database is how many of them it has had."""

_VERSION_TABLE = "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER, time TIMESTAMPTZ)"


class DatabaseUnusableError(LabUnusableError):
    """The file cannot be served by this version of the lab; the message is one clear line."""


def migrate(connection: duckdb.DuckDBPyConnection, path: Path, migrations: Sequence[str] = MIGRATIONS) -> int:
    """Bring a database to the newest version and return that version.

    Each migration is a transaction of its own, followed by a checkpoint, so that a write-ahead log never holds
    a change of schema (replaying those has been a source of faults in DuckDB).

    Raises:
        DatabaseUnusableError: The file was written by a newer version of the lab.
    """
    connection.execute(_VERSION_TABLE)
    [(found,)] = connection.sql("SELECT coalesce(max(version), 0) FROM schema_version").fetchall()
    if found > len(migrations):
        message = (
            f"{path} was written by a newer version of Symmetry Lab (database version {found}; this one reads up "
            f"to {len(migrations)}): upgrade with `pip install --upgrade symmetry-lab`, or use another folder"
        )
        raise DatabaseUnusableError(message)
    for version in range(found + 1, len(migrations) + 1):
        done = f"INSERT INTO schema_version VALUES ({version}, now())"  # noqa: S608  (an integer)
        _alone(connection, f"{migrations[version - 1]}; {done}")
    return len(migrations)


def fit_record_tables(connection: duckdb.DuckDBPyConnection, tables: Mapping[str, pa.Schema]) -> None:
    """Create the record tables that kinds of runs declare, and add columns that a kind has gained since.

    Raises:
        DatabaseUnusableError: A column has another type than its kind declares.
    """
    known = _columns(connection)
    for table, schema in tables.items():
        wanted = record_columns(connection, schema)
        if table not in known:
            columns = ", ".join(f'"{name}" {kind}' for name, kind in wanted.items())
            _alone(connection, f'CREATE TABLE "{table}" ({columns})')
            continue
        for name, kind in wanted.items():
            if name not in known[table]:
                _alone(connection, f'ALTER TABLE "{table}" ADD COLUMN "{name}" {kind}')
            elif known[table][name] != kind:
                message = (
                    f"table {table}, column {name}: the database holds {known[table][name]} but this version of "
                    f"Symmetry Lab writes {kind}; use another folder, or the version that wrote this one"
                )
                raise DatabaseUnusableError(message)


def record_columns(connection: duckdb.DuckDBPyConnection, schema: pa.Schema) -> dict[str, str]:
    """Column names and DuckDB types of a record table, the run's id first."""
    empty = connection.from_arrow(schema.empty_table())
    return {"run": "VARCHAR", **dict(zip(empty.columns, map(str, empty.types), strict=True))}


def _columns(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, str]]:
    """Column names and types of every table."""
    found: dict[str, dict[str, str]] = {}
    query = "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal ORDER BY column_index"
    for table, column, kind in connection.sql(query).fetchall():
        found.setdefault(table, {})[column] = kind
    return found


def _alone(connection: duckdb.DuckDBPyConnection, script: str) -> None:
    """Run a script in a transaction of its own and write the database file out."""
    connection.begin()
    try:
        connection.execute(script)
    except duckdb.Error:
        connection.rollback()
        raise
    connection.commit()
    connection.execute("CHECKPOINT")
