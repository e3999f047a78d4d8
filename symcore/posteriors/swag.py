"""SWAG: a Gaussian over the weights that training passes by (Maddox et al. 2019, "A Simple Baseline for Bayesian Uncertainty in Deep Learning").

Its mean is that of the weights at the ends of epochs. Half of its covariance is the diagonal of their second moments, the
other half that of the last few deviations from the mean: N(m, diag(s^2) / 2 + D D^T / (2 (K - 1))).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.func import vmap

from symcore.asymmetry import Parameters
from symcore.data.sources import Dataset
from symcore.metrics import Array, Evaluator
from symcore.population import Population
from symcore.posteriors import noise
from symcore.posteriors.lowrank import Gaussian
from symcore.posteriors.method import MethodSpec
from symcore.posteriors.predict import measure
from symcore.precision import Precision
from symcore.training import Trainer, TrainingSpec

MEAN, SQUARES, DEVIATIONS = "swag/mean/", "swag/squares/", "swag/deviations/"
"""What a checkpoint holds of a weight, by its name after these."""


class SWAGSpec(MethodSpec):
    """A Gaussian fitted to the weights at the ends of epochs; the learning rate should fall no further while they are taken up."""

    label: ClassVar[str] = "SWAG"

    kind: Literal["swag"] = "swag"
    start: int = Field(default=30, ge=0, le=100_000)
    """Epochs before those whose ends count."""
    rank: int = Field(default=20, ge=2, le=100)
    """Epochs whose deviations from the mean are kept, the last ones, K."""
    scale: float = Field(default=1.0, ge=0, le=1e3)
    """Covariance in parts of the definition's; with 0 all draws are the mean (Izmailov et al. 2018)."""

    def kept(self, training: TrainingSpec) -> int:
        """Mean, second moment and deviations."""
        del training
        return 2 + self.rank

    def check(self, training: TrainingSpec) -> None:
        """Whether two ends of epochs count, at the least.

        Raises:
            ValueError: if not.
        """
        if self.start > training.epochs - 2:
            accepted = (
                f"0 to {training.epochs - 2}" if training.epochs > 1 else "none, train for 2 epochs or more"
            )
            msg = f"start: {self.start} of {training.epochs} epochs leaves fewer than 2 to take up; accepted: {accepted}"
            raise ValueError(msg)


@dataclass(frozen=True)
class SWAGPosterior:
    """The Gaussian of every member."""

    population: Population
    """The networks at the means."""
    mean: Parameters
    """Effective weights, [member, *shape]."""
    variance: Parameters
    """Second central moments s^2 of the weights taken up, [member, *shape]; 0 where a weight is fixed."""
    deviations: Parameters
    """Of each of the last ends from the mean up to it, D, [member, K, *shape]."""
    scale: float
    """Covariance in parts of the definition's."""

    def draw(self, sample: int) -> Parameters:
        """Effective weights of every member, [member, *shape]."""
        names = list(self.mean)
        rank = next(iter(self.deviations.values())).shape[1]
        numbers = rank + sum(mean[0].numel() for mean in self.mean.values())
        spread = math.sqrt(self.scale * rank / (2 * max(1, rank - 1)))  # a Gaussian divides by its rank

        def one(mean: Parameters, variance: Parameters, deviations: Parameters, key: Tensor) -> Parameters:
            gaussian = Gaussian(
                list(mean.values()),
                [variance[name] * (self.scale / 2) for name in names],
                [deviations[name] * spread for name in names],
                rank,
            )
            return dict(zip(names, gaussian.draw(noise.Reel(key, numbers)), strict=True))

        keys = noise.keys(self.population.design.seeds, "posterior", sample).to(self.population.device)
        drawn: Parameters = vmap(one)(self.mean, self.variance, self.deviations, keys)
        return drawn


class SWAGTrainer(Trainer):
    """A population in training whose passing weights are taken up at the ends of epochs.

    Moments are summed as Welford (1962) has it: no large numbers are subtracted from each other, a sum of squares never
    falls, and one of a weight that stays in its place is exactly 0.
    """

    def __init__(
        self,
        population: Population,
        dataset: Dataset,
        spec: TrainingSpec,
        swag: SWAGSpec,
        precision: Precision = "float32",
    ) -> None:
        """Has taken up nothing yet.

        Args:
            population: networks at their start; it is left as it is.
            dataset: with a "train" split, on the population's device.
            spec: how they are trained.
            swag: from when on, how many deviations are kept, and the scale of draws.
            precision: arithmetic of matrix products and convolutions.

        Raises:
            ValueError: if fewer than two epochs are left to take up.
        """
        swag.check(spec)
        super().__init__(population, dataset, spec, precision=precision)
        self._swag = swag
        kept = min(swag.rank, spec.epochs - swag.start)
        self._mean, self._squares = (
            {name: w.new_zeros(w.shape) for name, w in self.weights.items()} for _ in range(2)
        )
        self._deviations = {name: w.new_zeros(len(w), kept, *w.shape[1:]) for name, w in self.weights.items()}

    @property
    def taken_up(self) -> int:
        """Ends of epochs that count so far."""
        return max(0, self.epoch - self._swag.start)

    def keep(self) -> None:
        """Takes up the weights as they are."""
        if not self.taken_up:
            return
        for name, weight in self.weights.items():
            mean, deviations = self._mean[name], self._deviations[name]
            before = weight - mean
            mean.add_(before / self.taken_up)
            after = weight - mean
            self._squares[name].addcmul_(before, after)
            deviations[:, (self.taken_up - 1) % deviations.shape[1]] = after

    def measure(self, evaluator: Evaluator, splits: Sequence[str]) -> dict[str, tuple[Array, Array]]:
        """Loss and accuracy of what training would give if it ended here, float64 [member].

        Until weights are taken up, those of the networks; then of the mean prediction of a few draws.
        """
        if not self.taken_up:
            return super().measure(evaluator, splits)
        return measure(self.posterior(), evaluator, self.dataset, splits)

    def posterior(self) -> SWAGPosterior:
        """The Gaussians as they are now (a copy).

        Raises:
            ValueError: if no weights were taken up yet.
        """
        if not self.taken_up:
            msg = (
                f"start: {self._swag.start}, and {self.epoch} epochs are done; accepted: fewer than are done"
            )
            raise ValueError(msg)
        return SWAGPosterior(
            self.trained(),
            {name: mean.clone() for name, mean in self._mean.items()},
            {name: squares / self.taken_up for name, squares in self._squares.items()},
            {name: kept[:, : self.taken_up].clone() for name, kept in self._deviations.items()},
            self._swag.scale,
        )

    def evaluated(self) -> Parameters:
        """The means, [member, *shape]; until weights are taken up, those that training has reached."""
        return self._mean if self.taken_up else self.weights

    def state(self) -> dict[str, Tensor]:
        """Every tensor that a step or an epoch's end changes, by name, but for the cursor."""
        parts = {MEAN: self._mean, SQUARES: self._squares, DEVIATIONS: self._deviations}
        taken = {part + name: tensor for part, all_of in parts.items() for name, tensor in all_of.items()}
        return super().state() | taken


def begin(
    population: Population,
    dataset: Dataset,
    training: TrainingSpec,
    spec: SWAGSpec,
    precision: Precision = "float32",
) -> SWAGTrainer:
    """A trainer of each member that takes up what it passes by."""
    return SWAGTrainer(population, dataset, training, spec, precision)


def posterior(trainer: SWAGTrainer) -> SWAGPosterior:
    """What has been taken up so far."""
    return trainer.posterior()
