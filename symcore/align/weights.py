"""Git Re-Basin's weight matching (Ainsworth et al. 2023, algorithm 1) for many pairs of networks at once.

Coordinate ascent on <a, permuted b>: with all groups but one held, the best permutation of that one is a linear
assignment problem. Costs are batched products on the parameters' device; the assignments are scipy's, several threads
at a time. All of it is in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from symcore.align import quadratic
from symcore.align.matching import Matching, assign, inner_product
from symcore.align.proof import prove
from symcore.randomness import stream
from symcore.symmetry import permutations as symmetry
from symcore.symmetry.permutations import Group, PermutationSpec
from symcore.training import StoppedError

Tensors = Mapping[str, Tensor]

GAIN = 1e-12
"""A pair has converged when a whole sweep over the groups raises its objective by no more than this."""


@dataclass(frozen=True)
class Sweep:
    """How far an ascent has come after one sweep."""

    restart: int
    sweep: int
    moving: int
    """Pairs that have not converged."""
    objective: Tensor
    """<a, permuted b>, [pair] float64."""


def _never() -> bool:
    return False


def _ignore(_: Sweep) -> None:
    pass


def match(
    network: nn.Module,
    a: Tensors,
    b: Tensors,
    example_input: Tensor | tuple[Tensor, ...],
    *,
    spec: PermutationSpec | None = None,
    restarts: int = 1,
    max_sweeps: int = 100,
    seed: int = 0,
    threads: int | None = None,
    stopping: Callable[[], bool] = _never,
    on_sweep: Callable[[Sweep], None] = _ignore,
) -> Matching:
    """Matches the neurons of each b to those of its a, and proves that permuting b leaves its function as it is.

    What is random (the order of the groups in each sweep, the starts of further ascents) depends on seed, restart and
    sweep, not on the pair or its neighbours: a pair matched alone gets the permutations that it gets in a batch.

    Args:
        network: the common form of all networks; its buffers are used, its parameters are not.
        a: the weights that the networks compute with, by name, [pair, *shape].
        b: likewise.
        example_input: as the network takes it; the proof replaces floating-point inputs by normal values.
        spec: the network's permutations; none given, they are derived. Signs change too where they can, unless it is
            one `without_signs`.
        restarts: ascents, of which each pair keeps its best; the first starts from the identity, further ones from
            random permutations. Lim et al. 2024 use one.
        max_sweeps: most sweeps in one ascent.
        seed: of all that is random, at least 0.
        threads: for the assignments; none given, as many as torch uses.
        stopping: asked before each sweep whether to give up.
        on_sweep: told after each sweep.

    Raises:
        ValueError: if weights do not fit the network or each other, or are not finite.
        AlignmentError: if a permuted network computes something else than the original.
        StoppedError: if `stopping` said so.
        DerivationError: if the network's permutations cannot be derived.
    """
    for name, value in (("restarts", restarts), ("max_sweeps", max_sweeps)):
        if value < 1:
            msg = f"{name}: got {value}; at least 1 is needed"
            raise ValueError(msg)
    pairs = _Pairs(spec or symmetry.derive(network, example_input), _double(network, a), _double(network, b))
    pairs.check()
    with ThreadPoolExecutor(threads or torch.get_num_threads()) as pool:
        ascend = partial(
            _ascend, pairs, pool, seed, max_sweeps=max_sweeps, stopping=stopping, on_sweep=on_sweep
        )
        best = ascend(0)
        for restart in range(1, restarts):
            best = _better(best, ascend(restart))
    prove(network, example_input, pairs.b, best.spec, best.permutations, best.signs, seed=seed)
    return best


@dataclass(frozen=True)
class _Pairs:
    """Two networks per row, and the inner products between them."""

    spec: PermutationSpec
    a: dict[str, Tensor]
    b: dict[str, Tensor]

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return next(iter(self.a.values())).device

    def __len__(self) -> int:
        return len(next(iter(self.a.values())))

    def check(self) -> None:
        """Raises ValueError unless both sides have the same number of pairs, at least one, and finite weights."""
        for side, weights in (("a", self.a), ("b", self.b)):
            for name, weight in weights.items():
                if len(weight) != len(self) or not len(self):
                    msg = f"{side}: {name} has {len(weight)} pairs; expected {max(len(self), 1)}"
                    raise ValueError(msg)
                finite = weight.reshape(len(self), -1).isfinite().all(1)
                if not finite.all():
                    msg = f"{side}: {name} is not finite in pair {int(finite.int().argmin())}; such weights cannot be matched"
                    raise ValueError(msg)

    def select(self, rows: Tensor) -> _Pairs:
        """Some of the pairs."""
        rows = rows.to(self.device)
        return replace(
            self,
            a={name: w[rows] for name, w in self.a.items()},
            b={name: w[rows] for name, w in self.b.items()},
        )

    def objective(self, permutations: Tensors, signs: Tensors) -> Tensor:
        """<a, permuted b>, [pair], on the CPU."""
        return inner_product(self.a, self.b, self.spec, permutations, signs)

    def similarity(self, group: Group, permutations: Tensors, signs: Tensors) -> tuple[Tensor, Tensor]:
        """Inner products of the weights of a's neuron i and b's neuron j, all other axes permuted: [pair, i, j], twice.

        The first is over the weights that keep their sign when a neuron flips, the second over those that change it.
        """
        shape = (len(self), group.size, group.size)
        kept, flipped = (torch.zeros(shape, dtype=torch.float64, device=self.device) for _ in range(2))
        for parameter, axis in group.axes:
            other = self.b[parameter]
            for place, name in self.spec.parameters[parameter]:
                if place != axis:
                    other = symmetry.permute_axis(other, place, permutations[name])
                    if (parameter, place) in self.spec[name].flip:
                        other = symmetry.flip_axis(other, place, signs[name])
            total = flipped if (parameter, axis) in group.flip else kept
            total.baddbmm_(_by_neuron(self.a[parameter], axis), _by_neuron(other, axis).mT)
        return kept.cpu(), flipped.cpu()


def _by_neuron(weight: Tensor, axis: int) -> Tensor:
    """[pair, *shape] -> [pair, n, rest], n neurons along `axis` of shape."""
    front = weight.movedim(axis + 1, 1)
    return front.reshape(*front.shape[:2], -1)


def _double(network: nn.Module, weights: Tensors) -> dict[str, Tensor]:
    """Weights in float64, in the network's order, where float64 exists; raises ValueError if they do not fit it."""
    expected = dict(network.named_parameters())
    if weights.keys() != expected.keys():
        differing = ", ".join(sorted(weights.keys() ^ expected.keys()))
        msg = f"weights and network differ in the names of their parameters: {differing}"
        raise ValueError(msg)
    for name, parameter in expected.items():
        if weights[name].shape[1:] != parameter.shape or weights[name].dim() == 0:
            msg = f"{name}: got shape {list(weights[name].shape)}; expected [pair, {str(list(parameter.shape))[1:]}"
            raise ValueError(msg)
    device = next(iter(weights.values())).device
    device = torch.device("cpu") if device.type == "mps" else device
    return {name: weights[name].detach().to(device, torch.float64) for name in expected}


def _ascend(
    pairs: _Pairs,
    pool: Executor,
    seed: int,
    restart: int,
    *,
    max_sweeps: int,
    stopping: Callable[[], bool],
    on_sweep: Callable[[Sweep], None],
) -> Matching:
    """One coordinate ascent of all pairs; those that have converged rest."""
    spec, count = pairs.spec, len(pairs)
    found, signs = _start(spec, count, seed, restart)
    rest = symmetry.identity(spec, count), _positive(spec, count)
    identity_objective, objective = pairs.objective(*rest), pairs.objective(found, signs)
    sweeps = torch.zeros(count, dtype=torch.int64)
    rows, moving = torch.arange(count), pairs
    for sweep in range(max_sweeps):
        if stopping():
            raise StoppedError
        order = stream(seed, "match.order", restart, sweep).permutation(len(spec.groups))
        current = {name: p[rows] for name, p in found.items()}
        own = {name: s[rows] for name, s in signs.items()}
        gain = torch.zeros(len(rows), dtype=torch.float64)
        for group in order:
            gain += _improve(moving, spec.groups[group], current, own, pool)
        for name, p in current.items():
            found[name][rows] = p
        for name, s in own.items():
            signs[name][rows] = s
        objective[rows] += gain
        sweeps[rows] += 1
        going = gain > GAIN
        on_sweep(Sweep(restart, sweep, int(going.sum()), objective.clone()))
        if not going.any():
            break
        if not going.all():
            rows, moving = rows[going], moving.select(going.nonzero()[:, 0])
    kept = torch.full((count,), restart)
    return Matching(spec, found, pairs.objective(found, signs), identity_objective, sweeps, kept, signs)


def _start(
    spec: PermutationSpec, count: int, seed: int, restart: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The identity for the first ascent, the same random permutations and signs of all pairs for a further one."""
    if not restart:
        return symmetry.identity(spec, count), _positive(spec, count)
    draw = stream(seed, "match.start", restart)
    permutations, signs = symmetry.random(spec, draw), symmetry.random_signs(spec, draw)
    return (
        {name: p.repeat(count, 1) for name, p in permutations.items()},
        {name: s.repeat(count, 1) for name, s in signs.items()},
    )


def _positive(spec: PermutationSpec, count: int) -> dict[str, Tensor]:
    return {g.name: torch.ones(count, g.size, dtype=torch.int64) for g in spec.groups if g.flip}


def _improve(
    pairs: _Pairs, group: Group, permutations: dict[str, Tensor], signs: dict[str, Tensor], pool: Executor
) -> Tensor:
    """Replaces one group's permutations and signs where the best assignment raises the objective; the gains, [pair].

    A neuron takes the sign under which it is more alike, so pairs of neurons score |what flips| + what does not. Where
    a weight has the group on two axes (a residual layer, a recurrent map), that is only linear in one of them: a search
    finds another candidate, gains are measured, and a loss is not taken.
    """
    kept, flipped = pairs.similarity(group, permutations, signs)
    old, new = permutations[group.name], assign(kept + flipped.abs(), pool)
    sign = torch.where(flipped.gather(2, new[:, :, None])[:, :, 0] < 0, -1, 1)
    if quadratic.lies_twice(group):
        searched = quadratic.search(pairs.a, pairs.b, pairs.spec, group, permutations, signs, pool)
        return sum(
            (_take(pairs, group, permutations, signs, *found) for found in ((new, sign), searched)),
            start=torch.zeros(len(pairs), dtype=torch.float64),
        )
    before = kept + flipped * signs[group.name][:, :, None] if group.flip else kept
    after = kept + flipped.abs()
    gain = (after.gather(2, new[:, :, None]) - before.gather(2, old[:, :, None])).sum((1, 2))
    return _replace(group, permutations, signs, new, sign, gain)


def _take(
    pairs: _Pairs,
    group: Group,
    permutations: dict[str, Tensor],
    signs: dict[str, Tensor],
    new: Tensor,
    sign: Tensor,
) -> Tensor:
    """Takes a candidate where the objective with it is higher; returns the gains, [pair]."""
    own = signs | ({group.name: sign} if group.flip else {})
    gain = pairs.objective({**permutations, group.name: new}, own) - pairs.objective(permutations, signs)
    return _replace(group, permutations, signs, new, sign, gain)


def _replace(
    group: Group,
    permutations: dict[str, Tensor],
    signs: dict[str, Tensor],
    new: Tensor,
    sign: Tensor,
    gain: Tensor,
) -> Tensor:
    better = gain > 0
    permutations[group.name] = torch.where(better[:, None], new, permutations[group.name])
    if group.flip:
        signs[group.name] = torch.where(better[:, None], sign, signs[group.name])
    return torch.where(better, gain, 0)


def _better(kept: Matching, other: Matching) -> Matching:
    """The better of two matchings for each pair; the first where they do not differ."""
    better = other.objective > kept.objective + GAIN

    def choose(first: Tensors, second: Tensors) -> dict[str, Tensor]:
        return {name: torch.where(better[:, None], second[name], p) for name, p in first.items()}

    return Matching(
        kept.spec,
        choose(kept.permutations, other.permutations),
        torch.where(better, other.objective, kept.objective),
        kept.identity_objective,
        torch.where(better, other.sweeps, kept.sweeps),
        torch.where(better, other.restart, kept.restart),
        choose(kept.signs, other.signs),
    )
