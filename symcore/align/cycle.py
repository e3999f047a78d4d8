"""Matching of many networks at once, cycle-consistent: every network is permuted into one common order of neurons.

The permutation from b to a goes by way of the common order, so going round any cycle of networks ends where it began. All
groups of all networks move together by Frank and Wolfe's method on sum_{p<q} <permuted p, permuted q> (C2M3, Crisostomi
et al. 2024), here over signed permutations where neurons have them; what it finds is then improved network by network
against the sum of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from symcore.align.ascent import GAIN
from symcore.align.learning import Found
from symcore.align.matching import Matching, Networks, Watch
from symcore.align.proof import prove, proven
from symcore.align.soft import Soft, moved, nearest
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
    """Signed permutations of every network into an order of neurons that all share."""

    spec: PermutationSpec
    permutations: dict[str, Tensor]
    """By group, [network, n] int64 on the CPU, as `symcore.symmetry.permutations.permute` takes them."""
    signs: dict[str, Tensor]
    """-1 or 1 for every neuron of those groups that can change sign, [network, n] on the CPU."""
    objective: float
    """Sum over pairs of networks of the inner products of their permuted weights."""
    identity_objective: float
    """The same sum without permuting."""
    steps: int
    """Of Frank and Wolfe's method, and rounds over the networks."""

    def between(self, a: int, b: int) -> Found:
        """The permutation of network b that brings its neurons to those of network a, and its signs, by group, [n]."""
        back = symmetry.invert({name: p[a] for name, p in self.permutations.items()})
        permutations = symmetry.compose({name: p[b] for name, p in self.permutations.items()}, back)
        both = {name: s[a] * s[b] for name, s in self.signs.items()}
        return permutations, {name: s.take_along_dim(back[name], -1) for name, s in both.items()}


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
        permutations, signs = map(_stacked, zip(*(order.between(a, b) for a, b in places), strict=True))
        steps = torch.full((len(places),), order.steps)
        found = (order.spec, permutations, signs)
        return proven(networks.form, networks.example, networks.a, networks.b, found, sweeps=steps, seed=seed)


def _stacked(each: Sequence[Tensors]) -> dict[str, Tensor]:
    """Tensors [n] of every pair as [pair, n], by group."""
    return {name: torch.stack([one[name] for one in each]) for name in each[0]}


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
    spec = symmetry.derive(network, example_input)
    double = {name: w.detach().double() for name, w in weights.items()}
    with ThreadPoolExecutor(threads or torch.get_num_threads()) as pool:
        found, steps = _frank_wolfe(spec, double, max_steps, pool, watch)
    at_rest = _objective(double)
    if _objective(symmetry.permute(double, spec, *found)) < at_rest:
        found = symmetry.identity(spec, count), symmetry.positive(spec, count)
    found, rounds = _rounds(network, spec, double, found, example_input, max_rounds, seed, threads, watch)
    prove(network, example_input, double, spec, *found, seed=seed)
    reached = _objective(symmetry.permute(double, spec, *found))
    return CommonOrder(spec, *found, reached, at_rest, steps + rounds)


def _objective(permuted: Tensors) -> float:
    """sum_{p<q} <permuted p, permuted q> = (|sum|^2 - sum of |.|^2) / 2."""
    return sum(float(w.sum(0).square().sum() - w.square().sum()) / 2 for w in permuted.values())


def _frank_wolfe(
    spec: PermutationSpec, weights: Tensors, max_steps: int, pool: Executor, watch: Watch
) -> tuple[Found, int]:
    """All groups of all networks at once, as matrices [network, n, n]; permutations and signs, and the steps."""
    soft = Soft.identity(spec, next(iter(weights.values())))
    value = _objective(moved(weights, spec, soft))
    taken = 0
    for taken in range(1, max_steps + 1):
        if watch.stopping():
            raise StoppedError
        watch.on_progress((taken - 1) / max_steps, 2, f"step {taken} of at most {max_steps}")
        step = nearest(_gradients(weights, spec, soft), pool).plus(soft, -1)
        values = [_objective(moved(weights, spec, soft.plus(step, x))) for x in NODES]
        stepped = soft.plus(step, _highest(values))
        new = _objective(moved(weights, spec, stepped))
        if not new > value + GAIN * abs(value):
            break
        soft, value = stepped, new
    hard = nearest(soft, pool)
    permutations = {name: p.argmax(2).cpu() for name, p in hard.kept.items()}
    return (permutations, {name: s.sum(2).long().cpu() for name, s in hard.flipped.items()}), taken


def _gradients(weights: Tensors, spec: PermutationSpec, soft: Soft) -> Soft:
    """Of the objective with respect to all matrices."""
    found = {g.name: _gradient(weights, spec, soft, g) for g in spec.groups}
    return Soft({name: p for name, (p, _) in found.items()}, {name: found[name][1] for name in soft.flipped})


def _gradient(weights: Tensors, spec: PermutationSpec, soft: Soft, group: Group) -> tuple[Tensor, Tensor]:
    """Of the objective with respect to one group's matrices P and S, [network, n, n] each."""
    by_p = torch.zeros_like(soft.kept[group.name])
    by_s = torch.zeros_like(by_p)
    for parameter, axis in group.axes:
        own = {parameter: weights[parameter]}
        here = PermutationSpec(tuple(_of(g, parameter) for g in spec.groups))
        whole = moved(own, here, soft)[parameter]
        others = whole.sum(0, keepdim=True) - whole
        partial = moved(own, here, soft, but=(parameter, axis))[parameter]
        total = by_s if (parameter, axis) in group.flip else by_p
        total += by_neuron(others, axis, group.size) @ by_neuron(partial, axis, group.size).mT
    return by_p, by_s


def _of(group: Group, parameter: str) -> Group:
    return replace(group, axes=tuple(a for a in group.axes if a[0] == parameter))


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
    found: Found,
    example_input: Tensor | tuple[Tensor, ...],
    max_rounds: int,
    seed: int,
    threads: int | None,
    watch: Watch,
) -> tuple[Found, int]:
    """Weight matching of each network against the sum of the others, until a whole round gains nothing; and the rounds."""
    count = len(next(iter(weights.values())))
    permuted = symmetry.permute(weights, spec, *found)
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
            )
            further = symmetry.permute(own, spec, matched.permutations, matched.signs)
            _then(found, one, matched)
            for name, w in further.items():
                permuted[name][one] = w[0]
        if not _objective(permuted) > before + GAIN * abs(before):
            break
    return found, turn + 1


def _then(found: Found, one: int, matched: Matching) -> None:
    """Goes on from what was found for one network, in place, to what brings it closer to the others."""
    own, signs = ({name: t[one : one + 1] for name, t in of.items()} for of in found)
    later = (
        symmetry.compose(own, matched.permutations),
        symmetry.compose_signs(signs, matched.permutations, matched.signs),
    )
    for of, new in zip(found, later, strict=True):
        for name, tensor in new.items():
            of[name][one] = tensor[0]
