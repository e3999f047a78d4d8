"""How an attempt at a run ended: its last records, what its worker left, and the state that follows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs import spool
from jobs.execution import Outcome
from jobs.ledger_rows import Move, Run
from jobs.records import RecordError, decode
from jobs.states import State
from jobs.store import BatchRefusedError, Store

ATTEMPTS = 5
"""Attempts in a row without a new record or checkpoint after which a run counts as failed."""
CHUNK = 256
"""Batches of a spool that are stored in one go."""


@dataclass(frozen=True)
class Known:
    """What the dispatcher knows of an attempt beside its outcome."""

    mark: object | None
    """Records and checkpoints when it started, or was adopted; none when that is not known."""
    stopping: bool
    """Whether the server is being stopped, and took the worker with it."""
    process: int | None
    """Process id of the worker, where it is known."""


def left_outcome(folder: Path) -> Outcome | None:
    """What a worker left in its run's folder, if it is an outcome.

    Raises:
        OSError: The file is there and cannot be read.
    """
    try:
        return Outcome.read(folder)
    except ValueError:
        return None


def progress_mark(store: Store, run: str, folder: Path) -> object:
    """Something that changes whenever a run makes a record or a checkpoint."""
    checkpoints = sorted((path.name, _changed(path)) for path in folder.glob("checkpoint*"))
    return store.acknowledged(run), tuple(checkpoints)


def _changed(path: Path) -> int:
    """When a file was last written, in nanoseconds; 0 for one that its worker has just renamed."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def store_spool(store: Store, run: str, folder: Path) -> int:
    """Store what a run's spool holds beyond the acknowledged batches; returns how many are stored then.

    Raises:
        RecordError: A batch is not one of records.
        BatchRefusedError: A batch does not fit its table.
    """
    first = store.acknowledged(run)
    batches = []
    for sequence, payload in spool.read(folder / "records.spool", first):
        batches.append(decode(payload))
        if len(batches) == CHUNK:
            store.ingest(run, sequence + 1 - CHUNK, batches).result()
            batches = []
    stored = store.acknowledged(run)
    return store.ingest(run, stored, batches).result() if batches else stored


def settle(store: Store, run: Run, folder: Path, outcome: Outcome | None, known: Known) -> list[Move]:
    """Store the last records of an attempt and say which moves follow from its end.

    Args:
        store: Where records go.
        run: The run, in one of the active states.
        folder: The run's folder.
        outcome: What the worker of this attempt left; none when it died without a word.
        known: What the dispatcher knows of it.
    """
    try:
        stored = store_spool(store, run.run, folder)
    except (RecordError, BatchRefusedError, OSError) as error:
        return [Move(run.run, State.FAILED, {"error": f"records: {error}"})]
    if outcome is not None and outcome.state == "done":
        return [_done(run, outcome, stored)]
    if outcome is not None and outcome.state == "failed":
        return [Move(run.run, State.FAILED, {"error": outcome.error})]
    if run.state is State.CANCELLING or (outcome is not None and outcome.state == "cancelled"):
        return [Move(run.run, State.CANCELLED, {"reason": "on request"})]
    if outcome is not None or known.stopping:
        return [Move(run.run, State.QUEUED, {"reason": "its worker was stopped"})]
    moved = known.mark is None or known.mark != progress_mark(store, run.run, folder)
    return _died(run, folder, known.process, stalled=0 if moved else run.stalled + 1)


def without_input(run: Run, sources: Iterable[Run]) -> Move | None:
    """The end of a queued run that reads a failed or cancelled one; none while its sources may still be done."""
    for source in sources:
        if source.state is State.FAILED:
            return Move(run.run, State.FAILED, {"error": f"source: its input, run {source.run}, failed"})
        if source.state is State.CANCELLED:
            reason = f"its input, run {source.run}, was cancelled"
            return Move(run.run, State.CANCELLED, {"reason": reason})
    return None


def log_end(folder: Path, lines: int = 5) -> str:
    """The last lines of a run's log."""
    path = folder / "log.txt"
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return "\n".join(text.splitlines()[-lines:])


def _done(run: Run, outcome: Outcome, stored: int) -> Move:
    """The end of a run that finished, provided that all its records have arrived."""
    if stored < outcome.batches:
        error = f"records: {stored} of {outcome.batches} batches are stored and its spool holds no more"
        return Move(run.run, State.FAILED, {"error": error})
    numbers = {name: float("nan") if value is None else value for name, value in outcome.summary.items()}
    payload: dict[str, Any] = {"seconds": outcome.seconds, "batches": outcome.batches}
    return Move(run.run, State.DONE, payload, numbers)


def _died(run: Run, folder: Path, process: int | None, *, stalled: int) -> list[Move]:
    """The end of an attempt whose worker was killed: another attempt, unless it goes nowhere."""
    who = f"its worker (process {process})" if process else "its worker"
    lost = (
        []
        if run.state is State.LOST
        else [Move(run.run, State.LOST, {"error": f"{who} died without a word"})]
    )
    if stalled < ATTEMPTS:
        return [
            *lost,
            Move(run.run, State.QUEUED, {"reason": f"{who} died without a word", "stalled": stalled}),
        ]
    error = f"{who} died {stalled} times in a row without a new record or checkpoint"
    end = log_end(folder)
    return [
        *lost,
        Move(run.run, State.FAILED, {"error": f"{error}; the end of its log:\n{end}" if end else error}),
    ]
