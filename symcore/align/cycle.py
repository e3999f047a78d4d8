"""Matching of many networks at once, cycle-consistent: every network is permuted into one common order of neurons.

The permutation from b to a goes by way of the common order, so going round any cycle of networks ends where it began. All
groups of all networks move together by Frank and Wolfe's method on sum_{p<q} <permuted p, permuted q> (C2M3, Crisostomi
et al. 2024); what it finds is then improved network by network against the sum of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from symcore.align.ascent import GAIN
from symcore.align.matching import assign
from symcore.align.proof import prove
from symcore.align.weights import match
from symcore.symmetry import permutations as symmetry
from symcore.symmetry.permutations import Group, PermutationSpec
from symcore.training import StoppedError

Tensors = Mapping[str, Tensor]

NODES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Step lengths at which the objective is evaluated: five determine it on the whole step."""


@dataclass(frozen=True)
class CommonOrder:
    """Permutations of every network into an order of neurons that all share."""

    spec: PermutationSpec
    permutations: dict[str, Tensor]
    """By group, [network, n] int64 on the CPU, as `symcore.symmetry.permutations.permute` takes them."""
    objective: float
    """Sum over pairs of networks of the inner products of their permuted weights."""
    identity_objective: float
    """The same sum without permuting."""

    def between(self, a: int, b: int) -> dict[str, Tensor]:
        """The permutation of network b that brings its neurons to those of network a, by group, [n]."""
        back = {name: p[a].argsort() for name, p in self.permutations.items()}
        return symmetry.compose({name: p[b] for name, p in self.permutations.items()}, back)


def _never() -> bool:
    return False


def match_many(
    network: nn.Module,
    weights: Tensors,
    example_input: Tensor | tuple[Tensor, ...],
    *,
    max_steps: int = 100,
    max_rounds: int = 20,
    seed: int = 0,
    threads: int | None = None,
    stopping: Callable[[], bool] = _never,
) -> CommonOrder:
    """Finds the common order, and proves that permuting into it leaves every function as it is.

    Args:
        network: the common form of all networks.
        weights: that they compute with, by name, [network, *shape]; at least two networks.
        example_input: as the network takes it.
        max_steps: most steps of Frank and Wolfe's method.
        max_rounds: most rounds over the networks afterwards.
        seed: of the orders of groups in those rounds.
        threads: for the assignments; none given, as many as torch uses.
        stopping: asked before each step whether to give up.

    Raises:
        ValueError: if there are fewer than two networks.
        AlignmentError: if a permuted network computes something else than the original.
        StoppedError: if `stopping` said so.
        DerivationError: if the network's permutations cannot be derived.
    """
    count = len(next(iter(weights.values())))
    if count < 2:
        msg = f"weights: got {count} networks; at least 2 are needed"
        raise ValueError(msg)
    spec = symmetry.derive(network, example_input).without_signs()
    double = {name: w.detach().double() for name, w in weights.items()}
    with ThreadPoolExecutor(threads or torch.get_num_threads()) as pool:
        found = _frank_wolfe(spec, double, max_steps, pool, stopping)
    start = symmetry.identity(spec, count)
    at_rest = _objective(double)
    if _objective(symmetry.permute(double, spec, found)) < at_rest:
        found = start
    found = _rounds(network, spec, double, found, example_input, max_rounds, seed, threads, stopping)
    prove(network, example_input, double, spec, found, seed=seed)
    return CommonOrder(spec, found, _objective(symmetry.permute(double, spec, found)), at_rest)


def _objective(permuted: Tensors) -> float:
    """sum_{p<q} <permuted p, permuted q> = (|sum|^2 - sum of |.|^2) / 2."""
    return sum(float(w.sum(0).square().sum() - w.square().sum()) / 2 for w in permuted.values())


def _frank_wolfe(
    spec: PermutationSpec, weights: Tensors, max_steps: int, pool: Executor, stopping: Callable[[], bool]
) -> dict[str, Tensor]:
    """All groups of all networks at once, as doubly stochastic matrices [network, n, n]; permutations at the end."""
    count = len(next(iter(weights.values())))
    device = next(iter(weights.values())).device
    soft = {
        g.name: torch.eye(g.size, dtype=torch.float64, device=device).repeat(count, 1, 1) for g in spec.groups
    }
    value = _objective(_moved(weights, spec, soft))
    for _ in range(max_steps):
        if stopping():
            raise StoppedError
        steps = {g.name: _vertex(_gradient(weights, spec, soft, g), pool) - soft[g.name] for g in spec.groups}
        values = [_objective(_moved(weights, spec, _shifted(soft, steps, x))) for x in NODES]
        moved = _shifted(soft, steps, _highest(values))
        new = _objective(_moved(weights, spec, moved))
        if not new > value + GAIN * abs(value):
            break
        soft, value = moved, new
    return {name: _vertex(p, pool).argmax(2).cpu() for name, p in soft.items()}


def _shifted(soft: Tensors, steps: Tensors, length: float) -> dict[str, Tensor]:
    return {name: p + length * steps[name] for name, p in soft.items()}


def _vertex(score: Tensor, pool: Executor) -> Tensor:
    """The permutation matrices with the largest inner products."""
    chosen = assign(score, pool).to(score.device)
    return torch.nn.functional.one_hot(chosen, score.shape[-1]).to(score)


def _moved(
    weights: Tensors, spec: PermutationSpec, soft: Tensors, but: tuple[str, int] | None = None
) -> dict[str, Tensor]:
    """Weights with every axis of a group multiplied by its matrices, except one axis of one parameter."""
    moved = dict(weights)
    for name, incident in spec.parameters.items():
        for axis, group in incident:
            if (name, axis) != but:
                moved[name] = _mix(moved[name], axis, soft[group])
    return moved


def _mix(weight: Tensor, axis: int, matrix: Tensor) -> Tensor:
    """One axis of [network, *shape] times matrices [network, n, n]."""
    front = weight.movedim(axis + 1, 1)
    mixed = (
        matrix @ front.flatten(2) if front.ndim > 2 else (matrix @ front.unsqueeze(2)).squeeze(2)
    ).view_as(front)
    return mixed.movedim(1, axis + 1)


def _gradient(weights: Tensors, spec: PermutationSpec, soft: Tensors, group: Group) -> Tensor:
    """Of the objective with respect to one group's matrices, [network, n, n]."""
    total = torch.zeros_like(soft[group.name])
    for parameter, axis in group.axes:
        own = {parameter: weights[parameter]}
        here = PermutationSpec(tuple(_of(g, parameter) for g in spec.groups))
        whole = _moved(own, here, soft)[parameter]
        others = whole.sum(0, keepdim=True) - whole
        partial = _moved(own, here, soft, but=(parameter, axis))[parameter]
        total += _rows(others, axis) @ _rows(partial, axis).mT
    return total


def _of(group: Group, parameter: str) -> Group:
    return Group(group.name, group.size, tuple(a for a in group.axes if a[0] == parameter))


def _rows(weight: Tensor, axis: int) -> Tensor:
    front = weight.movedim(axis + 1, 1)
    return front.reshape(*front.shape[:2], -1)


def _highest(values: list[float]) -> float:
    """Where a quartic with these values at NODES is highest between 0 and 1.

    It is one because a weight moves on up to two axes, in each of the two networks of an inner product.
    """
    quartic = np.polynomial.Polynomial.fit(NODES, values, 4)
    roots = np.asarray(quartic.deriv().roots(), dtype=complex)
    stationary = roots.real[(np.abs(roots.imag) < 1e-9) & (roots.real > 0) & (roots.real < 1)]
    candidates = np.concatenate([[0.0, 1.0], stationary])
    return float(candidates[np.argmax(quartic(candidates))])


def _rounds(
    network: nn.Module,
    spec: PermutationSpec,
    weights: Tensors,
    found: dict[str, Tensor],
    example_input: Tensor | tuple[Tensor, ...],
    max_rounds: int,
    seed: int,
    threads: int | None,
    stopping: Callable[[], bool],
) -> dict[str, Tensor]:
    """Weight matching of each network against the sum of the others, until a whole round gains nothing."""
    count = len(next(iter(weights.values())))
    permuted = symmetry.permute(weights, spec, found)
    for turn in range(max_rounds):
        before = _objective(permuted)
        for one in range(count):
            others = {name: (w.sum(0) - w[one]).unsqueeze(0) for name, w in permuted.items()}
            own = {name: w[one : one + 1] for name, w in permuted.items()}
            matched = match(
                network,
                others,
                own,
                example_input,
                spec=spec,
                seed=seed + turn,
                threads=threads,
                stopping=stopping,
            ).permutations
            further = symmetry.compose(
                {name: p[one] for name, p in found.items()}, {n: p[0] for n, p in matched.items()}
            )
            for name, p in further.items():
                found[name][one] = p
            for name, w in symmetry.permute(own, spec, matched).items():
                permuted[name][one] = w[0]
        if not _objective(permuted) > before + GAIN * abs(before):
            break
    return found
