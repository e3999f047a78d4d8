"""Stochastic-gradient Markov chain Monte Carlo in populations: each member is a chain, whose passing states are draws.

Steps are those of SGD with noise, on the potential of an image: with N training images and temperature T

    potential = mean negative log-likelihood + T / N * sum of precision * n * W^2 / 2,    weights ~ exp(-potential * N / T),

which is likelihood^(1 / T) * prior: what variational inference at this temperature approximates, and what `PosteriorDensity`
is. Wenzel et al. 2020 temper the prior too; their posterior with precision p is this one with precision p / T.

The learning rate l and the momentum m are SGD's, per averaged loss (Wenzel et al. 2020, section 2.3): a step size h = sqrt(l / N)
and a friction (1 - m) / h in time. There is no test that rejects, so a finite learning rate spreads draws too far: in a
direction in which the potential's curvature is c, their variance is 1 / (1 - l * c / (2 * (1 + m))) times the posterior's,
and the noise of minibatches adds to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from symcore.data.sources import Dataset
from symcore.optimisers import blocks, langevin
from symcore.population import Population
from symcore.posteriors import noise
from symcore.posteriors.draws import StoredDraws
from symcore.posteriors.layers import groups
from symcore.posteriors.prior import Prior
from symcore.precision import Precision
from symcore.training import Trainer, TrainingSpec


class Chain(Prior):
    """Base of the methods that draw from a chain; what is in no matrix's or filters' layer, as norms, is drawn too, with n = 1."""

    label: ClassVar[str]

    burn_in: int = Field(default=20, ge=0, le=100_000)
    """Epochs before the first draw."""
    thin: int = Field(default=1, ge=1, le=100_000)
    """Epochs, or cycles where there are some, from one draw to the next; all draws are kept in memory."""
    cycle: int = Field(default=1, ge=1, le=100_000)
    """Epochs of a cycle, in which the learning rate falls along half a cosine, to start anew at its height; a draw is taken at its end (Zhang et al. 2020). 1: there are none."""

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0, in parts of what the training's own schedule has there."""
        return (1 + math.cos(math.pi * (epoch % self.cycle) / self.cycle)) / 2

    def collected(self, epochs: int) -> Sequence[int]:
        """After which of so many epochs, counted from 1, a draw is taken.

        Raises:
            ValueError: if after none.
        """
        first = (self.burn_in // self.cycle + self.thin) * self.cycle
        if first > epochs:
            latest = (epochs // self.cycle - self.thin + 1) * self.cycle - 1
            shorter = f"0 to {latest}, or " if latest >= 0 else ""
            msg = (
                f"burn_in: {self.burn_in} leaves no draw in {epochs} epochs with thin {self.thin} and cycle {self.cycle}; "
                f"accepted: {shorter}epochs from {first}"
            )
            raise ValueError(msg)
        return range(first, epochs + 1, self.thin * self.cycle)

    def kept(self, training: TrainingSpec) -> int:
        """All draws."""
        return len(self.collected(training.epochs))

    def check(self, training: TrainingSpec) -> None:
        """Whether a training can be a chain's.

        Raises:
            ValueError: if it leaves no draws, or its steps are not SGD's, or it has a weight decay beside the prior.
        """
        self.collected(training.epochs)
        if training.optimizer != "sgd":
            msg = f"optimizer: {training.optimizer!r} takes no steps of {self.label}; accepted: 'sgd', to which noise is added"
            raise ValueError(msg)
        if training.weight_decay:
            msg = f"weight_decay: {training.weight_decay:g} would be a prior beside that of {self.label}; accepted: 0"
            raise ValueError(msg)


class ChainTrainer(Trainer):
    """A population of chains; the metrics of an epoch are those of the states that they have reached."""

    def __init__(
        self,
        population: Population,
        dataset: Dataset,
        training: TrainingSpec,
        spec: Chain,
        *,
        precision: Precision = "float32",
    ) -> None:
        """Puts chains at rest where the population's weights are.

        Args:
            population: networks at their start; it is left as it is.
            dataset: with a "train" split, on the population's device; with augmentation, or a norm over the batch, an
                image's likelihood is what it is in its minibatch.
            training: epochs, batch, learning rate and how it changes, momentum.
            spec: prior, temperature, and when draws are taken.
            precision: arithmetic of matrix products and convolutions.

        Raises:
            ValueError: if the training cannot be a chain's.
        """
        spec.check(training)
        self.chain, self._collected = spec, spec.collected(training.epochs)
        example = torch.zeros(2, *dataset.source.input_shape, device=population.device)
        layers = groups(population.network, example)
        self._scales = dict.fromkeys(population.parameters, 1)
        self._scales |= {name: layer.scale for layer in layers for name in layer.names}
        super().__init__(population, dataset, training, precision=precision)
        self.draws = {name: w.new_zeros(len(self._collected), *w.shape) for name, w in self.weights.items()}
        """Effective weights, [draw, member, *shape]; 0 where the chain has not come yet."""

    def begun(self, start: blocks.Start) -> langevin.Block:
        """A block at rest; a parameter's decay is the prior's pull on it."""
        heat, purpose = self.chain.temperature / self.samples, f"langevin {next(iter(start.layout.shapes))}"
        decay = {name: heat * self.chain.precision * scale for name, scale in self._scales.items()}
        keys = noise.keys(self.population.design.seeds, purpose).to(start.weights.device)
        return langevin.begin(start, decay, keys, self.spec.momentum, heat)

    def rate(self, epoch: int) -> float:
        """The training's schedule, within cycles."""
        return super().rate(epoch) * self.chain.rate(epoch)

    def keep(self) -> None:
        """Takes a draw where one is due."""
        if self.epoch in self._collected:
            at = self._collected.index(self.epoch)
            for name, drawn in self.draws.items():
                drawn[at].copy_(self.weights[name])

    def state(self) -> dict[str, Tensor]:
        """With the draws."""
        return super().state() | {f"draws/{name}": drawn for name, drawn in self.draws.items()}

    def posterior(self) -> StoredDraws:
        """The draws taken so far, and the networks where the chains are now (a copy).

        Raises:
            ValueError: if there are none yet.
        """
        taken = sum(epoch <= self.epoch for epoch in self._collected)
        if not taken:
            msg = f"epoch: after {self.epoch} there are no draws; accepted: {self._collected[0]} or later"
            raise ValueError(msg)
        return StoredDraws(self.trained(), {name: drawn[:taken] for name, drawn in self.draws.items()})
