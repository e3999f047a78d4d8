"""Stochastic-gradient Hamiltonian Monte Carlo (Chen, Fox and Guestrin 2014): Langevin dynamics with momentum and friction."""

from __future__ import annotations

from typing import ClassVar, Literal

from symcore.data.sources import Dataset
from symcore.population import Population
from symcore.posteriors.draws import StoredDraws
from symcore.posteriors.sgmcmc import Chain, ChainTrainer
from symcore.precision import Precision
from symcore.training import TrainingSpec


class SGHMCSpec(Chain):
    """A chain with the training's momentum, of which friction and noise keep the temperature; without momentum it is SGLD."""

    label: ClassVar[str] = "SGHMC"

    kind: Literal["sghmc"] = "sghmc"


def begin(
    population: Population,
    dataset: Dataset,
    training: TrainingSpec,
    spec: SGHMCSpec,
    precision: Precision = "float32",
) -> ChainTrainer:
    """A trainer of a chain for each member, at a population's weights."""
    return ChainTrainer(population, dataset, training, spec, precision=precision)


def posterior(trainer: ChainTrainer) -> StoredDraws:
    """What has been drawn so far."""
    return trainer.posterior()
