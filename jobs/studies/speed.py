"""The training speed study (Lim et al. 2024, appendix A, figure 6): what fixing weights costs in epochs.

Networks are trained for each number of fixed weights and each strength of them, and counted is how many epochs they take
to an accuracy. A network that does not get there in the epochs that it has is told as such, and never as a number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal, Self

import pyarrow as pa
from pydantic import AfterValidator, Field, ValidationError, model_validator

from jobs.designs import check_treatment, field_error, masked_layers
from jobs.headline import Headline, Rows
from jobs.kinds import train
from jobs.specs import DataName, PlannedRun, StudySpec, refusal
from jobs.studies import speed_results
from jobs.studies.compared import SEEDS_APART
from jobs.studies.speed_results import Cell
from symcore.data.sources import SOURCES
from symcore.networks.mlp import MLPSpec
from symcore.networks.registry import NetworkSpec
from symcore.networks.resnet import ResNetSpec
from symcore.precision import Precision
from symcore.training import TrainingSpec
from symcore.treatments import Standard, Treatment, WAsymmetric


def _ascending(factors: tuple[float, ...]) -> tuple[float, ...]:
    if len(set(factors)) != len(factors):
        msg = f"{list(factors)} holds a factor twice; accepted: each factor once"
        raise refusal(msg)
    return tuple(sorted(factors))


Factor = Annotated[float, Field(gt=0, le=1000)]
Factors = Annotated[tuple[Factor, ...], Field(min_length=1, max_length=20), AfterValidator(_ascending)]
"""What the settings of W-Asymmetric networks are multiplied by, in ascending order."""


class Spec(StudySpec):
    """Epochs to an accuracy over a grid of how many weights are fixed and how strong they are."""

    title: ClassVar[str] = "Training speed"

    kind: Literal["speed"] = "speed"
    data: DataName = "digits"
    """Data set: digits ships with the lab, the others are downloaded."""
    network: NetworkSpec = MLPSpec()
    """Form of every network."""
    w: WAsymmetric = WAsymmetric()
    """Settings of the W-Asymmetric networks where both factors are 1."""
    n_fix_factors: Factors = (0.25, 0.5, 1.0, 1.5, 2.0)
    """Columns of the grid: every layer fixes so many times `w.n_fix` weights of each row, rounded, and at most all."""
    kappa_factors: Factors = (0.5, 1.0, 2.0, 4.0)
    """Rows of the grid: fixed weights have so many times the standard deviation `w.kappa`."""
    training: TrainingSpec = TrainingSpec()
    """How networks are trained; one that needs more than these epochs counts as not there."""
    split: Literal["train", "val", "test"] = "train"
    """Images on which the accuracy is measured after each epoch, as they are; the paper takes the training images."""
    accuracy: float = Field(default=0.99, gt=0, le=1)
    """The accuracy to get to, 0 to 1; the paper takes 0.7 on CIFAR-10."""
    networks: int = Field(default=5, ge=1, le=1000)
    """Networks in each cell, and standard ones beside them."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seeds initialisation and shuffling of every network, the same in each cell."""
    mask_seed: int = Field(default=0, ge=0, lt=2**32)
    """Seeds masks and fixed weights, which all networks of a cell share."""
    precision: Precision = "float32"
    """Arithmetic of products; on a GPU tf32 is faster, and bfloat16 for convolutional networks."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.split not in SOURCES[self.data].sizes:
            msg = f"{self.data} has no {self.split} images; accepted: {', '.join(SOURCES[self.data].sizes)}"
            raise field_error(Spec, ("split",), self.split, msg)
        check_treatment(Spec, ("w",), self.network, self.data, self.w)
        for cell in cells(self):
            _check(self, cell)
        return self


def _check(spec: Spec, cell: Cell) -> None:
    """Makes sure that masks can be built in a cell; what is wrong there is told at the factors."""
    try:
        check_treatment(Spec, (), spec.network, spec.data, cell.treatment)
    except ValidationError as error:
        msg = f"at {cell.n_fix_factor:g} times n_fix and {cell.kappa_factor:g} times kappa: {error.errors()[0]['msg']}"
        raise field_error(Spec, ("n_fix_factors",), spec.n_fix_factors, msg) from error


def cells(spec: Spec) -> Iterator[Cell]:
    """The grid's cells, row by row of kappa."""
    layers = masked_layers(spec.network, spec.data, spec.w)
    for kappa_factor in spec.kappa_factors:
        for n_fix_factor in spec.n_fix_factors:
            treatment = WAsymmetric(
                form=spec.w.form,
                n_fix=tuple(min(layer.choices, round(n_fix_factor * layer.n_fix)) for layer in layers),
                kappa=tuple(kappa_factor * layer.kappa for layer in layers),
            )
            yield Cell(n_fix_factor, kappa_factor, treatment)


PRESETS: dict[str, Spec] = {
    "smoke": Spec(
        network=MLPSpec(width=64, depth=2),
        n_fix_factors=(0.5, 1.0),
        kappa_factors=(1.0, 4.0),
        training=TrainingSpec(epochs=15),
        accuracy=0.97,
        networks=3,
    ),
    "laptop": Spec(),
    "paper": Spec(
        data="cifar-10",
        network=ResNetSpec(depth=20),
        n_fix_factors=(0.5, 1.0, 1.5, 2.0),
        kappa_factors=(0.5, 1.0, 2.0, 4.0),
        training=TrainingSpec(
            epochs=100,
            batch=128,
            learning_rate=1e-2,
            weight_decay=0,
            warmup_epochs=20,
            augment="crop_flip",
        ),
        accuracy=0.7,
        networks=3,
    ),
}
"""A small grid on digits in seconds; one at the demo's size; the paper's ResNet20 and threshold (its grid is not stated)."""


def expand(spec: Spec) -> list[PlannedRun]:
    """One population for the standard networks and one for each cell."""
    found = [PlannedRun("standard/train/0", _train(spec, Standard()))]
    found += [PlannedRun(cell.role, _train(spec, cell.treatment)) for cell in cells(spec)]
    return found


def _train(spec: Spec, treatment: Treatment) -> train.Spec:
    return train.Spec(
        data=spec.data,
        network=spec.network,
        treatment=treatment,
        training=spec.training,
        seeds=tuple(spec.seed * SEEDS_APART + network for network in range(spec.networks)),
        mask_seeds=() if isinstance(treatment, Standard) else (spec.mask_seed * SEEDS_APART,),
        precision=spec.precision,
        train_accuracy=spec.split == "train",
    )


RECORDS = ("metric",)


def results(spec: Spec, roles: Mapping[str, str], tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """What is known so far: tables "summary" (standard networks and each cell) and "networks".

    Args:
        spec: the study.
        roles: the run that plays each role.
        tables: "metric" with a `run` column.
    """
    networks = speed_results.by_network(
        tables["metric"], roles, list(cells(spec)), f"{spec.split}/accuracy", spec.accuracy
    )
    return {"summary": speed_results.summary(networks), "networks": networks}


def headline(tables: Mapping[str, Rows]) -> Headline:
    """One row for the standard networks and one per cell: epochs to the accuracy, and what the networks end at."""
    return speed_results.headline(tables["summary"])
