"""Matching of many networks at once, cycle-consistent: every network is permuted into one common order of neurons.

The permutation from b to a goes by way of the common order, so going round any cycle of networks ends where it began. All
groups of all networks move together by Frank and Wolfe's method on sum_{p<q} <permuted p, permuted q> (C2M3, Crisostomi
et al. 2024); what it finds is then improved network by network against the sum of the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from symcore.align.ascent import GAIN
from symcore.align.matching import Matching, Networks, Watch
from symcore.align.proof import prove, proven
from symcore.align.soft import moved, vertex
from symcore.align.weights import match
from symcore.checkpoints import StoppedError
from symcore.data.sources import Dataset
from symcore.settings import Settings
from symcore.symmetry import permutations as symmetry
from symcore.symmetry.permutations import Group, PermutationSpec, by_neuron

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
    steps: int
    """Of Frank and Wolfe's method, and rounds over the networks."""

    def between(self, a: int, b: int) -> dict[str, Tensor]:
        """The permutation of network b that brings its neurons to those of network a, by group, [n]."""
        back = {name: p[a].argsort() for name, p in self.permutations.items()}
        return symmetry.compose({name: p[b] for name, p in self.permutations.items()}, back)


class CycleConsistent(Settings):
    """All networks into one common order of neurons, so that every cycle of permutations closes (C2M3)."""

    label: ClassVar[str] = "cycle-consistent matching"
    reads_images: ClassVar[bool] = False

    kind: Literal["cycle_consistent"] = "cycle_consistent"
    max_steps: int = Field(default=100, ge=1, le=10_000)
    """Most steps of Frank and Wolfe's method."""
    max_rounds: int = Field(default=20, ge=1, le=10_000)
    """Most rounds over the networks afterwards, each matched to the sum of the others."""

    def match(self, networks: Networks, images: Dataset | None, *, seed: int, watch: Watch) -> Matching:
        """Matches all networks that some pair names; each pair goes by way of the common order."""
        del images
        members = sorted({member for pair in networks.pairs for member in pair})
        order = match_many(
            networks.form,
            {name: w[members] for name, w in networks.weights.items()},
            networks.example,
            max_steps=self.max_steps,
            max_rounds=self.max_rounds,
            seed=seed,
            watch=watch,
        )
        places = [(members.index(a), members.index(b)) for a, b in networks.pairs]
        each = [order.between(a, b) for a, b in places]
        permutations = {g.name: torch.stack([p[g.name] for p in each]) for g in order.spec.groups}
        steps = torch.full((len(each),), order.steps)
        found: tuple[PermutationSpec, dict[str, Tensor], dict[str, Tensor]] = (order.spec, permutations, {})
        return proven(networks.form, networks.example, networks.a, networks.b, found, sweeps=steps, seed=seed)


def match_many(
    network: nn.Module,
    weights: Tensors,
    example_input: Tensor | tuple[Tensor, ...],
    *,
    max_steps: int = 100,
    max_rounds: int = 20,
    seed: int = 0,
    threads: int | None = None,
    watch: Watch | None = None,
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
        watch: told and asked before each step.

    Raises:
        ValueError: if there are fewer than two networks.
        AlignmentError: if a permuted network computes something else than the original.
        StoppedError: if the watch said so.
        DerivationError: if the network's permutations cannot be derived.
    """
    count = len(next(iter(weights.values())))
    if count < 2:
        msg = f"weights: got {count} networks; at least 2 are needed"
        raise ValueError(msg)
    watch = watch or Watch()
    spec = symmetry.derive(network, example_input).without_signs()
    double = {name: w.detach().double() for name, w in weights.items()}
    with ThreadPoolExecutor(threads or torch.get_num_threads()) as pool:
        found, steps = _frank_wolfe(spec, double, max_steps, pool, watch)
    start = symmetry.identity(spec, count)
    at_rest = _objective(double)
    if _objective(symmetry.permute(double, spec, found)) < at_rest:
        found = start
    found, rounds = _rounds(network, spec, double, found, example_input, max_rounds, seed, threads, watch)
    prove(network, example_input, double, spec, found, seed=seed)
    reached = _objective(symmetry.permute(double, spec, found))
    return CommonOrder(spec, found, reached, at_rest, steps + rounds)


def _objective(permuted: Tensors) -> float:
    """sum_{p<q} <permuted p, permuted q> = (|sum|^2 - sum of |.|^2) / 2."""
    return sum(float(w.sum(0).square().sum() - w.square().sum()) / 2 for w in permuted.values())


def _frank_wolfe(
    spec: PermutationSpec, weights: Tensors, max_steps: int, pool: Executor, watch: Watch
) -> tuple[dict[str, Tensor], int]:
    """All groups of all networks at once, as doubly stochastic matrices [network, n, n]; permutations, and the steps."""
    count = len(next(iter(weights.values())))
    device = next(iter(weights.values())).device
    soft = {
        g.name: torch.eye(g.size, dtype=torch.float64, device=device).repeat(count, 1, 1) for g in spec.groups
    }
    value = _objective(moved(weights, spec, soft))
    taken = 0
    for taken in range(1, max_steps + 1):
        if watch.stopping():
            raise StoppedError
        watch.on_progress((taken - 1) / max_steps, 2, f"step {taken} of at most {max_steps}")
        steps = {g.name: vertex(_gradient(weights, spec, soft, g), pool) - soft[g.name] for g in spec.groups}
        values = [_objective(moved(weights, spec, _shifted(soft, steps, x))) for x in NODES]
        stepped = _shifted(soft, steps, _highest(values))
        new = _objective(moved(weights, spec, stepped))
        if not new > value + GAIN * abs(value):
            break
        soft, value = stepped, new
    return {name: vertex(p, pool).argmax(2).cpu() for name, p in soft.items()}, taken


def _shifted(soft: Tensors, steps: Tensors, length: float) -> dict[str, Tensor]:
    return {name: p + length * steps[name] for name, p in soft.items()}


def _gradient(weights: Tensors, spec: PermutationSpec, soft: Tensors, group: Group) -> Tensor:
    """Of the objective with respect to one group's matrices, [network, n, n]."""
    total = torch.zeros_like(soft[group.name])
    for parameter, axis in group.axes:
        own = {parameter: weights[parameter]}
        here = PermutationSpec(tuple(_of(g, parameter) for g in spec.groups))
        whole = moved(own, here, soft)[parameter]
        others = whole.sum(0, keepdim=True) - whole
        partial = moved(own, here, soft, but=(parameter, axis))[parameter]
        total += by_neuron(others, axis, group.size) @ by_neuron(partial, axis, group.size).mT
    return total


def _of(group: Group, parameter: str) -> Group:
    return Group(group.name, group.size, tuple(a for a in group.axes if a[0] == parameter))


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
    watch: Watch,
) -> tuple[dict[str, Tensor], int]:
    """Weight matching of each network against the sum of the others, until a whole round gains nothing; and the rounds."""
    count = len(next(iter(weights.values())))
    permuted = symmetry.permute(weights, spec, found)
    turn = 0
    for turn in range(max_rounds):
        watch.on_progress(1 + turn / max_rounds, 2, f"round {turn + 1} of at most {max_rounds}")
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
                stopping=watch.stopping,
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
    return found, turn + 1
