"""A surface being evaluated: batch by batch from coarse to fine, saved on the way and taken up again."""

from __future__ import annotations

import os
import time
import zipfile
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.job import Job
from symcore.asymmetry import Parameters
from symcore.checkpoints import StoppedError
from symcore.landscape.planes import Plane
from symcore.landscape.surfaces import evaluate, rounds
from symcore.metrics import Array, Evaluator

BATCH = 128
"""Cells of a batch of records, evaluated together."""


@dataclass(frozen=True)
class Section:
    """The part of a plane that is evaluated: positions are in the plane's unit, which is so many of `Plane.at`'s."""

    plane: Plane
    buffers: Parameters
    unit: float
    xs: Array
    """[column], ascending."""
    ys: Array
    """[row], ascending."""
    marks: dict[str, tuple[float, float]]
    """Networks, and the midpoints between them."""


class Survey:
    """The surface as far as it is known: evaluates it batch by batch, and can be saved and taken up again."""

    def __init__(self, section: Section, evaluator: Evaluator, split: str, job: Job, seconds: float) -> None:
        """Evaluates nothing yet.

        Args:
            section: where the cells lie.
            evaluator: for the module of the networks, with the images.
            split: which part of the data set they are.
            job: takes records and progress, and has the folder that the checkpoint is in.
            seconds: time between checkpoints.
        """
        self._section, self._evaluator, self._split, self._job = section, evaluator, split, job
        self.checkpoint = job.folder / "checkpoint.npz"
        self._order: NDArray[np.int64] = np.concatenate(rounds(len(section.ys), len(section.xs)))
        self._seconds, self._saved = seconds, time.monotonic()
        self._first = job.sequence
        self._done = 0
        self._values: Array = np.full((2, len(self._order)), np.nan)
        self.marks: Array = np.full((2, len(section.marks)), np.nan)
        """Loss and accuracy of each mark, [2, mark]."""

    def run(self) -> None:
        """Evaluates what is missing; saves now and then, and when it is stopped.

        Raises:
            StoppedError: if the job was asked to stop.
            RecordsLostError: if the spool does not hold what the checkpoint counts.
        """
        mark = self._restore()
        self._job.rewind(mark)
        self._tell()
        try:
            if mark == self._first:
                self._evaluate_marks()
            while self._done < len(self._order):
                self._evaluate_batch()
                if time.monotonic() - self._saved > self._seconds:
                    self._save()
        except StoppedError:
            self._save()
            raise

    def _evaluate_marks(self) -> None:
        xs, ys = np.array(list(self._section.marks.values())).T
        self.marks = self._measured(xs, ys)
        loss, accuracy = self.marks
        names = list(self._section.marks)
        self._job.emit("surface_mark", name=names, x=xs, y=ys, loss=loss, accuracy=accuracy)

    def _evaluate_batch(self) -> None:
        row, column = self._order[self._done : self._done + BATCH].T
        xs, ys = self._section.xs[column], self._section.ys[row]
        loss, accuracy = values = self._measured(xs, ys)
        self._values[:, self._done : self._done + len(xs)] = values
        self._done += len(xs)
        self._job.emit(
            "surface_cell",
            row=row.astype(np.int16),
            column=column.astype(np.int16),
            x=xs,
            y=ys,
            loss=loss,
            accuracy=accuracy,
        )
        self._tell()

    def _measured(self, xs: Array, ys: Array) -> Array:
        """Loss and accuracy, [2, cell]."""
        at = self._section
        where = at.unit * xs, at.unit * ys
        found = evaluate(self._evaluator, at.plane, at.buffers, self._split, *where, self._tell)
        return np.stack([found.loss, found.accuracy])

    def _tell(self, more: int = 0) -> None:
        """Reports the cells done, `more` of them in the batch at work."""
        done, total = min(self._done + more, len(self._order)), len(self._order)
        self._job.progress(done, total, f"{done:,} of {total:,} cells")
        self._job.pause_point()

    def _save(self) -> None:
        """Writes a checkpoint; the records that it counts are on the disk, and a crash leaves the old one whole."""
        partial = self.checkpoint.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, mark=self._job.mark(), values=self._values[:, : self._done], marks=self.marks)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.checkpoint)
        self._saved = time.monotonic()

    def _restore(self) -> int:
        """Takes up the checkpoint, if there is a whole one, and returns the batches of records that it counts."""
        if not self.checkpoint.exists():
            return self._first
        try:
            with self.checkpoint.open("rb") as file, np.load(file) as saved:
                mark, known, self.marks = int(saved["mark"]), saved["values"], saved["marks"]
        except (zipfile.BadZipFile, OSError, ValueError, KeyError) as error:
            self._job.log(f"the checkpoint cannot be read ({error}); the surface begins again")
            return self._first
        self._done = known.shape[1]
        self._values[:, : self._done] = known
        self._job.log(f"going on from the checkpoint after {mark} batches of records")
        return mark

    def grid(self) -> dict[str, Array]:
        """Positions and values of all cells: x [column], y [row], loss and accuracy [row, column]."""
        shape = len(self._section.ys), len(self._section.xs)
        grids = np.full((2, *shape), np.nan)
        grids[:, self._order[:, 0], self._order[:, 1]] = self._values
        return {"x": self._section.xs, "y": self._section.ys, "loss": grids[0], "accuracy": grids[1]}
