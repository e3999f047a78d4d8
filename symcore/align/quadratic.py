"""Neurons on both axes of one weight, as in a recurrent map: the objective is quadratic, so one assignment is not enough.

Frank and Wolfe's method over doubly stochastic matrices, with exact line search, and a projection at the end (FAQ,
Vogelstein et al. 2015), here also for signed permutations: P holds who takes whose place, S = P times signs.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from symcore.align.soft import vertex
from symcore.symmetry.permutations import Group, by_neuron

Tensors = Mapping[str, Tensor]

STEPS = 30
"""Most steps of one search; few are needed before the line search finds nothing more."""


@dataclass
class _Objective:
    """<K, P> + <F, S> + sum of <A, X B Y^T> with X and Y each P or S, for every pair."""

    kept: Tensor
    """K, [pair, n, n]."""
    flipped: Tensor
    """F, [pair, n, n]."""
    quadratic: list[tuple[Tensor, Tensor, bool, bool]] = field(default_factory=list)
    """A and B [pair, rest, n, n], and whether X and Y are S."""

    def gradient(self, p: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """With respect to P and to S."""
        by_p, by_s = self.kept.clone(), self.flipped.clone()
        for a, b, rows_flip, columns_flip in self.quadratic:
            x, y = ((s if flips else p).unsqueeze(1) for flips in (rows_flip, columns_flip))
            (by_s if rows_flip else by_p).add_((a @ y @ b.mT).sum(1))
            (by_s if columns_flip else by_p).add_((a.mT @ x @ b).sum(1))
        return by_p, by_s

    def curvature(self, p: Tensor, s: Tensor) -> Tensor:
        """The quadratic part alone, [pair]."""
        total = self.kept.new_zeros(len(self.kept))
        for a, b, rows_flip, columns_flip in self.quadratic:
            x, y = ((s if flips else p).unsqueeze(1) for flips in (rows_flip, columns_flip))
            total += (a * (x @ b @ y.mT)).sum((1, 2, 3))
        return total


def lies_twice(group: Group) -> bool:
    """Whether some parameter has the group on two axes."""
    parameters = [parameter for parameter, _ in group.axes]
    return len(set(parameters)) < len(parameters)


def search(a: Tensors, b: Tensors, group: Group, pool: Executor) -> tuple[Tensor, Tensor]:
    """Where one group's neurons could move, and which could flip, all others held: int64 [pair, n] each, on the CPU.

    The start is halfway between staying and not knowing anything.

    Args:
        a: the group's weights by name, [pair, *shape], float64.
        b: likewise; what is permuted.
        group: which one.
        pool: runs the assignments.
    """
    told = _objective(a, b, group)
    now = torch.eye(group.size, dtype=told.kept.dtype, device=told.kept.device)
    p = ((now + 1 / group.size) / 2).expand_as(told.kept)
    s = now.expand_as(p) / 2 if group.flip else torch.zeros_like(p)
    for _ in range(STEPS):
        by_p, by_s = told.gradient(p, s)
        vertex_p, vertex_s = vertex(by_p, by_s, pool)
        step_p, step_s = vertex_p - p, (vertex_s if group.flip else 0) - s
        rise = (by_p * step_p).sum((1, 2)) + (by_s * step_s).sum((1, 2))
        length = _highest(rise, told.curvature(step_p, step_s))
        p, s = p + length * step_p, s + length * step_s
        if not length.any():
            break
    chosen_p, chosen_s = vertex(p, s, pool)
    permutation = chosen_p.argmax(2)
    return permutation.cpu(), chosen_s.sum(2).sign().long().cpu()


def _objective(a: Tensors, b: Tensors, group: Group) -> _Objective:
    """Every weight that has the group."""
    first = a[group.axes[0][0]]
    nothing = first.new_zeros(len(first), group.size, group.size)
    told = _Objective(nothing, nothing.clone())
    for parameter in dict.fromkeys(parameter for parameter, _ in group.axes):
        own = [axis for name, axis in group.axes if name == parameter]
        flips = [(parameter, axis) in group.flip for axis in own]
        if len(own) == 1:
            total = told.flipped if flips[0] else told.kept
            one, other = (by_neuron(side[parameter], own[0], group.size) for side in (a, b))
            total += one @ other.mT
        else:
            fronts = [_by_two(side[parameter], own, group.size) for side in (a, b)]
            told.quadratic.append((fronts[0], fronts[1], flips[0], flips[1]))
    return told


def _by_two(weight: Tensor, axes: list[int], n: int) -> Tensor:
    """Weights [pair, *shape] by the n neurons on each of two axes of shape, which ascend, [pair, rest, n, n]."""
    first, second = (axis + 1 for axis in axes)
    apart: Tensor = weight.unflatten(second, (n, -1)).unflatten(first, (n, -1))
    return apart.movedim((first, second + 1), (1, 2)).flatten(3).movedim(-1, 1)


def _highest(rise: Tensor, bend: Tensor) -> Tensor:
    """Where between 0 and 1 rise * x + bend * x^2 is highest, [pair, 1, 1]."""
    inside = (-rise / (2 * bend)).clamp(0, 1)
    ends = (rise + bend > 0).to(rise)
    return torch.where(bend < 0, inside, ends).view(-1, 1, 1)
