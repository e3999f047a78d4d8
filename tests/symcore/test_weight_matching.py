"""Weight matching finds the permutations that it should, as the published algorithm does, and proves them harmless."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks import alignment
from symcore.align.matching import priced
from symcore.align.proof import AlignmentError, prove
from symcore.align.weights import Sweep, match
from symcore.checkpoints import StoppedError
from symcore.figlu import replace_activations
from symcore.networks.mlp import MLPSpec
from symcore.networks.resnet import ResNetSpec
from symcore.symmetry import permutations as symmetry
from symcore.symmetry.permutations import PermutationSpec

Weights = dict[str, Tensor]
PROBE = torch.zeros(4, 6)


def perceptron(width: int = 8, depth: int = 3) -> nn.Module:
    return MLPSpec(width=width, depth=depth).build((6,), 3)


def drawn(network: nn.Module, pairs: int, seed: int) -> Weights:
    """Normal weights, [pair, *shape] float32."""
    draw = torch.Generator().manual_seed(seed)
    return {n: torch.randn((pairs, *p.shape), generator=draw) for n, p in network.named_parameters()}


def pick(weights: Weights, *pairs: int) -> Weights:
    return {name: w[list(pairs)] for name, w in weights.items()}


def inner(
    a: Weights, b: Weights, spec: PermutationSpec, permutations: Weights, signs: Weights | None = None
) -> Tensor:
    """<a, permuted b>, [pair] float64."""
    permuted = symmetry.permute(b, spec, permutations, signs)
    return sum((a[n].double() * permuted[n].double()).flatten(1).sum(1) for n in a)


class Residual(nn.Module):
    """Neurons that lie on both axes of a weight, which makes the assignment problem quadratic."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.inner = nn.Linear(8, 8)
        self.readout = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.readout(x + torch.tanh(self.inner(x)))


@pytest.mark.parametrize("network", [perceptron(16), Residual()], ids=["perceptron", "residual"])
def test_a_permuted_copy_is_recognised(network: nn.Module) -> None:
    a = drawn(network, 8, seed=0)
    spec = symmetry.derive(network, PROBE)
    hidden = symmetry.random(spec, np.random.default_rng(0), 8)
    matching = match(network, a, symmetry.permute(a, spec, hidden), PROBE)
    for name, permutation in symmetry.invert(hidden).items():
        assert torch.equal(matching.permutations[name], permutation)


def test_a_path_to_ones_own_permuted_copy_is_flat_after_matching() -> None:
    network = perceptron(16)
    a = drawn(network, 1, seed=0)
    spec = symmetry.derive(network, PROBE)
    b = symmetry.permute(a, spec, symmetry.random(spec, np.random.default_rng(0), 1))
    matched = symmetry.permute(b, spec, match(network, a, b, PROBE).permutations)
    x, labels = torch.randn(64, 6, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 3

    def losses(other: Weights) -> list[float]:
        path = [{n: torch.lerp(a[n][0], other[n][0], alpha) for n in a} for alpha in (0, 0.25, 0.5, 0.75, 1)]
        with torch.no_grad():
            return [
                float(nn.functional.cross_entropy(functional_call(network, w, (x,)), labels)) for w in path
            ]

    assert len(set(losses(matched))) == 1
    assert np.ptp(losses(b)) > 0.1


@settings(max_examples=15)
@given(seed=st.integers(0, 2**31), width=st.integers(2, 10), residual=st.booleans())
def test_the_objective_rises_from_the_identity(seed: int, width: int, residual: bool) -> None:
    network = Residual() if residual else perceptron(width)
    a, b = drawn(network, 4, seed), drawn(network, 4, seed + 1)
    seen: list[Sweep] = []
    matching = match(network, a, b, PROBE, seed=seed, on_sweep=seen.append)
    path = torch.stack([matching.identity_objective, *(sweep.objective for sweep in seen)])
    unmoved = symmetry.identity(matching.spec, 4)
    assert (path.diff(dim=0) >= 0).all()
    assert torch.allclose(path[0], inner(a, b, matching.spec, unmoved), rtol=1e-12, atol=1e-12)
    assert torch.allclose(path[-1], matching.objective, rtol=1e-12, atol=1e-12)
    assert torch.allclose(
        matching.objective, inner(a, b, matching.spec, matching.permutations, matching.signs), rtol=1e-12
    )
    assert int(matching.sweeps.max()) == len(seen)


def everything(spec: PermutationSpec) -> list[Weights]:
    """Every element of the permutation group."""
    choices = [list(itertools.permutations(range(group.size))) for group in spec.groups]
    names = [group.name for group in spec.groups]
    return [
        dict(zip(names, map(torch.tensor, chosen), strict=True)) for chosen in itertools.product(*choices)
    ]


def test_against_every_permutation_of_a_tiny_network() -> None:
    """3!^2 permutations: one ascent ends where no group alone can do better, many ascents find the best of all."""
    network, pairs = perceptron(3, depth=2), 16
    a, b = drawn(network, pairs, seed=0), drawn(network, pairs, seed=1)
    once = match(network, a, b, PROBE)
    often = match(network, a, b, PROBE, restarts=40)
    whole = everything(once.spec)
    assert len(whole) == 36
    values = torch.stack(
        [inner(a, b, once.spec, {n: q.repeat(pairs, 1) for n, q in p.items()}) for p in whole], 1
    )
    for pair in range(pairs):
        found = {name: p[pair] for name, p in once.permutations.items()}
        nearby = [sum(not torch.equal(found[name], p[name]) for name in p) <= 1 for p in whole]
        assert once.objective[pair] == pytest.approx(float(values[pair][nearby].max()), rel=1e-12)
    assert torch.allclose(often.objective, values.amax(1), rtol=1e-12)
    assert (once.objective < values.amax(1) - 1e-6).any(), (
        "one ascent suffices here, so restarts prove nothing"
    )
    assert (often.restart[once.objective < values.amax(1) - 1e-6] > 0).all()


def published(a: Weights, b: Weights, spec: PermutationSpec, seed: int) -> Weights:
    """What Algorithm 1 of Ainsworth et al. 2023 finds in the order that `match` draws, [pair, neuron] for each group."""
    pairs = range(len(next(iter(a.values()))))
    found = [
        alignment.published(
            {n: w[pair].double() for n, w in a.items()},
            {n: w[pair].double() for n, w in b.items()},
            spec,
            seed,
        )
        for pair in pairs
    ]
    return {name: torch.stack([permutations[name] for permutations in found]) for name in found[0]}


@settings(max_examples=8)
@given(seed=st.integers(0, 2**31), width=st.integers(2, 24), depth=st.integers(1, 4))
def test_the_published_algorithm_finds_the_same(seed: int, width: int, depth: int) -> None:
    network = perceptron(width, depth)
    a, b = drawn(network, 3, seed), drawn(network, 3, seed + 1)
    matching = match(network, a, b, PROBE, seed=seed)
    for name, permutation in published(a, b, matching.spec, seed).items():
        assert torch.equal(matching.permutations[name], permutation)


@pytest.mark.parametrize("related", [False, True], ids=["independent", "related"])
def test_on_residual_networks_the_objective_is_at_least_the_published_algorithms(related: bool) -> None:
    network, a, b = alignment.drawn(ResNetSpec(depth=8, width=0.25), 8, related=related)
    matching = match(network, a, b, torch.zeros(2, *alignment.INPUT), seed=1)
    theirs = inner(a, b, matching.spec, published(a, b, matching.spec, 1))
    assert (theirs > matching.identity_objective).all()
    assert (matching.objective >= theirs * (1 - 1e-12)).all()


def test_a_pair_matched_alone_is_matched_as_in_a_batch() -> None:
    network = perceptron(12)
    a, b = drawn(network, 6, seed=0), drawn(network, 6, seed=1)
    together = match(network, a, b, PROBE, restarts=3, seed=5, threads=2)
    assert len(set(together.sweeps.tolist())) > 1, "all pairs take equally long, so none waits for another"
    for pair in range(6):
        alone = match(network, pick(a, pair), pick(b, pair), PROBE, restarts=3, seed=5, threads=1)
        assert alone.sweeps[0] == together.sweeps[pair]
        assert alone.restart[0] == together.restart[pair]
        assert alone.objective[0] == pytest.approx(float(together.objective[pair]), rel=1e-12)
        for name, permutation in alone.permutations.items():
            assert torch.equal(permutation[0], together.permutations[name][pair])


def test_the_objective_is_the_distance() -> None:
    network = perceptron()
    a, b = drawn(network, 3, seed=0), drawn(network, 3, seed=1)
    matching = match(network, a, b, PROBE)

    def square(weights: Weights) -> Tensor:
        return sum(w.double().square().flatten(1).sum(1) for w in weights.values())

    permuted = symmetry.permute(b, matching.spec, matching.permutations, matching.signs)
    distance = square({n: a[n].double() - permuted[n].double() for n in a})
    assert torch.allclose(distance, square(a) + square(b) - 2 * matching.objective, rtol=1e-12)


def test_where_nothing_can_be_permuted_nothing_is() -> None:
    network = perceptron()
    replace_activations(network, PROBE, None, seed=0)
    a, b = drawn(network, 2, seed=0), drawn(network, 2, seed=1)
    matching = match(network, a, b, PROBE, restarts=2)
    assert matching.permutations == {}
    assert torch.equal(matching.objective, matching.identity_objective)


@pytest.mark.parametrize("torn", [("hidden.1.linear.weight", 1), ("hidden.0.norm.bias", 0)], ids=str)
def test_a_wrong_specification_does_not_pass(torn: tuple[str, int]) -> None:
    network = perceptron()
    spec = symmetry.derive(network, PROBE)
    group = spec["hidden.0"]
    wrong = PermutationSpec((replace(group, axes=tuple(axis for axis in group.axes if axis != torn)),))
    a, b = drawn(network, 2, seed=0), drawn(network, 2, seed=1)
    with pytest.raises(
        AlignmentError, match=r"pair 0: permuting the network changes its outputs by up to \d"
    ):
        match(network, a, b, PROBE, spec=wrong)
    match(network, a, b, PROBE, spec=PermutationSpec((group,)))


def test_one_transposition_in_one_network_does_not_pass() -> None:
    network = perceptron()
    spec = symmetry.derive(network, PROBE)
    group = spec["hidden.2"]
    wrong = PermutationSpec((replace(group, axes=group.axes[:-1]),))
    permutations = symmetry.identity(wrong, 3)
    permutations["hidden.2"][2, :2] = torch.tensor([1, 0])
    with pytest.raises(AlignmentError, match="pair 2"):
        prove(network, PROBE, drawn(network, 3, seed=0), wrong, permutations)


def test_a_network_that_insists_on_float32_is_proven_in_float32() -> None:
    class Stubborn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.readout = nn.Linear(6, 8), nn.Linear(8, 3, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.readout(torch.tanh(self.stem(x))) @ torch.eye(3)

    network = Stubborn()
    a, b = drawn(network, 2, seed=0), drawn(network, 2, seed=1)
    matching = match(network, a, b, PROBE)
    group = matching.spec.groups[0]
    with pytest.raises(AlignmentError, match=r"allowed: 0\.0001 of it"):
        match(network, a, b, PROBE, spec=PermutationSpec((replace(group, axes=group.axes[:1]),)))


@given(
    st.integers(1, 7),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 1e-9, 1.0, 1e9]),
    st.sampled_from([0.0, 1e6]),
)
def test_prices_leave_the_best_assignment(n: int, seed: int, spread: float, around: float) -> None:
    similarity = torch.from_numpy(np.random.default_rng(seed).standard_normal((2, n, n)) * spread + around)
    for plain, cheaper in zip(similarity.numpy(), priced(similarity).numpy(), strict=True):
        best, found = (linear_sum_assignment(s, maximize=True) for s in (plain, cheaper))
        assert plain[found].sum() == pytest.approx(plain[best].sum(), rel=1e-12)


def test_stopping_is_asked_before_every_sweep() -> None:
    network = perceptron()
    seen: list[Sweep] = []
    with pytest.raises(StoppedError):
        match(
            network,
            drawn(network, 2, seed=0),
            drawn(network, 2, seed=1),
            PROBE,
            restarts=3,
            stopping=lambda: len(seen) == 2,
            on_sweep=seen.append,
        )
    assert [(sweep.restart, sweep.sweep) for sweep in seen] == [(0, 0), (0, 1)]


def test_no_more_sweeps_than_allowed() -> None:
    network = perceptron(24)
    matching = match(network, drawn(network, 3, seed=0), drawn(network, 3, seed=1), PROBE, max_sweeps=1)
    assert matching.sweeps.tolist() == [1, 1, 1]


def test_weights_that_do_not_fit_are_refused_by_name() -> None:
    network = perceptron()
    a = drawn(network, 2, seed=0)
    with pytest.raises(ValueError, match=r"names of their parameters: readout\.bias"):
        match(network, {n: w for n, w in a.items() if n != "readout.bias"}, a, PROBE)
    with pytest.raises(ValueError, match=r"readout\.bias: got shape \[3\]; expected \[pair, 3\]"):
        match(network, a, a | {"readout.bias": torch.zeros(3)}, PROBE)
    with pytest.raises(ValueError, match=r"b: readout\.bias has 1 pairs; expected 2"):
        match(network, a, a | {"readout.bias": torch.zeros(1, 3)}, PROBE)
    broken = a["readout.bias"].clone()
    broken[1, 2] = torch.nan
    with pytest.raises(ValueError, match=r"a: readout\.bias is not finite in pair 1"):
        match(network, a | {"readout.bias": broken}, a, PROBE)
    with pytest.raises(ValueError, match="restarts: got 0; at least 1"):
        match(network, a, a, PROBE, restarts=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_finds_what_the_cpu_finds() -> None:
    network = perceptron(64)
    a, b = drawn(network, 4, seed=0), drawn(network, 4, seed=1)
    here = match(network, a, b, PROBE, restarts=2)
    there = match(
        network.cuda(),
        {n: w.cuda() for n, w in a.items()},
        {n: w.cuda() for n, w in b.items()},
        PROBE.cuda(),
        restarts=2,
    )
    assert all(torch.equal(p, there.permutations[name]) for name, p in here.permutations.items())
    assert torch.allclose(here.objective, there.objective, rtol=1e-12)
