"""Stochastic-gradient Langevin dynamics (Welling and Teh 2011): stochastic gradient descent with noise at every step."""

from __future__ import annotations

from typing import ClassVar, Literal

from symcore.data.sources import Dataset
from symcore.population import Population
from symcore.posteriors.draws import StoredDraws
from symcore.posteriors.sgmcmc import Chain, ChainTrainer
from symcore.precision import Precision
from symcore.training import TrainingSpec


class SGLDSpec(Chain):
    """A chain without momentum; with a learning rate l of the averaged loss the step size of Welling and Teh is 2 l over the images. Their draws count by their step size, here all count alike."""

    label: ClassVar[str] = "SGLD"

    kind: Literal["sgld"] = "sgld"

    def check(self, training: TrainingSpec) -> None:
        """Whether a training can be the chain's.

        Raises:
            ValueError: as for every chain, and if there is momentum.
        """
        super().check(training)
        if training.momentum:
            msg = f"momentum: {training.momentum:g}, and SGLD has none; accepted: 0, or the method SGHMC"
            raise ValueError(msg)


def begin(
    population: Population,
    dataset: Dataset,
    training: TrainingSpec,
    spec: SGLDSpec,
    precision: Precision = "float32",
) -> ChainTrainer:
    """A trainer of a chain for each member, at a population's weights."""
    return ChainTrainer(population, dataset, training, spec, precision=precision)


def posterior(trainer: ChainTrainer) -> StoredDraws:
    """What has been drawn so far."""
    return trainer.posterior()
