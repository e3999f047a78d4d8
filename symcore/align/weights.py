"""Git Re-Basin's weight matching (Ainsworth et al. 2023, algorithm 1) for many pairs of networks at once.

`symcore.align.ascent` climbs. Costs are batched products on the parameters' device; the assignments are scipy's,
several threads at a time. All of it is in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from symcore.align.ascent import GAIN, Ascent, climb
from symcore.align.matching import Matching, Networks, Watch, are_finite, check_finite, dot, in_parts
from symcore.align.proof import prove
from symcore.checkpoints import StoppedError
from symcore.data.sources import Dataset
from symcore.randomness import stream
from symcore.settings import Settings
from symcore.symmetry import permutations as symmetry
from symcore.symmetry.permutations import PermutationSpec

Tensors = Mapping[str, Tensor]


class WeightMatching(Settings):
    """Weight matching (Git Re-Basin, Ainsworth et al. 2023, algorithm 1): weights as close as they can be."""

    label: ClassVar[str] = "weight matching"
    reads_images: ClassVar[bool] = False

    kind: Literal["weight_matching"] = "weight_matching"
    restarts: int = Field(default=1, ge=1, le=1000)
    """Ascents from which the best is kept; the first starts at the identity. The paper uses one."""
    max_sweeps: int = Field(default=100, ge=1, le=10_000)
    """Most sweeps over all layers in one ascent."""
    signs: bool = True
    """Neurons may also change sign where their activation is odd, as tanh is."""

    def match(self, networks: Networks, images: Dataset | None, *, seed: int, watch: Watch) -> Matching:
        """Matches all pairs; it reads no images."""
        del images
        spec = symmetry.derive(networks.form, networks.example)
        total = self.restarts * self.max_sweeps

        def one(some: Networks, own: Watch) -> Matching:
            def on_sweep(sweep: Sweep) -> None:
                note = f"restart {sweep.restart}, sweep {sweep.sweep}, {sweep.moving} pairs moving"
                own.on_progress(sweep.restart * self.max_sweeps + sweep.sweep, total, note)

            return match(
                some.form,
                some.a,
                some.b,
                some.example,
                spec=spec if self.signs else spec.without_signs(),
                restarts=self.restarts,
                max_sweeps=self.max_sweeps,
                seed=seed,
                stopping=own.stopping,
                on_sweep=on_sweep,
            )

        return in_parts(networks, watch, COPIES * networks.parameters, one)


COPIES = 40
"""Bytes for each parameter of a pair: both networks and the permuted one in float64, and what is made on the way."""


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
    spec = spec or symmetry.derive(network, example_input)
    a, b = double(network, a), double(network, b)
    _check(a, b)
    with ThreadPoolExecutor(threads or torch.get_num_threads()) as pool:
        ascend = partial(
            _ascend, spec, a, b, pool, seed, max_sweeps=max_sweeps, stopping=stopping, on_sweep=on_sweep
        )
        best = ascend(0)
        for restart in range(1, restarts):
            best = _better(best, ascend(restart))
    prove(network, example_input, b, spec, best.permutations, best.signs, seed=seed)
    return best


def _check(a: Tensors, b: Tensors) -> None:
    """Raises ValueError unless both sides have the same number of pairs, at least one, and finite weights."""
    pairs = len(next(iter(a.values())))
    for side, weights in (("a", a), ("b", b)):
        for name, weight in weights.items():
            if len(weight) != pairs or not pairs:
                msg = f"{side}: {name} has {len(weight)} pairs; expected {max(pairs, 1)}"
                raise ValueError(msg)
            check_finite(side, name, are_finite(weight))


def double(network: nn.Module, weights: Tensors) -> dict[str, Tensor]:
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
    spec: PermutationSpec,
    a: Tensors,
    b: Tensors,
    pool: Executor,
    seed: int,
    restart: int,
    *,
    max_sweeps: int,
    stopping: Callable[[], bool],
    on_sweep: Callable[[Sweep], None],
) -> Matching:
    """One coordinate ascent of all pairs."""
    ascent = Ascent(spec, a, b, *_start(spec, len(next(iter(a.values()))), seed, restart), pool)
    objective = ascent.objective()

    def next_order(sweep: int) -> Sequence[int]:
        if stopping():
            raise StoppedError
        return order(spec, seed, restart, sweep)

    def on_end(sweep: int, going: Tensor, gain: Tensor) -> None:
        objective.add_(gain)
        on_sweep(Sweep(restart, sweep, int(going.sum()), objective.clone()))

    sweeps = climb(ascent, next_order, max_sweeps, on_end)
    kept = torch.full_like(sweeps, restart)
    return Matching(
        spec, ascent.permutations, ascent.objective(), dot(a, b), sweeps, kept, signs=ascent.signs
    )


def order(spec: PermutationSpec, seed: int, ascent: int, sweep: int) -> list[int]:
    """The order of the groups in one sweep of an ascent."""
    drawn: list[int] = stream(seed, "match.order", ascent, sweep).permutation(len(spec.groups)).tolist()
    return drawn


def _start(
    spec: PermutationSpec, count: int, seed: int, restart: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The identity for the first ascent, the same random permutations and signs of all pairs for a further one."""
    if not restart:
        return symmetry.identity(spec, count), symmetry.positive(spec, count)
    draw = stream(seed, "match.start", restart)
    permutations, signs = symmetry.random(spec, draw), symmetry.random_signs(spec, draw)
    return (
        {name: p.repeat(count, 1) for name, p in permutations.items()},
        {name: s.repeat(count, 1) for name, s in signs.items()},
    )


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
