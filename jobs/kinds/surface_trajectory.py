"""Surfaces along a training run: the plane that holds most of it, and where the run lies on that plane."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field

from jobs.inputs import snapshots
from jobs.job import Job
from jobs.kinds.surface_survey import Section
from jobs.records import Column
from jobs.specs import Member
from symcore.asymmetry import Parameters
from symcore.landscape.planes import Trajectory, trajectory_plane
from symcore.metrics import Array, Evaluator
from symcore.population import Population
from symcore.settings import Settings


class TrajectoryPlane(Settings):
    """The plane through the end of a training run that holds most of it (Li et al. 2018, section 7).

    Lengths are in the greatest distance of a snapshot from the end, mostly that of the start.
    """

    kind: Literal["trajectory"] = "trajectory"
    member: Member = 0
    """The network whose training is looked at; its train run must have kept snapshots."""
    margin: float = Field(default=0.25, ge=0, le=10)
    """How far the surface reaches beyond: the first axis runs from -margin to 1 + margin, the second as far, about 0."""


TABLES = {
    "surface_snapshot": pa.schema(
        [
            pa.field("epoch", pa.int32(), nullable=False),
            pa.field("x", pa.float64(), nullable=False),  # of the nearest point on the plane, in its unit
            pa.field("y", pa.float64(), nullable=False),
            pa.field("error", pa.float64(), nullable=False),  # share of the distance to the end off the plane
            pa.field("loss", pa.float64(), nullable=False),  # of the snapshot itself, nats
            pa.field("accuracy", pa.float64(), nullable=False),  # 0 to 1
        ]
    ),
    "surface_axis": pa.schema(
        [
            pa.field("axis", pa.string(), nullable=False),  # "x" or "y"
            pa.field("explained", pa.float64(), nullable=False),  # share of all squared distances to the end
        ]
    ),
}


class Run:
    """A training run of one network: its snapshots and its end, and the plane that holds most of it."""

    def __init__(self, source: str, wanted: TrajectoryPlane, trained: Population, job: Job) -> None:
        """Reads the snapshots.

        Args:
            source: the train run.
            wanted: which network of it.
            trained: all its networks at the end.
            job: which it is an input of.

        Raises:
            FileNotFoundError: if no snapshots were kept.
            ValueError: if they span no plane, or lie outside the surface.
        """
        before = snapshots(source, [wanted.member], job)
        self.epochs, end = list(before), trained.select([wanted.member]).effective()
        each = [one.effective() for one in before.values()] + [end]
        self.weights: Parameters = {name: torch.cat([w[name] for w in each]) for name in end}
        self.found: Trajectory = trajectory_plane(self.weights)
        self.unit = float(np.linalg.norm(self.found.coordinates, axis=1).max())
        self._margin = wanted.margin
        self._check_inside(self.found.coordinates / self.unit)

    def _check_inside(self, places: Array) -> None:
        beyond = float(max((-places[:, 0]).max(), places[:, 0].max() - 1, np.abs(places[:, 1]).max() - 0.5))
        if beyond > self._margin:
            msg = f"margin: {self._margin:g} leaves a part of the run outside; accepted: {beyond:.3g} or more"
            raise ValueError(msg)

    def section(self, buffers: Parameters, cells: int) -> Section:
        """The part of the plane that is evaluated, the end of the run at (0, 0)."""
        xs = np.linspace(-self._margin, 1 + self._margin, cells)
        return Section(self.found.plane, buffers, self.unit, xs, xs - 0.5, {"a": (0.0, 0.0)})

    def record(self, evaluator: Evaluator, buffers: Parameters, split: str, job: Job) -> None:
        """Loss and accuracy of every snapshot, where it lies, and what the plane holds of the run."""
        places, error = self.found.coordinates[:-1] / self.unit, self.found.error[:-1]
        epochs = np.array(self.epochs, dtype=np.int32)
        x, y = places.T

        def measured() -> dict[str, Column]:
            loss, accuracy = evaluator({name: w[:-1] for name, w in self.weights.items()}, buffers, split)
            return {"epoch": epochs, "x": x, "y": y, "error": error, "loss": loss, "accuracy": accuracy}

        job.once("surface_snapshot", measured)
        job.emit("surface_axis", axis=["x", "y"], explained=self.found.explained)
