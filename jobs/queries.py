"""Pure reads of the store: the run table, one run, metrics thinned for a chart, studies, records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from jobs.states import STUDY_ORDER, UnknownError
from jobs.store import Store

COLUMNS = (
    "run",
    "kind",
    "title",
    "state",
    "created",
    "started",
    "ended",
    "seconds",
    "attempt",
    "device",
    "error",
    "hash",
)
"""Columns that the run table can be sorted by; any other name is that of a number in the runs' summaries."""

_SECONDS = "date_diff('millisecond', started, coalesce(ended, now())) / 1000.0"
_ERROR = "CASE WHEN state IN ('failed', 'lost') THEN payload ->> '$.error' END"


def runs(
    store: Store,
    *,
    state: str | Sequence[str] | None = None,
    kind: str | Sequence[str] | None = None,
    study: str | None = None,
    text: str = "",
    sort: str = "created",
    descending: bool = True,
    limit: int = 50,
    offset: int = 0,
    metrics: Sequence[str] = (),
) -> pa.Table:
    """One page of the run table, deleted runs left out.

    Args:
        store: Where to read.
        state: Only runs in this state, or in one of these.
        kind: Only runs of this kind, or of one of these.
        study: Only the runs of this study.
        text: Only runs whose id, title or spec contains this, whatever the case.
        sort: One of `COLUMNS`, or the name of a number in the runs' summaries; runs without it come last.
        descending: Largest, or latest, first.
        limit: Rows on a page.
        offset: Rows before the page.
        metrics: Numbers of the summaries to show as columns of their own, under their names.

    Returns:
        The columns of `COLUMNS` (times in UTC, `seconds` from first start to end or now), `spec` and `summary` as
        JSON text, and a float column for each of `metrics`.
    """
    where, params = _filter(state, kind, study, text)
    order = "DESC" if descending else "ASC"
    key, join = f'"{sort}"' if sort in COLUMNS else "sorting.value", ""
    if sort not in COLUMNS:
        join = "LEFT JOIN (SELECT run, value FROM summary WHERE name = $sort) sorting USING (run)"
        params["sort"] = sort
    columns, shown = "", ""
    for index, name in enumerate(metrics):
        columns += f", max(value) FILTER (name = $metric{index}) AS metric{index}"
        shown += f', metric{index} AS "{_quoted(name)}"'
        params[f"metric{index}"] = name
    params |= {"limit": limit, "offset": offset}
    query = f"""
        WITH page AS (
            SELECT run_current.*, {_SECONDS} AS seconds, device, {_ERROR} AS error, {key} AS sort_key
            FROM run_current {join} WHERE {where}
            ORDER BY sort_key {order} NULLS LAST, ordinal LIMIT $limit OFFSET $offset
        ), summaries AS (
            SELECT run, json_group_object(name, CASE WHEN isfinite(value) THEN value END) AS numbers{columns}
            FROM summary WHERE run IN (SELECT run FROM page) GROUP BY run
        )
        SELECT {", ".join(COLUMNS)}, spec, coalesce(summaries.numbers, '{{}}')::VARCHAR AS summary{shown}
        FROM page LEFT JOIN summaries USING (run) ORDER BY sort_key {order} NULLS LAST, ordinal
    """  # noqa: S608  (only names from COLUMNS and fixed text)
    return store.read(query, params)


def count_runs(
    store: Store,
    *,
    state: str | Sequence[str] | None = None,
    kind: str | Sequence[str] | None = None,
    study: str | None = None,
    text: str = "",
) -> int:
    """How many runs `runs` would list over all pages."""
    where, params = _filter(state, kind, study, text)
    query = f"SELECT count(*) AS n FROM run_current WHERE {where}"  # noqa: S608
    return int(store.read(query, params)["n"][0].as_py())


def run(store: Store, run_id: str) -> dict[str, Any]:
    """Everything the store knows about a run.

    Returns:
        The columns of the run table with `spec`, `inputs` (spec hash -> run), `summary` parsed, `deleted`, `purged`,
        `events` (time, type, attempt, payload), `artifacts` (name, path, sha256, bytes) and `studies` (study, title,
        role).

    Raises:
        UnknownError: No run has that id.
    """
    query = f"""
        SELECT *, {_SECONDS} AS seconds, {_ERROR} AS error FROM run_current WHERE run = $run
    """  # noqa: S608
    rows = store.read(query, {"run": run_id}).to_pylist()
    if not rows:
        message = f"there is no run {run_id!r}"
        raise UnknownError(message)
    found: dict[str, Any] = rows[0]
    found |= {name: json.loads(found[name]) for name in ("spec", "inputs", "payload")}
    numbers = store.read("SELECT name, value FROM summary WHERE run = $run ORDER BY name", {"run": run_id})
    found["summary"] = dict(zip(numbers["name"].to_pylist(), numbers["value"].to_pylist(), strict=True))
    events = "SELECT time, type, attempt, payload FROM run_event WHERE run = $run ORDER BY seq"
    found["events"] = [
        event | {"payload": json.loads(event["payload"])}
        for event in store.read(events, {"run": run_id}).to_pylist()
    ]
    found["artifacts"] = _artifacts(store, run_id)
    studies = """
        SELECT study, title, role FROM study_run JOIN study_current USING (study)
        WHERE run = $run AND NOT deleted ORDER BY created, study, position
    """
    found["studies"] = store.read(studies, {"run": run_id}).to_pylist()
    return found


def metrics(
    store: Store, runs: Sequence[str], names: Sequence[str] | None = None, max_points: int = 600
) -> pa.Table:
    """Metric curves, each thinned evenly to at most `max_points` with its first and last point kept.

    Returns:
        Columns run, member, name, step, value, ordered by curve and step.
    """
    chosen = "" if names is None else "AND name IN (SELECT unnest($names))"
    query = f"""
        WITH curve AS (
            SELECT
                run, member, name, step, value,
                row_number() OVER (PARTITION BY run, member, name ORDER BY step) - 1 AS place,
                count(*) OVER (PARTITION BY run, member, name) AS points
            FROM metric WHERE run IN (SELECT unnest($runs)) {chosen}
        )
        SELECT run, member, name, step, value FROM curve
        WHERE points <= $max OR place = 0
            OR place * ($max - 1) // (points - 1) > (place - 1) * ($max - 1) // (points - 1)
        ORDER BY run, name, member, step
    """  # noqa: S608
    params: dict[str, Any] = {"runs": list(runs), "max": max(2, max_points)}
    return store.read(query, params if names is None else params | {"names": list(names)})


def studies(store: Store, *, limit: int = 1000, offset: int = 0) -> pa.Table:
    """Studies that are not deleted, newest first.

    Returns:
        Columns study, kind, title, state, created, ended (none while something is unfinished), runs, done, failed,
        reused (counts of runs) and spec (JSON text).
    """
    query = f"""
        SELECT study, kind, title, state, created, CASE WHEN unfinished = 0 THEN ended END AS ended,
            runs, done, failed, reused, spec
        FROM study_current JOIN ({_STUDY_COUNTS}) USING (study)
        WHERE NOT deleted ORDER BY created DESC, study LIMIT $limit OFFSET $offset
    """  # noqa: S608
    return store.read(query, {"limit": limit, "offset": offset})


def study(store: Store, study_id: str) -> dict[str, Any]:
    """A study with its runs.

    Returns:
        study, kind, title, state, created, ended, deleted, spec (parsed), `runs` (role, run, kind, title, state,
        seconds, error, reused, deleted; in the order of the plan) and `roles` (role -> run).

    Raises:
        UnknownError: No study has that id.
    """
    query = f"""
        SELECT study, kind, title, state, created, CASE WHEN unfinished = 0 THEN ended END AS ended, deleted, spec
        FROM study_current JOIN ({_STUDY_COUNTS}) USING (study) WHERE study = $study
    """  # noqa: S608
    rows = store.read(query, {"study": study_id}).to_pylist()
    if not rows:
        message = f"there is no study {study_id!r}"
        raise UnknownError(message)
    found: dict[str, Any] = rows[0]
    found["spec"] = json.loads(found["spec"])
    members = f"""
        SELECT role, run, kind, title, state, created, started, ended, {_SECONDS} AS seconds, {_ERROR} AS error,
            reused, deleted
        FROM study_run JOIN run_current USING (run) WHERE study = $study ORDER BY position
    """  # noqa: S608
    found["runs"] = store.read(members, {"study": study_id}).to_pylist()
    found["roles"] = {member["role"]: member["run"] for member in found["runs"]}
    return found


def records(store: Store, table: str, runs: Sequence[str]) -> pa.Table:
    """All rows of a record table that belong to some runs, with the run's id as first column.

    Raises:
        UnknownError: There is no such record table.
    """
    if table not in store.tables:
        message = f"there is no record table {table!r}; there are {', '.join(sorted(store.tables))}"
        raise UnknownError(message)
    query = f'SELECT * FROM "{table}" WHERE run IN (SELECT unnest($runs))'  # noqa: S608
    return store.read(query, {"runs": list(runs)})


def roles(store: Store, runs: Sequence[str]) -> pa.Table:
    """The parts that runs play in studies: run, study, role, oldest study first."""
    query = """
        SELECT run, study, role FROM study_run JOIN study_current USING (study)
        WHERE run IN (SELECT unnest($runs)) AND NOT deleted ORDER BY created, study, position
    """
    return store.read(query, {"runs": list(runs)})


def count_records(store: Store, table: str, run: str) -> int:
    """How many rows of a record table belong to a run."""
    query = f'SELECT count(*) AS rows FROM "{table}" WHERE run = $run'  # noqa: S608
    return int(store.read(query, {"run": run})["rows"][0].as_py())


_RANKS = ", ".join(f"'{state}'" for state in STUDY_ORDER)
_STUDY_COUNTS = f"""
    SELECT study, [{_RANKS}][min(list_position([{_RANKS}], state))] AS state, max(ended) AS ended,
        count(*) AS runs, count(*) FILTER (state = 'done') AS done, count(*) FILTER (state = 'failed') AS failed,
        count(*) FILTER (reused) AS reused,
        count(*) FILTER (state NOT IN ('done', 'failed', 'cancelled')) AS unfinished
    FROM study_run JOIN run_current USING (run) GROUP BY study
"""  # noqa: S608


def _filter(
    state: str | Sequence[str] | None, kind: str | Sequence[str] | None, study: str | None, text: str
) -> tuple[str, dict[str, Any]]:
    """The run table's WHERE clause and its parameters."""
    clauses, params = ["NOT deleted"], dict[str, Any]()
    for column, wanted in (("state", state), ("kind", kind)):
        if wanted is not None:
            clauses.append(f"{column} IN (SELECT unnest(${column}))")
            params[column] = [wanted] if isinstance(wanted, str) else list(wanted)
    if study is not None:
        clauses.append("run IN (SELECT run FROM study_run WHERE study = $study)")
        params["study"] = study
    if text:
        clauses.append("(contains(lower(concat_ws(' ', run, title, spec)), lower($text)))")
        params["text"] = text
    return " AND ".join(clauses), params


def _quoted(name: str) -> str:
    """A name for use between double quotes."""
    return name.replace('"', '""')


def _artifacts(store: Store, run_id: str) -> list[Mapping[str, Any]]:
    """Artifacts of a run, where some kind of run declares that table."""
    if "artifact" not in store.tables:
        return []
    rows: list[Mapping[str, Any]] = records(store, "artifact", [run_id]).drop_columns("run").to_pylist()
    return rows
