"""Gaussians over the weights of a layer with a diagonal and a few directions: N(m, diag(s^2) + v^T v / R), v of R rows.

Tomczak, Swaroop and Turner (2020), "Efficient Low Rank Gaussian Variational Inference for Neural Networks" (ELRG). With R = 0
it is a mean-field Gaussian. What D fixes has no variance: it is no random weight, and no term of the divergence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from symcore.posteriors.layers import Passage
from symcore.posteriors.noise import Draw

SMALLEST = 1e-30
"""A variance whose root still has a finite slope."""


@dataclass(frozen=True)
class Gaussian:
    """A layer's Gaussian, of each of its parameters one tensor; every layer's tensors may have a member axis in front."""

    means: Sequence[Tensor]
    """Effective weights, [*shape]."""
    variances: Sequence[Tensor]
    """The diagonal s^2, [*shape]; 0 where a weight is fixed."""
    factors: Sequence[Tensor]
    """v, [R, *shape]; 0 where a weight is fixed."""
    rank: int
    """R."""

    def at_outputs(self, passage: Passage, normal: Draw) -> Tensor:
        """What a layer gives that each example passes with weights of its own, drawn at the layer's outputs.

        Means and variances of the outputs are those that the weights give them. Outputs of one example are correlated
        through v as those of one draw of the weights; the diagonal's noise is taken to be independent at each place of
        a feature map, which it is not (Kingma et al. 2015).
        """
        out = passage.apply(passage.inputs, *_pair(self.means))
        variance = passage.apply(passage.inputs.square(), *_pair(self.variances))
        # the root's slope at 0 is infinite, and a row may be fixed as a whole
        deviation = torch.where(variance > 0, variance.clamp(min=SMALLEST).sqrt(), 0)
        out = out + deviation * normal(out.shape)
        if not self.rank:
            return out
        stacked = [factor.flatten(0, 1) for factor in self.factors]
        spread = passage.apply(passage.inputs, *_pair(stacked))
        share = normal((len(out), self.rank)) / math.sqrt(self.rank)
        axis = 1 if self.means[0].ndim > 2 else -1  # of channels in a feature map, of neurons else
        directions = spread.unflatten(axis, (self.rank, -1)).movedim(1 if axis == 1 else -2, 1)
        low_rank: Tensor = (directions * share.view(*share.shape, *[1] * (out.ndim - 1))).sum(1)
        return out + low_rank

    def draw(self, normal: Draw) -> list[Tensor]:
        """The layer's parameters, drawn once, [*shape] each."""
        share = normal((self.rank,)) / math.sqrt(max(1, self.rank))
        drawn = []
        for mean, variance, factor in zip(self.means, self.variances, self.factors, strict=True):
            deviation = torch.where(variance > 0, variance.clamp(min=SMALLEST).sqrt(), 0)
            own = deviation * normal(mean.shape)
            drawn.append(mean + own + (factor * share.view(-1, *[1] * mean.ndim)).sum(0))
        return drawn

    def divergence(self, centers: Sequence[Tensor | float], prior: float) -> tuple[Tensor, Tensor]:
        """The divergence from the prior N(center, prior) of each random weight, in two parts: see `divergence`.

        Args:
            centers: the prior's means, [*shape] or one number, by parameter.
            prior: its variance.

        Returns:
            Twice the divergence in nats but for the determinant, [], and the matrix that it is of, [R, R].
        """
        total = torch.zeros((), device=self.means[0].device)
        matrix = torch.eye(self.rank, device=self.means[0].device)
        parts = zip(self.means, self.variances, self.factors, centers, strict=True)
        for mean, variance, factor, center in parts:
            random = variance > 0
            off = torch.where(random, mean - center, 0)
            known = torch.where(random, variance, 1)
            total = total + (variance.sum() + off.square().sum()) / prior - known.log().sum()
            total = total + random.sum() * (math.log(prior) - 1)
            if self.rank:
                total = total + factor.square().sum() / (self.rank * prior)
                scaled = (factor / known.sqrt()).flatten(1)
                matrix = matrix + scaled @ scaled.t() / self.rank
        return total, matrix


def divergence(
    layers: Sequence[Gaussian], centers: Sequence[Sequence[Tensor | float]], priors: Sequence[float]
) -> Tensor:
    """Kullback-Leibler divergence of all layers' Gaussians from their priors, in nats, []; exact.

    With a = 1 / R, a prior variance p and d random weights, a layer's is half of sum(s^2) / p - sum(log s^2) + a |v|^2 / p
    + |m - center|^2 / p + d (log p - 1) - log det(I + a v diag(1 / s^2) v^T).

    Args:
        layers: all of one rank.
        centers: the priors' means, by layer and parameter.
        priors: their variances, by layer.
    """
    parts = [layer.divergence(at, prior) for layer, at, prior in zip(layers, centers, priors, strict=True)]
    totals, matrices = (torch.stack(each) for each in zip(*parts, strict=True))
    return (totals - log_determinant(matrices)).sum() / 2


def log_determinant(matrices: Tensor) -> Tensor:
    """Log det of small symmetric positive matrices [..., n, n], by elimination: no library call waits for a GPU."""
    total = torch.zeros(matrices.shape[:-2], device=matrices.device)
    for _ in range(matrices.shape[-1]):
        pivot, row = matrices[..., :1, :1], matrices[..., :1, 1:]
        total = total + pivot[..., 0, 0].log()
        matrices = matrices[..., 1:, 1:] - row.mT * row / pivot
    return total


def _pair(parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Weight and bias."""
    return parameters[0], (parameters[1] if len(parameters) > 1 else None)
