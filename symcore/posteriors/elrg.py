"""Efficient low-rank Gaussian variational inference (Tomczak, Swaroop and Turner 2020), as Lim et al. 2024 have it."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from symcore.data.sources import Dataset
from symcore.population import Population
from symcore.posteriors.prior import Prior
from symcore.posteriors.variational import Family, VariationalPosterior, VariationalTrainer
from symcore.precision import Precision
from symcore.training import TrainingSpec


class ELRGSpec(Prior):
    """A Gaussian over the weights of each layer, with a diagonal and a few directions: N(m, diag(s^2) + v^T v / R)."""

    label: ClassVar[str] = "ELRG"

    kind: Literal["elrg"] = "elrg"
    rank: int = Field(default=4, ge=1, le=32)
    """Directions v in each layer, R."""
    diagonal: Literal["constant", "learned"] = "constant"
    """Whether every weight has the same variance s^2 throughout, or its own, which is trained."""
    log_variance: float = Field(default=-10.0, ge=-40, le=2)
    """log s^2 of every weight; where variances are trained, at the start."""

    @property
    def products(self) -> int:
        """Matrix products of a layer for each that a network has without a posterior."""
        return 2 + self.rank

    @property
    def copies(self) -> int:
        """Numbers that are trained of each weight."""
        return 1 + self.rank + (self.diagonal == "learned")


def begin(
    population: Population,
    dataset: Dataset,
    training: TrainingSpec,
    spec: ELRGSpec,
    precision: Precision = "float32",
) -> VariationalTrainer:
    """A trainer of the posterior of each member, at a population's weights."""
    family = Family(
        spec.rank, spec.log_variance, spec.diagonal == "learned", spec.precision, spec.temperature
    )
    return VariationalTrainer(population, dataset, training, family, precision=precision)


def posterior(trainer: VariationalTrainer) -> VariationalPosterior:
    """What has been learned so far."""
    return trainer.posterior()
