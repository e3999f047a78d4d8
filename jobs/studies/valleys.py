"""Valleys and curvature: how the loss rises around trained networks, to which side faster, and how sharply it curves.

Each treatment trains its networks from the same seeds and keeps snapshots, over the last of which weights are averaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal, Self

import pyarrow as pa
from pydantic import Field, model_validator

from jobs.designs import field_error
from jobs.headline import Headline, Rows
from jobs.kinds import curvature, surface, train, valley
from jobs.kinds.interpolate import Points
from jobs.specs import PlannedRun, in_order, spec_hash
from jobs.studies import lmc, valleys_results
from jobs.studies.compared import ComparedSpec
from jobs.studies.landscape import ALL, TreatmentName
from symcore.networks.mlp import MLPSpec
from symcore.training import Precision, TrainingSpec
from symcore.treatments import Standard, Treatment


class Spec(ComparedSpec):
    """Slices of the loss, their asymmetry, and the Hessian's largest eigenvalues and trace, treatment beside treatment."""

    title: ClassVar[str] = "Valleys and curvature"

    kind: Literal["valleys"] = "valleys"
    treatments: Annotated[tuple[TreatmentName, ...], in_order(ALL)] = ALL
    """What is compared: standard networks, sigma- and W-Asymmetric networks."""
    training: TrainingSpec = TrainingSpec()
    """How networks are trained."""
    networks: int = Field(default=4, ge=2, le=100)
    """Networks per treatment; each is joined to the next by a slice, and midpoints lie between first and second, third and fourth, and so on."""
    snapshots: int = Field(default=12, ge=1, le=1000)
    """Times before the end of training at which weights are kept; at most one an epoch."""
    averaged: int = Field(default=4, ge=1, le=1000)
    """The last of these that the weight average is over, beside the end itself."""
    directions: Annotated[tuple[valley.Direction, ...], in_order(valley.DIRECTIONS)] = valley.DIRECTIONS
    """Normal; uniform in [0, 1]; |normal| with each weight's sign; SGD's noise; to the next network; from a weight average to the end of training."""
    draws: int = Field(default=3, ge=1, le=1000)
    """Random directions of each kind, and minibatches whose gradients are the noise."""
    points: Points = 41
    """Points on each slice; odd."""
    span: float = Field(default=1.0, gt=0, le=100)
    """How far slices along drawn directions reach to both sides, in lengths of the weights that are trained."""
    distances: float = Field(default=2.0, gt=0, le=100)
    """How far slices that lead to a network reach to both sides, in distances to it."""
    images: surface.Images = 2000
    """Images of each split that are drawn, the same for every slice and product with the Hessian; 0: all."""
    eigenvalues: int = Field(default=5, ge=1, le=100)
    """Largest eigenvalues of the Hessian wanted."""
    steps: int = Field(default=40, ge=1, le=1000)
    """Steps of Lanczos' method, at least as many; the more, the smaller the residuals."""
    probes: int = Field(default=40, ge=2, le=10_000)
    """Random vectors behind the trace; its standard error falls with their square root."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seeds initialisation and shuffling of every network, the same for each treatment."""
    mask_seed: int = Field(default=0, ge=0, lt=2**32)
    """Seeds masks, fixed weights and FiGLU's gates, which all networks of a treatment share."""
    direction_seed: surface.Seed = 0
    """Seeds directions, minibatches, and the vectors behind eigenvalues and traces."""
    subset_seed: surface.Seed = 0
    """Seeds which images are drawn."""
    precision: Precision = "float32"
    """Arithmetic of matrix products; tf32 is faster on a GPU."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        limits = {
            "snapshots": (self.snapshots, self.training.epochs, "epochs"),
            "averaged": (self.averaged, self.snapshots, "snapshots"),
            "eigenvalues": (self.eigenvalues, self.steps, "steps"),
        }
        for name, (value, most, noun) in limits.items():
            if value > most:
                msg = f"{value} of {most} {noun}; accepted: 1 to {most}"
                raise field_error(Spec, (name,), value, msg)
        return self


NETWORKS = ("data", "network", "w", "sigma", "training")
"""Settings that say which networks are trained."""
PRESETS: dict[str, Spec] = {
    "smoke": Spec(
        network=MLPSpec(width=64, depth=2),
        training=TrainingSpec(epochs=15),
        networks=2,
        draws=2,
        points=21,
        images=500,
        steps=15,
        probes=10,
    ),
    "laptop": Spec(),
    "paper": Spec(**{name: getattr(lmc.PRESETS["paper"], name) for name in NETWORKS}, networks=6),
}
"""Digits in seconds; digits at the demo's size; the networks of the paper's LMC experiment on MNIST."""


def expand(spec: Spec) -> list[PlannedRun]:
    """The study's runs in an order in which each comes after its inputs."""
    return [run for name in spec.treatments for run in _treated(spec, name, spec.treatment_settings()[name])]


def _treated(spec: Spec, name: TreatmentName, treatment: Treatment) -> Iterator[PlannedRun]:
    """All runs of one treatment."""
    trained = train.Spec(
        data=spec.data,
        network=spec.network,
        treatment=treatment,
        training=spec.training,
        seeds=tuple(spec.seed * lmc.SEEDS_APART + network for network in range(spec.networks)),
        mask_seeds=() if isinstance(treatment, Standard) else (spec.mask_seed * lmc.SEEDS_APART,),
        precision=spec.precision,
        snapshots=spec.snapshots,
    )
    yield PlannedRun(f"{name}/train/0", trained)
    shared = {
        "data": spec.data,
        "source": spec_hash(trained),
        "members": tuple(range(spec.networks)),
        "images": spec.images,
        "subset_seed": spec.subset_seed,
        "seed": spec.direction_seed,
        "precision": spec.precision,
    }
    own = ("directions", "draws", "averaged", "points", "span", "distances")
    slices = {setting: getattr(spec, setting) for setting in own} | {"batch": spec.training.batch}
    yield PlannedRun(f"{name}/valley/0", valley.Spec.model_validate(shared | slices))
    spectrum = {setting: getattr(spec, setting) for setting in ("eigenvalues", "steps", "probes")}
    pairs = tuple((first, first + 1) for first in range(0, spec.networks - 1, 2))
    yield PlannedRun(
        f"{name}/curvature/0", curvature.Spec.model_validate(shared | spectrum | {"pairs": pairs})
    )


RECORDS = ("valley_point", "curvature_eigenvalue", "curvature_trace")


def results(spec: Spec, roles: Mapping[str, str], tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """What is known so far: "summary" (treatments), "slices" (all points), "valleys" (each slice), "curvature" (each point).

    Args:
        spec: the study.
        roles: the run that plays each role.
        tables: "valley_point", "curvature_eigenvalue" and "curvature_trace" with a `run` column.
    """
    del spec
    slices = valleys_results.slices(tables["valley_point"], roles)
    valleys = valleys_results.valleys(slices)
    curved = valleys_results.curvature(tables["curvature_eigenvalue"], tables["curvature_trace"], roles)
    return {
        "summary": valleys_results.summary(valleys, curved),
        "slices": slices,
        "valleys": valleys,
        "curvature": curved,
    }


def headline(tables: Mapping[str, Rows]) -> Headline:
    """One row per treatment: how sharp its networks are, how lopsided, and what averaging weights does."""
    return valleys_results.headline(tables["summary"])
