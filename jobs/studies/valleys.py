"""Valleys and curvature: how the loss rises around trained networks, to which side faster, and how sharply it curves.

Each treatment trains its networks from the same seeds and keeps snapshots, over the last of which weights are averaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import pyarrow as pa
from pydantic import Field, ValidationInfo, model_validator

from jobs.designs import field_error
from jobs.headline import Headline, Rows
from jobs.kinds import curvature, surface, train, valley
from jobs.kinds.interpolate import Points
from jobs.specs import PlannedRun, in_order, spec_hash
from jobs.studies import lmc, valleys_results
from jobs.studies.compared import NETWORKS, PAPERS, LearningRate, NetworkName, TrainedSpec
from symcore.networks.mlp import MLPSpec
from symcore.settings import is_stored
from symcore.training import TrainingSpec


class Spec(TrainedSpec):
    """Slices of the loss, their asymmetry, and the Hessian's largest eigenvalues and trace, treatment beside treatment."""

    title: ClassVar[str] = "Valleys and curvature"

    kind: Literal["valleys"] = "valleys"
    treatments: Annotated[tuple[NetworkName, ...], in_order(NETWORKS)] = PAPERS
    """What is compared: standard, sigma- and W-Asymmetric networks, and other treatments; see the study lmc."""
    networks: int = Field(default=4, ge=2, le=100)
    """Networks per treatment; each is joined to the next by a slice, and midpoints lie between first and second, third and fourth, and so on."""
    snapshots: int = Field(default=12, ge=1, le=1000)
    """Times before the end of training at which weights are kept; at most one an epoch."""
    averaged: int = Field(default=4, ge=1, le=1000)
    """The last of these that the weight average is over, beside the end itself."""
    onward_epochs: int = Field(default=0, ge=0, le=100_000)
    """Epochs for which training goes on from the weight average, to the networks that are looked at; 0: none, they are those at the end."""
    onward_learning_rate: LearningRate = 1e-3
    """Learning rate in these epochs, the same in all."""
    directions: Annotated[tuple[valley.Direction, ...], in_order(valley.DIRECTIONS)] = (
        *valley.ANYWHERE,
        "average",
    )
    """Normal; uniform in [0, 1]; |normal| with each weight's sign; SGD's noise; to the next network; from a weight average to the end of training; uniform, of norms' parameters only; of all others."""
    draws: int = Field(default=3, ge=1, le=1000)
    """Random directions of each kind, and minibatches whose gradients are the noise."""
    points: Points = 41
    """Points on each slice; odd."""
    span: float = Field(default=1.0, gt=0, le=100)
    """How far slices along drawn directions reach to both sides, in lengths of the weights that they move."""
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
    direction_seed: surface.Seed = 0
    """Seeds directions, minibatches, and the vectors behind eigenvalues and traces."""
    subset_seed: surface.Seed = 0
    """Seeds which images are drawn."""

    @model_validator(mode="after")
    def _fits(self, info: ValidationInfo) -> Self:
        if self.eigenvalues > self.steps:
            msg = f"{self.eigenvalues} of {self.steps} steps; accepted: 1 to {self.steps}"
            raise field_error(Spec, ("eigenvalues",), self.eigenvalues, msg)
        if not is_stored(info):
            valley.check_directions(Spec, self.directions, self.network, self.data)
        return self

    @property
    def kept(self) -> int:
        """Snapshots of each training run."""
        return min(self.snapshots, self.training.epochs)


TRAINED = ("data", "network", "w", "sigma", "training")
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
    "paper": Spec(**{name: getattr(lmc.PRESETS["paper"], name) for name in TRAINED}, networks=6),
    "swa": Spec(
        data="digits-noisy",
        network=MLPSpec(width=64, depth=2, norm="batch", activation="relu"),
        training=TrainingSpec(
            epochs=60,
            batch=32,
            optimizer="sgd",
            learning_rate=0.1,
            weight_decay=3e-4,
            fall_start=20,
            fall_epochs=10,
            fall_to=0.5,
        ),
        networks=3,
        snapshots=60,
        averaged=30,
        onward_epochs=60,
        onward_learning_rate=2e-3,
        distances=4,
        images=0,
    ),
}
"""Digits in seconds; digits at the demo's size; the networks of the paper's LMC experiment on MNIST; the bias of SGD's weight
average to the flat side (He, Huang and Yuan 2019), on fewer images and with a tenth of their epochs."""


def expand(spec: Spec) -> list[PlannedRun]:
    """The study's runs in an order in which each comes after its inputs."""
    return [run for name in spec.treatments for run in _treated(spec, name)]


def _treated(spec: Spec, name: NetworkName) -> Iterator[PlannedRun]:
    """All runs of one treatment."""
    trained = spec.trained(name, range(spec.networks)).model_copy(update={"snapshots": spec.kept})
    averaged = min(spec.averaged, spec.kept)
    slices: dict[str, Any] = {"averaged": averaged, "batch": spec.training.batch}
    if spec.onward_epochs:
        yield PlannedRun(f"{name}/averaged/0", trained)
        if "average" in spec.directions:
            slices["average_of"] = spec_hash(trained)
        trained = _onward(spec, trained, averaged)
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
    own = ("directions", "draws", "points", "span", "distances")
    slices |= {setting: getattr(spec, setting) for setting in own}
    yield PlannedRun(f"{name}/valley/0", valley.Spec.model_validate(shared | slices))
    spectrum = {setting: getattr(spec, setting) for setting in ("eigenvalues", "steps", "probes")}
    pairs = tuple((first, first + 1) for first in range(0, spec.networks - 1, 2))
    yield PlannedRun(
        f"{name}/curvature/0", curvature.Spec.model_validate(shared | spectrum | {"pairs": pairs})
    )


def _onward(spec: Spec, before: train.Spec, averaged: int) -> train.Spec:
    """Training that goes on from the average of another, at its own constant rate."""
    rate = {"learning_rate": spec.onward_learning_rate, "warmup_epochs": 0}
    rate |= dict.fromkeys(("fall_epochs", "fall_start", "fall_to"), 0)
    training = before.training.model_copy(update={"epochs": spec.onward_epochs} | rate)
    start = {"start": spec_hash(before), "averaged": averaged, "snapshots": 0}
    return before.model_copy(update={"training": training} | start)


CURVATURE = ("curvature_eigenvalue", "curvature_trace", "curvature_point")
RECORDS = ("metric", "valley_point", *CURVATURE)


def results(spec: Spec, roles: Mapping[str, str], tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """What is known so far: "summary" (treatments), "networks", "slices" (all points), "valleys" (each slice), "curvature".

    Args:
        spec: the study.
        roles: the run that plays each role.
        tables: those of `RECORDS` with a `run` column.
    """
    del spec
    slices = valleys_results.slices(tables["valley_point"], roles)
    valleys = valleys_results.valleys(slices)
    eigenvalues, traces, points = (tables[name] for name in CURVATURE)
    curved = valleys_results.curvature(eigenvalues, traces, points, roles)
    networks = valleys_results.networks(tables["metric"], roles)
    return {
        "summary": valleys_results.summary(valleys, curved, networks),
        "networks": networks,
        "slices": slices,
        "valleys": valleys,
        "curvature": curved,
    }


def headline(tables: Mapping[str, Rows]) -> Headline:
    """One row per treatment: how sharp its networks are, how lopsided, and what averaging weights does."""
    return valleys_results.headline(tables["summary"])
