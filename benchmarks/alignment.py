"""Weight matching of many pairs at once, against the published algorithm step by step, one pair after another.

The reference is written from the paper (Ainsworth et al. 2023, algorithm 1) as it is commonly run: float32 on the CPU, a
loop over the groups of neurons in a random order, for each the sum over all weights that have it of <A, permuted B>, an
assignment by scipy, and an end when a whole sweep gains no more than 1e-12. Both sides take the groups in the same order.

Networks are initialised, not trained: what matching costs depends on their shapes and on its sweeps, which are most where
networks have nothing in common. "Independent" pairs do not; "related" ones share half of each weight's variance up to a
planted permutation. The objective is <A, permuted B> in float64, in parts of |A| |B|, over the pairs that both sides match.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from symcore.align.matching import dot
from symcore.align.weights import match
from symcore.networks.resnet import ResNetSpec
from symcore.population import Design, build
from symcore.randomness import stream
from symcore.symmetry import permutations as symmetry
from symcore.symmetry.permutations import PermutationSpec
from symcore.treatments import Standard

Weights = Mapping[str, Tensor]

INPUT = (3, 32, 32)
SEED = 0
MAX_SWEEPS = 100
TOLERANCE = 1e-12


def published(a: Weights, b: Weights, spec: PermutationSpec, seed: int) -> dict[str, Tensor]:
    """The published algorithm on one pair, [*shape] each, in the precision of its weights; tests compare with it too."""
    permutations = symmetry.identity(spec)
    precision = next(iter(a.values())).dtype
    for sweep in range(MAX_SWEEPS):
        gained = False
        for place in stream(seed, "match.order", 0, sweep).permutation(len(spec.groups)):
            group = spec.groups[place]
            cost = torch.zeros(group.size, group.size, dtype=precision)
            for name, axis in group.axes:
                other = b[name]
                for another, its_group in spec.parameters[name]:
                    if another != axis:
                        other = torch.index_select(other, another, permutations[its_group])
                first = torch.moveaxis(a[name], axis, 0).reshape(group.size, -1)
                second = torch.moveaxis(other, axis, 0).reshape(group.size, -1)
                cost += torch.einsum("ij,kj->ik", first, second)
            costs = cost.numpy()
            _, columns = linear_sum_assignment(costs, maximize=True)
            rows = np.arange(group.size)
            before = costs[rows, permutations[group.name].numpy()].sum()
            gained |= bool(costs[rows, columns].sum() > before + TOLERANCE)
            permutations[group.name] = torch.from_numpy(columns)
        if not gained:
            break
    return permutations


def drawn(network: ResNetSpec, pairs: int, *, related: bool) -> tuple[nn.Module, Weights, Weights]:
    """The networks' common form, and both networks of every pair, [pair, *shape]."""
    population = build(Design(network, Standard(), INPUT, 10, tuple(range(2 * pairs))))
    weights = population.effective()
    a, b = {n: w[:pairs] for n, w in weights.items()}, {n: w[pairs:] for n, w in weights.items()}
    if related:
        spec = symmetry.derive(population.network, torch.zeros(2, *INPUT))
        b = {n: (a[n] + w) / 2**0.5 for n, w in b.items()}
        b = symmetry.permute(b, spec, symmetry.random(spec, stream(SEED, "planted"), pairs))
    return population.network, a, b


@dataclass(frozen=True)
class Outcome:
    """What one way of matching took and reached."""

    name: str
    pairs: int
    seconds: float
    """Of wall time for a pair."""
    objective: float
    """Mean over the reference's pairs."""


def cosine(a: Weights, b: Weights, spec: PermutationSpec, permutations: Weights) -> float:
    """Mean over the permutations' pairs, the first ones, of <a, permuted b> / (|a| |b|)."""
    pairs = len(next(iter(permutations.values())))
    a, b = first(a, pairs), first(b, pairs)
    product = dot(a, symmetry.permute(b, spec, permutations))
    return float((product / (dot(a, a) * dot(b, b)).sqrt()).mean())


def step_by_step(spec: PermutationSpec, a: Weights, b: Weights) -> Outcome:
    """The published algorithm on one pair after another."""
    pairs = len(next(iter(a.values())))
    start = time.perf_counter()
    found = [
        published({n: w[p] for n, w in a.items()}, {n: w[p] for n, w in b.items()}, spec, SEED)
        for p in range(pairs)
    ]
    spent = time.perf_counter() - start
    together = {name: torch.stack([p[name] for p in found]) for name in found[0]}
    return Outcome("published, step by step, cpu", pairs, spent / pairs, cosine(a, b, spec, together))


def at_once(
    network: nn.Module, spec: PermutationSpec, a: Weights, b: Weights, device: str, reference: int
) -> Outcome:
    """All pairs together; the proof that their functions are unchanged is part of the time."""
    pairs = len(next(iter(a.values())))
    here = [{n: w.to(device) for n, w in side.items()} for side in (a, b)]
    torch.zeros(1, device=device).item()
    start = time.perf_counter()
    found = match(network.to(device), *here, torch.zeros(2, *INPUT, device=device), spec=spec, seed=SEED)
    spent = time.perf_counter() - start
    reached = cosine(a, b, spec, first(found.permutations, reference))
    return Outcome(f"symcore, {pairs} at once, {device}", pairs, spent / pairs, reached)


def first(weights: Weights, pairs: int) -> Weights:
    """The first pairs' weights."""
    return {name: w[:pairs] for name, w in weights.items()}


def outcomes(network: nn.Module, a: Weights, b: Weights, reference: int) -> Iterator[Outcome]:
    """The reference, then each device; a GPU warms up once. What can be permuted is derived once, before."""
    spec = symmetry.derive(network, torch.zeros(2, *INPUT))
    yield step_by_step(spec, first(a, reference), first(b, reference))
    yield at_once(network, spec, first(a, reference), first(b, reference), "cpu", reference)
    if torch.cuda.is_available():
        at_once(network, spec, a, b, "cuda", reference)
        yield at_once(network, spec, a, b, "cuda", reference)


def main() -> None:
    """One table for each kind of pair."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--width", type=float, default=8.0 if torch.cuda.is_available() else 2.0, help="of ResNet20"
    )
    parser.add_argument("--pairs", type=int, default=64 if torch.cuda.is_available() else 4, help="on a GPU")
    parser.add_argument("--reference", type=int, default=4, help="pairs that the published algorithm matches")
    given = parser.parse_args()
    spec = ResNetSpec(depth=20, width=given.width)
    reference = min(given.reference, given.pairs)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print(f"ResNet20 of width {given.width:g}, {torch.get_num_threads()} CPU threads, {gpu}")
    for name in ("independent", "related"):
        print(f"\n{name:36} {'n':>4} {'s / pair':>9} {'faster':>7} {'objective':>10}")
        slowest = None
        for one in outcomes(*drawn(spec, given.pairs, related=name == "related"), reference):
            slowest = slowest or one.seconds
            faster = slowest / one.seconds
            print(f"{one.name:36} {one.pairs:4} {one.seconds:9.3f} {faster:7.1f} {one.objective:10.6f}")


if __name__ == "__main__":
    main()
