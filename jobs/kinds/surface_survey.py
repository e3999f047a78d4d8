"""A surface being evaluated: batch by batch from coarse to fine, gone on with where it was stopped."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from jobs.job import Job
from jobs.records import Column
from symcore.asymmetry import Parameters
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
    """The surface as far as it is known: evaluated and recorded batch by batch; what is recorded is not evaluated again."""

    def __init__(self, section: Section, evaluator: Evaluator, split: str, job: Job) -> None:
        """Evaluates nothing yet.

        Args:
            section: where the cells lie.
            evaluator: for the module of the networks, with the images.
            split: which part of the data set they are.
            job: takes records and progress, and holds what earlier attempts recorded.
        """
        self._section, self._evaluator, self._split, self._job = section, evaluator, split, job
        self._order: NDArray[np.int64] = np.concatenate(rounds(len(section.ys), len(section.xs)))
        self._done = 0

    def marks(self) -> dict[str, dict[str, float]]:
        """Evaluates the marks; loss and accuracy, each by the name of the mark.

        Raises:
            StoppedError: if the job was asked to stop.
        """
        self._tell()
        names = list(self._section.marks)
        xs, ys = np.array(list(self._section.marks.values())).T
        rows = self._job.once("surface_mark", lambda: {"name": names, **self._measured(xs, ys)})
        return {
            value: dict(zip(names, rows[value].to_pylist(), strict=True)) for value in ("loss", "accuracy")
        }

    def grid(self) -> dict[str, Array]:
        """Evaluates every cell; positions and values: x [column], y [row], loss and accuracy [row, column].

        Raises:
            StoppedError: if the job was asked to stop.
        """
        shape = len(self._section.ys), len(self._section.xs)
        grid = {name: np.full(shape, np.nan) for name in ("loss", "accuracy")}
        for first in range(0, len(self._order), BATCH):
            row, column = self._order[first : first + BATCH].T
            found = self._job.once("surface_cell", partial(self._cells, row, column))
            for name, values in grid.items():
                values[row, column] = found[name].to_numpy()
            self._done = first + len(row)
            self._tell()
        return {"x": self._section.xs, "y": self._section.ys, **grid}

    def _cells(self, row: NDArray[np.int64], column: NDArray[np.int64]) -> dict[str, Column]:
        """Columns of some cells."""
        places = {"row": row.astype(np.int16), "column": column.astype(np.int16)}
        return places | self._measured(self._section.xs[column], self._section.ys[row])

    def _measured(self, xs: Array, ys: Array) -> dict[str, Column]:
        """Positions, loss and accuracy, each [cell]."""
        at = self._section
        where = at.unit * xs, at.unit * ys
        found = evaluate(self._evaluator, at.plane, at.buffers, self._split, *where, self._tell)
        return {"x": xs, "y": ys, "loss": found.loss, "accuracy": found.accuracy}

    def _tell(self, more: int = 0) -> None:
        """Reports the cells done, `more` of them in the batch at work."""
        done, total = min(self._done + more, len(self._order)), len(self._order)
        self._job.progress(done, total, f"{done:,} of {total:,} cells")
        self._job.pause_point()
