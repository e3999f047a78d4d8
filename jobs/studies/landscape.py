"""The landscape study: what the loss looks like around trained networks and between them, treatment beside treatment.

Each treatment trains its networks from the same seeds. Random planes lie around the first of them, along the same
directions for every treatment; another plane goes through the first three, and one along the training of the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal, Self

import pyarrow as pa
from pydantic import Field, model_validator

from jobs.designs import field_error
from jobs.headline import Headline, Rows
from jobs.kinds import surface, train
from jobs.kinds.interpolate import Split
from jobs.kinds.surface_trajectory import TrajectoryPlane
from jobs.specs import PlannedRun, in_order, spec_hash
from jobs.studies import landscape_results, lmc
from jobs.studies.compared import NETWORKS, PAPERS, NetworkName, TrainedSpec
from symcore.networks.mlp import MLPSpec
from symcore.training import TrainingSpec


class Spec(TrainedSpec):
    """Surfaces of the loss around networks, through three of them, and along a training run, treatment beside treatment."""

    title: ClassVar[str] = "Loss landscapes"

    kind: Literal["landscape"] = "landscape"
    treatments: Annotated[tuple[NetworkName, ...], in_order(NETWORKS)] = PAPERS
    """What is compared: standard, sigma- and W-Asymmetric networks; W-Asymmetric ones with FiGLU besides (w_figlu), with zeros fixed (w0), with small offsets (syre), only the start W-Asymmetric (asym_init), or fixed biases."""
    networks: int = Field(default=3, ge=3, le=100)
    """Networks per treatment; the first three span the plane through them."""
    surfaces: int = Field(default=1, ge=0, le=100)
    """Networks, from the first on, that get a random plane of their own."""
    cells: surface.Side = 51
    """Cells along each side of a surface; odd."""
    span: surface.Span = 1.0
    """Half the side of a random plane; at 1 its directions are as long as the network's own filters."""
    margin: surface.Margin = 0.25
    """How far the plane through three networks reaches beyond them, in distances between the first two, and that along a training run beyond it, in its greatest distance from the end."""
    snapshots: int = Field(default=12, ge=0, le=1000)
    """Times before the end of training at which weights are kept, at most one an epoch; under 2 there is no plane along it."""
    split: Split = "test"
    """Part of the data set that every cell is evaluated on."""
    images: surface.Images = 2000
    """Images of it that are drawn, the same for every surface; 0: all."""
    plane_seed: surface.Seed = 0
    """Seeds the directions of the random planes."""
    subset_seed: surface.Seed = 0
    """Seeds which images are drawn."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.surfaces > self.networks:
            msg = f"{self.surfaces} of {self.networks} networks; accepted: 0 to {self.networks}"
            raise field_error(Spec, ("surfaces",), self.surfaces, msg)
        return self

    @property
    def kept(self) -> int:
        """Snapshots of each training run; 0 where there is no plane along it."""
        kept = min(self.snapshots, self.training.epochs)
        return kept if kept >= surface.LEAST_SNAPSHOTS else 0


TRAINED = ("data", "network", "w", "sigma", "training")
"""Settings that say which networks are trained."""
PRESETS: dict[str, Spec] = {
    "smoke": Spec(network=MLPSpec(width=64, depth=2), training=TrainingSpec(epochs=15), cells=21),
    "laptop": Spec(),
    "paper": Spec(**{name: getattr(lmc.PRESETS["paper"], name) for name in TRAINED}),
}
"""Digits in seconds; digits at the demo's size; the networks of the paper's LMC experiment on MNIST."""


def expand(spec: Spec) -> list[PlannedRun]:
    """The study's runs in an order in which each comes after its inputs."""
    return [run for name in spec.treatments for run in _treated(spec, name)]


def _treated(spec: Spec, name: NetworkName) -> Iterator[PlannedRun]:
    """All runs of one treatment."""
    trained = spec.trained(name, range(spec.networks)).model_copy(update={"snapshots": spec.kept})
    yield PlannedRun(f"{name}/train/0", trained)
    for network in range(spec.surfaces):
        around = surface.RandomPlane(member=network, seed=spec.plane_seed, span=spec.span)
        yield PlannedRun(f"{name}/random/{network}", _surface(spec, trained, around))
    yield PlannedRun(f"{name}/through/0", _surface(spec, trained, surface.ThroughPlane(margin=spec.margin)))
    if spec.kept:
        along = TrajectoryPlane(margin=spec.margin)
        yield PlannedRun(f"{name}/trajectory/0", _surface(spec, trained, along))


def _surface(spec: Spec, trained: train.Spec, plane: surface.PlaneSpec) -> surface.Spec:
    return surface.Spec(
        data=spec.data,
        source=spec_hash(trained),
        plane=plane,
        cells=spec.cells,
        split=spec.split,
        images=spec.images,
        subset_seed=spec.subset_seed,
        precision=spec.precision,
    )


RECORDS = ("surface_cell", "surface_mark", "surface_snapshot", "surface_axis")


def results(spec: Spec, roles: Mapping[str, str], tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """What is known so far: "summary" (treatments), "planes", "surfaces" (all cells), "marks" and "snapshots" on them.

    Args:
        spec: the study.
        roles: the run that plays each role.
        tables: those of `RECORDS` with a `run` column.
    """
    cells = landscape_results.by_surface(tables["surface_cell"], roles, ("row", "column"))
    marks = landscape_results.by_surface(tables["surface_mark"], roles, ("name",))
    snapshots = landscape_results.by_surface(tables["surface_snapshot"], roles, ("epoch",))
    axes = landscape_results.by_surface(tables["surface_axis"], roles, ("axis",))
    planes = landscape_results.by_plane(cells, marks, axes, spec.cells**2)
    images = surface.evaluated(spec.data, spec.split, spec.images)
    return {
        "summary": landscape_results.summary(planes, marks, spec.split, images),
        "planes": planes,
        "surfaces": cells,
        "marks": marks,
        "snapshots": snapshots,
    }


def headline(tables: Mapping[str, Rows]) -> Headline:
    """One row per treatment: how flat the loss is around a network, and the barrier between networks."""
    return landscape_results.headline(tables["summary"])
