"""Doubly stochastic matrices in place of permutations: weights mixed by them, and the permutations nearest to them.

Neurons that can change sign have a second matrix S beside their P: at a signed permutation S is P times the signs of its
rows, and between them every entry of |S| is at most that of P. Where a weight changes sign with a neuron it is mixed by S.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass

import torch
from torch import Tensor

from symcore.align.matching import assign
from symcore.symmetry.permutations import Group, PermutationSpec, by_neuron

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Soft:
    """Matrices [network, n, n] by group; row i says of which neurons the new neuron i is made."""

    kept: Tensors
    """P of every group."""
    flipped: Tensors
    """S of those groups that can change sign."""

    @classmethod
    def identity(cls, spec: PermutationSpec, like: Tensor) -> Soft:
        """The matrices of networks [network, *shape] that leave every neuron as it is, on their device and in their type."""
        kept = {g.name: torch.eye(g.size).to(like).repeat(len(like), 1, 1) for g in spec.groups}
        return cls(kept, {g.name: kept[g.name] for g in spec.groups if g.flip})

    def along(self, group: Group, parameter: str, axis: int) -> Tensor:
        """The matrices that act on one of a group's axes, [network, n, n]."""
        return (self.flipped if (parameter, axis) in group.flip else self.kept)[group.name]

    def plus(self, other: Soft, length: float) -> Soft:
        """These and so many times others."""
        return Soft(
            *(
                {name: m + length * theirs[name] for name, m in own.items()}
                for own, theirs in ((self.kept, other.kept), (self.flipped, other.flipped))
            )
        )


def moved(
    weights: Tensors, spec: PermutationSpec, soft: Soft, but: tuple[str, int] | None = None
) -> dict[str, Tensor]:
    """Weights with every axis of a group multiplied by the group's matrices; of permutations, the permuted weights.

    Args:
        weights: by name, [network, *shape]; others than the specification names pass unchanged.
        spec: the network's permutations.
        soft: the matrices.
        but: an axis of a parameter that is left as it is.
    """
    mixed = dict(weights)
    for group in spec.groups:
        for name, axis in group.axes:
            if (name, axis) != but:
                mixed[name] = _mix(mixed[name], axis, soft.along(group, name, axis))
    return mixed


def _mix(weight: Tensor, axis: int, matrix: Tensor) -> Tensor:
    """One axis of [network, *shape] times matrices [network, n, n]."""
    front = weight.movedim(axis + 1, 1)
    return (matrix @ by_neuron(weight, axis, matrix.shape[-1])).view(front.shape).movedim(1, axis + 1)


def vertex(by_p: Tensor, by_s: Tensor, pool: Executor) -> tuple[Tensor, Tensor]:
    """The signed permutations with the largest inner products with P and S, as matrices P and S [network, n, n].

    A neuron takes the sign under which it is more alike, so pairs of neurons score by_p + |by_s|.
    """
    chosen = assign(by_p + by_s.abs(), pool).to(by_p.device)
    p = torch.nn.functional.one_hot(chosen, by_p.shape[-1]).to(by_p)
    return p, p * torch.where(by_s < 0, -1.0, 1.0)


def nearest(score: Soft, pool: Executor) -> Soft:
    """The signed permutations of all groups with the largest inner products with scores of their matrices."""
    found = {
        name: vertex(p, score.flipped.get(name, torch.zeros_like(p)), pool) for name, p in score.kept.items()
    }
    return Soft({name: p for name, (p, _) in found.items()}, {name: found[name][1] for name in score.flipped})
