"""What a kind of run gets to work with: a folder, a device, its inputs, and ways to report and to be stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pyarrow as pa

from jobs.records import Column, RecordError, decode, encode
from jobs.spool import Spool
from symcore.checkpoints import StoppedError

StopReason = Literal["cancelled", "interrupted"]


class RecordsLostError(Exception):
    """The spool holds fewer batches than a checkpoint counts, so that the disk lost some; the run must begin again."""


@dataclass(frozen=True)
class Progress:
    """How far a run is, in units of its kind (network-epochs, paths)."""

    done: float
    total: float
    note: str = ""


class Job:
    """One run being carried out.

    Batches of records are a function of the spec alone. A resumed run makes again those since its checkpoint, with the
    same sequence numbers; what the spool holds already is not written twice.
    """

    def __init__(
        self,
        folder: Path,
        spool: Spool,
        tables: Mapping[str, pa.Schema],
        *,
        device: str,
        data_folder: Path,
        inputs: Mapping[str, Path],
        on_progress: Callable[[Progress], None] = lambda _progress: None,
    ) -> None:
        """Starts at batch 0 whatever the spool holds.

        Args:
            folder: the run's own folder.
            spool: where its records go.
            tables: schemas of the tables it may fill.
            device: torch's name of the device to compute on.
            data_folder: where data sets are looked for and downloaded to.
            inputs: folder of each upstream run by spec hash.
            on_progress: called at every report of progress.
        """
        self.folder, self.device, self.data_folder = folder, device, data_folder
        self.sequence = 0
        self.latest = Progress(0, 1)
        self._spool, self._tables, self._inputs, self._on_progress = spool, tables, inputs, on_progress
        self._reason: StopReason | None = None

    def input(self, source: str) -> Path:
        """Folder of an upstream run.

        Raises:
            LookupError: if the run was started without it.
        """
        if source not in self._inputs:
            msg = f"source: {source} is not among this run's inputs; accepted: {sorted(self._inputs)}"
            raise LookupError(msg)
        return self._inputs[source]

    def emit(self, table: str, **columns: Column) -> None:
        """Records rows of one table as the next batch.

        Raises:
            RecordError: if the table is unknown or the columns do not fit it.
        """
        if table not in self._tables:
            msg = f"table: {table!r} is not known; accepted: {', '.join(self._tables)}"
            raise RecordError(msg)
        payload = encode(table, self._tables[table], columns)
        if self.sequence == self._spool.count:
            self._spool.append(payload)
        self.sequence += 1

    def once(self, table: str, make: Callable[[], Mapping[str, Column]]) -> pa.RecordBatch:
        """The next batch of one table: as an earlier attempt recorded it, or else made and recorded now.

        What a run evaluates part by part this way goes on, after a stop or a kill, with the part that it was at.

        Raises:
            RecordError: if the table is unknown or the columns do not fit it, or an earlier attempt recorded another.
        """
        if self.sequence == self._spool.count:
            self.emit(table, **make())
        else:
            self.sequence += 1
        found, rows = decode(self._spool.payload(self.sequence - 1))
        if found != table:
            msg = f"batch {self.sequence - 1} of the records holds {found}, this version records {table}; accepted: a run begun afresh"
            raise RecordError(msg)
        return rows

    def rewind(self, sequence: int) -> None:
        """Goes on from the batch that a checkpoint was made at.

        Raises:
            RecordsLostError: if the spool does not reach that far.
        """
        if sequence > self._spool.count:
            msg = f"the checkpoint counts {sequence} batches of records, the spool holds {self._spool.count}"
            raise RecordsLostError(msg)
        self.sequence = sequence

    def mark(self) -> int:
        """The next batch's sequence number, for a checkpoint; all earlier ones are on the disk when it returns."""
        self._spool.sync()
        return self.sequence

    def artifact(self, path: Path, name: str) -> None:
        """Records a file in the run's folder as one of its results."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.emit(
            "artifact",
            name=[name],
            path=[path.relative_to(self.folder).as_posix()],
            sha256=[digest],
            bytes=[path.stat().st_size],
        )

    def progress(self, done: float, total: float, note: str = "") -> None:
        """Says how far the run is; cheap, may be called often."""
        self.latest = Progress(done, total, note)
        self._on_progress(self.latest)

    def log(self, text: str) -> None:
        """Adds a line to the run's log; a disk that takes none, being full, must not end the run or hide its end."""
        with suppress(OSError), (self.folder / "log.txt").open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {text}\n")

    def stop(self, reason: StopReason) -> None:
        """Asks the run to stop soon; safe from signal handlers and other threads. A cancel is not taken back."""
        if self._reason != "cancelled":
            self._reason = reason

    @property
    def stop_reason(self) -> StopReason | None:
        """Why the run was asked to stop, if it was."""
        return self._reason

    def stopping(self) -> bool:
        """Whether the run was asked to stop."""
        return self._reason is not None

    def pause_point(self) -> None:
        """A place where stopping loses nothing.

        Raises:
            StoppedError: if the run was asked to stop.
        """
        if self.stopping():
            msg = f"stopped at {self.latest.done:g} of {self.latest.total:g}"
            raise StoppedError(msg)
