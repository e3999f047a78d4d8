"""Deep ensembles (Lakshminarayanan et al. 2017): networks that differ in their seeds alone are draws from what is believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field

from symcore.data.sources import Dataset
from symcore.metrics import Array, Evaluator
from symcore.population import Population, build
from symcore.posteriors.draws import StoredDraws
from symcore.posteriors.method import MethodSpec
from symcore.posteriors.predict import measure
from symcore.precision import Precision
from symcore.randomness import torch_seed
from symcore.training import Trainer, TrainingSpec


class EnsembleSpec(MethodSpec):
    """Networks trained beside each other, each from its own start and on its own minibatches."""

    label: ClassVar[str] = "deep ensemble"

    kind: Literal["ensemble"] = "ensemble"
    networks: int = Field(default=5, ge=2, le=100)
    """Networks of each ensemble; the first one is the member itself."""

    @property
    def products(self) -> int:
        """Those of all networks."""
        return self.networks

    @property
    def copies(self) -> int:
        """One in each network."""
        return self.networks


def ensembles(members: Population, networks: int) -> Population:
    """Every member followed by the other networks of its ensemble, as one population; their masks are the member's.

    Seeds of the others come from the member's, so that an ensemble does not depend on its neighbours.
    """
    design = members.design
    seeds = [
        torch_seed(seed, "ensemble", network) if network else seed
        for seed in design.seeds
        for network in range(networks)
    ]
    each = [member for member in range(members.size) for _ in range(networks)]
    masks = tuple(design.mask_seeds[member] for member in each) if members.stacked else design.mask_seeds
    built = build(replace(design, seeds=tuple(seeds), mask_seeds=masks), members.device)
    for name, weights in members.parameters.items():
        built.parameters[name][::networks] = weights
    return built


class EnsembleTrainer(Trainer):
    """The networks of every ensemble in training, as one population; what is told of it is told of each member."""

    def __init__(
        self,
        members: Population,
        dataset: Dataset,
        spec: TrainingSpec,
        networks: int,
        precision: Precision = "float32",
    ) -> None:
        """Builds the other networks.

        Args:
            members: the first network of each ensemble, at its start; they are left as they are.
            dataset: with a "train" split, on their device.
            spec: how all networks are trained.
            networks: of each ensemble.
            precision: arithmetic of matrix products and convolutions.
        """
        super().__init__(ensembles(members, networks), dataset, spec, precision=precision)
        self.members, self._networks = members, networks

    def mean_loss(self) -> Array:
        """Mean of the networks' mean minibatch losses of the epoch, in nats, float64 [member]."""
        losses: Array = super().mean_loss().reshape(-1, self._networks).mean(1)
        return losses

    def measure(self, evaluator: Evaluator, splits: Sequence[str]) -> dict[str, tuple[Array, Array]]:
        """Loss and accuracy of the networks' mean prediction, float64 [member]."""
        return measure(self.posterior(), evaluator, self.dataset, splits, self._networks)

    def posterior(self) -> StoredDraws:
        """All networks as they are now (a copy), the member itself first."""
        weights = {
            name: w.unflatten(0, (-1, self._networks))
            .transpose(0, 1)
            .clone(memory_format=torch.contiguous_format)
            for name, w in self.weights.items()
        }
        return StoredDraws(self.trained(), weights)

    def trained(self) -> Population:
        """The first network of each ensemble as it is now (a copy)."""
        first = {
            name: w[:: self._networks].clone(memory_format=torch.contiguous_format)
            for name, w in self.weights.items()
        }
        return self.members.with_effective(first)


def begin(
    population: Population,
    dataset: Dataset,
    training: TrainingSpec,
    spec: EnsembleSpec,
    precision: Precision = "float32",
) -> EnsembleTrainer:
    """A trainer of the ensemble of each member."""
    return EnsembleTrainer(population, dataset, training, spec.networks, precision)


def posterior(trainer: EnsembleTrainer) -> StoredDraws:
    """The networks as they are, as many draws for each member."""
    return trainer.posterior()
