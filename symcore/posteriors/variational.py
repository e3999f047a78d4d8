"""Variational inference in populations: each member's Gaussians over its weights, trained on the evidence lower bound.

The loss is the mean negative log-likelihood of a minibatch under weights drawn afresh, plus the divergence from the prior
per training image. With a temperature T below 1 the divergence counts T times as much, which makes a cold posterior.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.func import vmap

from symcore.asymmetry import Asymmetry, Parameters
from symcore.data.sources import Dataset
from symcore.metrics import Array
from symcore.population import Population
from symcore.posteriors import noise
from symcore.posteriors.layers import Group, Rule
from symcore.posteriors.lowrank import Gaussian, divergence
from symcore.posteriors.noisy import NoisyTrainer
from symcore.precision import Precision
from symcore.randomness import torch_seed
from symcore.training import TrainingSpec

MEAN, FACTOR, LOG_VARIANCE = "mean/", "factor/", "log_variance/"
"""What is trained of a weight, by its name after these."""
MASK, CENTER = "mask/", "center/"
"""What else a step reads of it."""
MATRIX_DIRECTIONS, BIAS_DIRECTIONS = 0.5, 0.01
"""Standard deviation of v at the start: of a matrix in parts of its weights' over sqrt(R), and of vectors."""


@dataclass(frozen=True)
class Family:
    """Gaussians of one form over the weights of a network, and the prior N(0, 1 / (precision n)) of each weight W.

    n is the number of a linear layer's outputs, of a convolution's input channels.
    """

    rank: int
    """Directions beside the diagonal, R."""
    log_variance: float
    """log s^2 of every weight, at the start where it is learned."""
    learned: bool
    """Whether each weight's s^2 is trained."""
    prior_precision: float
    temperature: float
    """What the divergence counts, in parts of what Bayes' rule has it count."""

    def prior(self, group: Group) -> float:
        """The prior's variance."""
        return 1 / (self.prior_precision * group.scale)

    def gaussian(self, group: Group, trained: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Gaussian:
        """A group's Gaussian, from what is trained and D where something is fixed; all [*shape], or with members in front."""
        means = [trained[MEAN + name] for name in group.names]
        if self.learned:
            variances = [trained[LOG_VARIANCE + name].exp() for name in group.names]
        else:
            variances = [torch.full_like(mean, math.exp(self.log_variance)) for mean in means]
        variances = [
            variance * masks[name] if name in masks else variance
            for name, variance in zip(group.names, variances, strict=True)
        ]
        factors = [
            trained[FACTOR + name] if self.rank else mean.new_zeros(0, *mean.shape)
            for name, mean in zip(group.names, means, strict=True)
        ]
        return Gaussian(means, variances, factors, self.rank)


@dataclass(frozen=True)
class VariationalPosterior:
    """The Gaussians of every member."""

    population: Population
    """The networks at the means."""
    family: Family
    groups: Sequence[Group]
    trained: Parameters
    """What was trained, by name, [member, *shape] or [member, R, *shape]."""

    def draw(self, sample: int) -> Parameters:
        """Effective weights of every member, [member, *shape]."""
        names, masks = self.population.parameters, _masks(self.population.asymmetry)
        random = [self.trained[MEAN + name] for group in self.groups for name in group.names]
        numbers = sum(mean[0].numel() for mean in random) + self.family.rank * len(self.groups)
        seeds, device = self.population.design.seeds, self.population.device
        stacked = 0 if self.population.stacked else None

        def one(trained: Parameters, masks: Parameters, key: Tensor) -> Parameters:
            values = {name: trained[MEAN + name] for name in names}
            normal = noise.Reel(key, numbers)
            for group in self.groups:
                drawn = self.family.gaussian(group, trained, masks).draw(normal)
                values |= zip(group.names, drawn, strict=True)
            return values

        keys = noise.keys(seeds, "posterior", sample).to(device)
        drawn: Parameters = vmap(one, in_dims=(0, stacked, 0))(self.trained, masks, keys)
        return drawn

    def divergence(self) -> Array:
        """From the prior, in nats, float64 [member]."""
        masks, centers = _masks(self.population.asymmetry), _centers(self.population.asymmetry)
        stacked = 0 if self.population.stacked else None
        many = vmap(partial(_divergence, self.family, self.groups), in_dims=(0, stacked, stacked))
        total: Array = many(self.trained, masks, centers).double().cpu().numpy()
        return total


def _masks(asymmetry: Asymmetry | None) -> Parameters:
    return dict(asymmetry.trainable) if asymmetry else {}


def _centers(asymmetry: Asymmetry | None) -> Parameters:
    """Where the prior of effective weights is centred, for it is one of W, and these are F + W; only if that is not 0."""
    offsets = asymmetry.offsets() if asymmetry else {}
    return {name: offset for name, offset in offsets.items() if offset.any()}


def _divergence(
    family: Family,
    groups: Sequence[Group],
    trained: Parameters,
    masks: Parameters,
    centers: Parameters,
) -> Tensor:
    """The sum over all groups, []."""
    layers = [family.gaussian(group, trained, masks) for group in groups]
    at = [[centers.get(name, 0.0) for name in group.names] for group in groups]
    return divergence(layers, at, [family.prior(group) for group in groups])


def _part(held: Parameters, part: str) -> Parameters:
    """Those whose names begin so, by what comes after."""
    return {name.removeprefix(part): tensor for name, tensor in held.items() if name.startswith(part)}


class VariationalTrainer(NoisyTrainer):
    """A population of Gaussians in training; a weight's mean is named "mean/readout.weight", say."""

    def __init__(
        self,
        population: Population,
        dataset: Dataset,
        spec: TrainingSpec,
        family: Family,
        precision: Precision = "float32",
    ) -> None:
        """Puts the means where the population's weights are.

        Args:
            population: networks at their start; it is left as it is.
            dataset: with a "train" split, on the population's device.
            spec: how Gaussians are trained; a weight decay acts on all that is trained of them.
            family: their form and the prior.
            precision: arithmetic of matrix products and convolutions.
        """
        self.family = family
        super().__init__(population, dataset, spec, "variational", noise.normal, precision)

    def start(self) -> tuple[Parameters, Asymmetry | None]:
        """Means at the population's weights; variances and directions as the family has them; and their masks."""
        means, asymmetry = self.population.effective(), self.population.asymmetry
        weights = {MEAN + name: mean for name, mean in means.items()}
        if self.family.learned:
            level = self.family.log_variance
            weights |= {LOG_VARIANCE + n: torch.full_like(means[n], level) for n in self._random()}
        if self.family.rank:
            weights |= {FACTOR + name: self._directions(name) for name in self._random()}
        if asymmetry is None:
            return weights, None
        return self._fixed_first(weights, asymmetry)

    def _random(self) -> list[str]:
        return [name for group in self.groups for name in group.names]

    def _directions(self, name: str) -> Tensor:
        """V at the start: for matrices and vectors a part of what the weights are, for filters 0 (Lim et al. 2024's code)."""
        mean, rank = self.population.effective()[name], self.family.rank
        seeds = self.population.design.seeds
        if mean.ndim > 3:
            return mean.new_zeros(len(mean), rank, *mean.shape[1:])
        drawn = [
            torch.randn(rank, *mean.shape[1:], generator=torch.Generator().manual_seed(seed))
            for seed in (torch_seed(seed, "directions " + name) for seed in seeds)
        ]
        if mean.ndim == 2:
            return BIAS_DIRECTIONS * torch.stack(drawn).to(mean)
        spread = mean.flatten(1).std(1) * MATRIX_DIRECTIONS / math.sqrt(rank)
        return spread.view(-1, 1, 1, 1) * torch.stack(drawn).to(mean)

    def _fixed_first(self, weights: Parameters, asymmetry: Asymmetry) -> tuple[Parameters, Asymmetry]:
        """What is trained, its fixed entries at their values, and their masks."""
        trainable: Parameters = {}
        fixed: Parameters = {}
        at = 1 if asymmetry.stacked else 0
        for name, d in asymmetry.trainable.items():
            trainable[MEAN + name], fixed[MEAN + name] = d, asymmetry.fixed[name]
            if name not in self._random():
                continue
            if self.family.learned:
                trainable[LOG_VARIANCE + name], fixed[LOG_VARIANCE + name] = (
                    d,
                    torch.zeros_like(d, dtype=torch.float32),
                )
            if self.family.rank:
                wide = d.unsqueeze(at).expand(*d.shape[:at], self.family.rank, *d.shape[at:])
                trainable[FACTOR + name], fixed[FACTOR + name] = (
                    wide,
                    torch.zeros_like(wide, dtype=torch.float32),
                )
        masks = Asymmetry(trainable, fixed, asymmetry.stacked)
        return masks.apply(masks.raw(weights)), masks

    def held(self) -> Parameters:
        """Masks, where the prior is centred, and buffers."""
        asymmetry = self.population.asymmetry
        parts = {MASK: _masks(asymmetry), CENTER: _centers(asymmetry)}
        named = {part + name: tensor for part, own in parts.items() for name, tensor in own.items()}
        return named | super().held()

    def objective(self, likelihood: Tensor, trained: Parameters, held: Parameters) -> Tensor:
        """The negative evidence lower bound per training image."""
        prior = _divergence(self.family, self.groups, trained, _part(held, MASK), _part(held, CENTER))
        return likelihood + self.family.temperature / self.samples * prior

    def noisy(self, trained: Parameters, held: Parameters, x: Tensor, draw: noise.Draw) -> Tensor:
        """One network's logits [batch, class] with weights drawn for each example, or once where layers are passed again."""
        values = {name: trained[MEAN + name] for name in self.population.parameters}
        rules: dict[int, Rule] = {}
        for group in self.groups:
            gaussian = self.family.gaussian(group, trained, _part(held, MASK))
            if group.once:
                rules[id(values[group.names[0]])] = partial(gaussian.at_outputs, normal=draw)
            else:
                values |= zip(group.names, gaussian.draw(draw), strict=True)
        return self.logits(values, held, x, rules)

    def posterior(self) -> VariationalPosterior:
        """The Gaussians as they are now (a copy)."""
        trained = {name: tensor.clone() for name, tensor in self.weights.items()}
        return VariationalPosterior(self.trained(), self.family, self.groups, trained)

    def evaluated(self) -> Parameters:
        """The means, [member, *shape]."""
        return {name: self.weights[MEAN + name] for name in self.population.parameters}
