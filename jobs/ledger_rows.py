"""What the ledger keeps of runs and studies, and the rows of the tables they are stored in."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa

from jobs.registry import kind_of
from jobs.specs import RunSpec, SpecHash, canonical_json
from jobs.states import State
from jobs.store import Connection, insert

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


def new_id(prefix: str) -> str:
    """A prefix and ten base32 characters: 50 random bits."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(10))


@dataclass
class Run:
    """What the owner must know of a run to schedule it."""

    run: str
    kind: str
    hash: SpecHash
    inputs: dict[SpecHash, str]
    """Runs whose results this one reads, by spec hash."""
    created: datetime
    """When it was asked for; the same for all runs of one request."""
    state: State = State.QUEUED
    attempt: int = 0
    """How many times it was started."""
    threads: int | None = None
    """Threads of the first start; results depend on them to the last bit, so that later starts keep them."""
    stalled: int = 0
    """Attempts in a row that died without a new record or checkpoint."""
    deleted: bool = False
    purged: bool = False


@dataclass
class Study:
    """A study and the runs it is made of, in the order of its plan."""

    study: str
    runs: list[str] = field(default_factory=list)
    cancelled: bool = False
    """Whether somebody cancelled it, and did not resume it since: it waits for none of its runs any more."""
    deleted: bool = False


@dataclass(frozen=True)
class Move:
    """A run's next state, with what the event says and what a finished run found."""

    run: str
    state: State
    payload: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, float] = field(default_factory=dict)


STUDY_RUN = pa.schema(
    [
        ("study", pa.string()),
        ("position", pa.int32()),
        ("role", pa.string()),
        ("run", pa.string()),
        ("reused", pa.bool_()),
    ]
)


def run_rows(created: Sequence[tuple[Run, RunSpec]]) -> pa.Table:
    """Rows of the run table for new runs."""
    rows = [
        {
            "run": run.run,
            "time": run.created,
            "kind": run.kind,
            "hash": run.hash,
            "title": kind_of(spec).title(spec),
            "spec": canonical_json(spec),
            "inputs": json.dumps(run.inputs),
        }
        for run, spec in created
    ]
    return pa.Table.from_pylist(rows)


def insert_summary(connection: Connection, move: Move) -> None:
    """The headline numbers of a finished run, a row each."""
    if move.summary:
        values = pa.array(move.summary.values(), pa.float64())
        rows = {"run": [move.run] * len(values), "name": list(move.summary), "value": values}
        insert(connection, "summary", pa.table(rows))
