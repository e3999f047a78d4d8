"""What every alignment finds: a permutation of every group of neurons, for each pair of networks."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from symcore.symmetry.permutations import PermutationSpec, permute

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Matching:
    """Permutations of every b that bring its neurons to those of its a.

    |a - permuted b|^2 = |a|^2 + |b|^2 - 2 * objective, so the largest objective is the smallest distance.
    """

    spec: PermutationSpec
    permutations: dict[str, Tensor]
    """By group, [pair, n] int64 on the CPU, as `symcore.symmetry.permutations.permute` takes them for b."""
    objective: Tensor
    """<a, permuted b> over all parameters, [pair] float64."""
    identity_objective: Tensor
    """<a, b>, [pair] float64."""
    sweeps: Tensor
    """Sweeps over all groups in the ascent that was kept, [pair] int64."""
    restart: Tensor
    """The ascent that was kept, [pair] int64; 0 is the one from the identity."""
    signs: dict[str, Tensor] = field(default_factory=dict)
    """-1 or 1 for every neuron of those groups that can change sign, [pair, n] on the CPU."""


def inner_product(
    a: Tensors, b: Tensors, spec: PermutationSpec, permutations: Tensors, signs: Tensors | None = None
) -> Tensor:
    """<a, permuted b> over all parameters [pair, *shape], [pair] float64 on the CPU."""
    return dot(a, permute(b, spec, permutations, signs))


def dot(a: Tensors, b: Tensors) -> Tensor:
    """<a, b> over all parameters [pair, *shape], [pair] float64 on the CPU."""
    products = [(w.double() * b[name].double()).reshape(len(w), -1).sum(1) for name, w in a.items()]
    return torch.stack(products).sum(0).cpu()


def assign(similarity: Tensor, pool: Executor) -> Tensor:
    """The permutation of each pair with the largest sum of similarity[pair, i, p[i]], [pair, n] int64."""
    return torch.from_numpy(np.stack(list(pool.map(_assign, similarity.cpu().numpy()))))


def _assign(similarity: np.ndarray) -> np.ndarray:
    columns: np.ndarray = linear_sum_assignment(similarity, maximize=True)[1]
    return columns
