"""Doubly stochastic matrices in place of permutations: weights mixed by them, and the permutations nearest to them."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor

import torch
from torch import Tensor

from symcore.align.matching import assign
from symcore.symmetry.permutations import PermutationSpec, by_neuron

Tensors = Mapping[str, Tensor]


def moved(
    weights: Tensors, spec: PermutationSpec, soft: Tensors, but: tuple[str, int] | None = None
) -> dict[str, Tensor]:
    """Weights with every axis of a group multiplied by the group's matrices; of permutations, the permuted weights.

    Args:
        weights: by name, [network, *shape]; others than the specification names pass unchanged.
        spec: the network's permutations.
        soft: by group, [network, n, n]; row i says of which neurons the new neuron i is made.
        but: an axis of a parameter that is left as it is.
    """
    mixed = dict(weights)
    for name, incident in spec.parameters.items():
        for axis, group in incident:
            if (name, axis) != but:
                mixed[name] = _mix(mixed[name], axis, soft[group])
    return mixed


def _mix(weight: Tensor, axis: int, matrix: Tensor) -> Tensor:
    """One axis of [network, *shape] times matrices [network, n, n]."""
    front = weight.movedim(axis + 1, 1)
    return (matrix @ by_neuron(weight, axis, matrix.shape[-1])).view(front.shape).movedim(1, axis + 1)


def vertex(score: Tensor, pool: Executor) -> Tensor:
    """The permutation matrices with the largest inner products, [network, n, n]."""
    chosen = assign(score, pool).to(score.device)
    return torch.nn.functional.one_hot(chosen, score.shape[-1]).to(score)
