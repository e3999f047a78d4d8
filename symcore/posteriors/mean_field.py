"""Mean-field variational inference: independent Gaussians (Blundell et al. 2015, "Weight Uncertainty in Neural Networks")."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from symcore.data.sources import Dataset
from symcore.population import Population
from symcore.posteriors.prior import Prior
from symcore.posteriors.variational import Family, VariationalPosterior, VariationalTrainer
from symcore.precision import Precision
from symcore.training import TrainingSpec


class MeanFieldSpec(Prior):
    """A Gaussian over each weight with a mean and a variance of its own, both trained."""

    label: ClassVar[str] = "mean-field"

    kind: Literal["mean_field"] = "mean_field"
    log_variance: float = Field(default=-10.0, ge=-40, le=2)
    """Log of every weight's variance at the start."""

    @property
    def products(self) -> int:
        """Matrix products of a layer for each that a network has without a posterior."""
        return 2

    @property
    def copies(self) -> int:
        """Numbers that are trained of each weight."""
        return 2


def begin(
    population: Population,
    dataset: Dataset,
    training: TrainingSpec,
    spec: MeanFieldSpec,
    precision: Precision = "float32",
) -> VariationalTrainer:
    """A trainer of the posterior of each member, at a population's weights."""
    family = Family(
        0, spec.log_variance, learned=True, prior_precision=spec.precision, temperature=spec.temperature
    )
    return VariationalTrainer(population, dataset, training, family, precision=precision)


def posterior(trainer: VariationalTrainer) -> VariationalPosterior:
    """What has been learned so far."""
    return trainer.posterior()
