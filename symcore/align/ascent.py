"""Coordinate ascent on <a, permuted b>, one group of neurons after another, for many pairs of networks at once.

With all groups but one held, the best permutation of that one is a linear assignment problem. What has been permuted is
kept permuted: a group's costs are then one product of each of its weights with its counterpart, and an assignment says
how neurons move from where they are. A group around which nothing has moved since its last assignment would stay, and
is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor

import torch
from torch import Tensor

from symcore.align import quadratic
from symcore.align.matching import assign, dot
from symcore.symmetry import permutations as symmetry
from symcore.symmetry.permutations import Group, PermutationSpec, by_neuron, flip_axis, permute_axis

Tensors = Mapping[str, Tensor]

GAIN = 1e-12
"""A pair has converged when a whole sweep over the groups raises its objective by no more than this."""


class Ascent:
    """Where an ascent stands: the permutations and signs of every pair so far, and b permuted by them."""

    def __init__(
        self,
        spec: PermutationSpec,
        a: Tensors,
        b: Tensors,
        permutations: Tensors,
        signs: Tensors,
        pool: Executor,
    ) -> None:
        """Starts from some permutations.

        Args:
            spec: the network's permutations.
            a: weights by name, [pair, *shape], float64.
            b: likewise; what is permuted.
            permutations: by group, [pair, n] on the CPU.
            signs: by group that can change sign, [pair, n] on the CPU.
            pool: runs the assignments.
        """
        self.spec, self.a, self._pool = spec, a, pool
        self.permutations = {name: p.clone() for name, p in permutations.items()}
        self.signs = {name: s.clone() for name, s in signs.items()}
        self.moved = symmetry.permute(b, spec, permutations, signs)
        """b permuted as it stands, [pair, *shape]."""
        self._stale = {group.name: torch.ones(len(self), dtype=torch.bool) for group in spec.groups}

    def __len__(self) -> int:
        return len(next(iter(self.a.values())))

    def head_for(self, a: Tensors) -> None:
        """Goes on towards other weights."""
        self.a = a
        for stale in self._stale.values():
            stale.fill_(value=True)

    def objective(self) -> Tensor:
        """<a, permuted b> over all parameters, [pair] on the CPU."""
        return dot(self.a, self.moved)

    def sweep(self, order: Sequence[int], going: Tensor) -> Tensor:
        """Improves every group once, in an order, for those pairs that are going, bool [pair]; the gains, [pair]."""
        gain = torch.zeros(len(self), dtype=torch.float64)
        for group in (self.spec.groups[place] for place in order):
            rows = (self._stale[group.name] & going).nonzero()[:, 0]
            if len(rows):
                self._stale[group.name][rows] = False
                gain[rows] += self._improve(group, rows)
        return gain

    def _improve(self, group: Group, rows: Tensor) -> Tensor:
        """Moves one group of some pairs where the best assignment raises the objective; the gains, [row].

        A neuron takes the sign under which it is more alike, so pairs of neurons score |what flips| + what does not.
        Where a weight has the group on two axes (a residual layer, a recurrent map), that is only linear in one of
        them: a search finds another candidate, gains are measured, and a loss is not taken.
        """
        a, b = ({name: _some(side[name], rows) for name in _of(group)} for side in (self.a, self.moved))
        kept, flipped = similarity(group, a, b)
        score = kept if flipped is None else kept + flipped.abs()
        move = assign(score, self._pool)
        sign = _one_signs(flipped, move)
        if quadratic.lies_twice(group):
            found = quadratic.search(a, b, group, self._pool)
            linear_gain, found_gain = _gain(a, b, group, move, sign), _gain(a, b, group, *found)
            better = found_gain > linear_gain
            move, sign = (
                torch.where(better[:, None], two, one) for one, two in zip((move, sign), found, strict=True)
            )
            gain = torch.where(better, found_gain, linear_gain)
        else:
            now = kept if flipped is None else kept + flipped
            chosen = score.gather(2, move.to(score.device)[:, :, None])[:, :, 0]
            gain = (chosen - now.diagonal(dim1=1, dim2=2)).sum(1).cpu()
        better = gain > 0
        self._move(group, rows[better], move[better], sign[better])
        return gain.clamp(min=0)

    def _move(self, group: Group, rows: Tensor, move: Tensor, sign: Tensor) -> None:
        """Moves the neurons of one group in some pairs, [row, n]; its neighbours may then improve again."""
        for name in _of(group) if len(rows) else ():
            moved = permuted_by(_some(self.moved[name], rows), name, group, move, sign)
            if len(rows) == len(self):
                self.moved[name] = moved
            else:
                self.moved[name].index_copy_(0, rows.to(moved.device), moved)
        self.permutations[group.name][rows] = self.permutations[group.name][rows].gather(1, move)
        if group.flip:
            self.signs[group.name][rows] = self.signs[group.name][rows].gather(1, move) * sign
        for neighbour in self._neighbours(group):
            self._stale[neighbour][rows] = True

    def _neighbours(self, group: Group) -> set[str]:
        """Groups whose costs depend on where this one's neurons are; one that lies twice on a weight is its own."""
        found = {name for parameter in _of(group) for _, name in self.spec.parameters[parameter]}
        return found if quadratic.lies_twice(group) else found - {group.name}


def climb(
    ascent: Ascent,
    order: Callable[[int], Sequence[int]],
    max_sweeps: int,
    on_sweep: Callable[[int, Tensor, Tensor], None] = lambda _sweep, _going, _gain: None,
) -> Tensor:
    """Sweeps until no pair gains; those that have converged rest. Returns the sweeps of each pair, int64 [pair].

    Args:
        ascent: what climbs.
        order: of the groups, for a sweep from 0.
        max_sweeps: most sweeps.
        on_sweep: told after each sweep its number, which pairs go on, bool [pair], and the gains, [pair].
    """
    going = torch.ones(len(ascent), dtype=torch.bool)
    sweeps = torch.zeros(len(ascent), dtype=torch.int64)
    for sweep in range(max_sweeps):
        sweeps += going
        gain = ascent.sweep(order(sweep), going)
        going = gain > GAIN
        on_sweep(sweep, going, gain)
        if not going.any():
            break
    return sweeps


def _of(group: Group) -> tuple[str, ...]:
    """The parameters on which a group's neurons lie."""
    return tuple(dict.fromkeys(parameter for parameter, _ in group.axes))


def _some(tensor: Tensor, rows: Tensor) -> Tensor:
    """Rows of a tensor; all of them in order without a copy."""
    return tensor if len(rows) == len(tensor) else tensor[rows.to(tensor.device)]


def similarity(group: Group, a: Tensors, b: Tensors) -> tuple[Tensor, Tensor | None]:
    """Inner products of the weights of a's neuron i and b's neuron j, [pair, i, j], on the weights' device.

    The first is over the weights that keep their sign when a neuron flips, the second over those that change it; none
    where the group's neurons cannot flip.
    """
    first = a[group.axes[0][0]]
    kept = first.new_zeros(len(first), group.size, group.size)
    flipped = torch.zeros_like(kept) if group.flip else None
    for parameter, axis in group.axes:
        total = flipped if flipped is not None and (parameter, axis) in group.flip else kept
        one, other = (by_neuron(side[parameter], axis, group.size) for side in (a, b))
        total.baddbmm_(one, other.mT)
    return kept, flipped


def _one_signs(flipped: Tensor | None, move: Tensor) -> Tensor:
    """The sign of each neuron under which it is more alike, [pair, n]; 1 where none can flip."""
    if flipped is None:
        return torch.ones_like(move)
    chosen = flipped.gather(2, move.to(flipped.device)[:, :, None])[:, :, 0]
    return torch.where(chosen < 0, -1, 1).cpu()


def permuted_by(weight: Tensor, name: str, group: Group, move: Tensor, sign: Tensor) -> Tensor:
    """A parameter [pair, *shape] with one group's neurons moved and flipped, [pair, n] each."""
    for parameter, axis in group.axes:
        if parameter == name:
            weight = permute_axis(weight, axis, move)
            if (parameter, axis) in group.flip:
                weight = flip_axis(weight, axis, sign)
    return weight


def _gain(a: Tensors, b: Tensors, group: Group, move: Tensor, sign: Tensor) -> Tensor:
    """What moving one group's neurons adds to the objective, [pair]."""
    moved = {name: permuted_by(w, name, group, move, sign) for name, w in b.items()}
    return dot(a, moved) - dot(a, b)
