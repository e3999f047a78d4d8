"""The order of a coloured graph's automorphism group is what counting all permutations gives, and the paper's theorem."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import pairwise, permutations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from symcore import asymmetry as asym
from symcore.asymmetry import Asymmetry
from symcore.figlu import FiGLU
from symcore.networks.mlp import MLPSpec
from symcore.networks.resnet import ResNetSpec
from symcore.population import Design, build
from symcore.symmetry import permutations as symmetry
from symcore.symmetry.automorphisms import Automorphisms, ColouredGraph, coloured_graph, find, refine
from symcore.treatments import SigmaAsymmetric, Standard, Treatment, WAsymmetric

SEVERAL = settings(max_examples=15)
SIZES = (6, 4, 4, 3)
"""Units of the tiny network, whose 4!^2 permutations can all be tried."""
SHAPES = tuple((rows, fan_in) for fan_in, rows in pairwise(SIZES))
NAMES = ("0.weight", "2.weight", "4.weight")


def tiny() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 4), nn.GELU(), nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 3))


def masked(trainable: Sequence[Tensor], fixed: Sequence[Tensor]) -> Asymmetry:
    return Asymmetry(
        dict(zip(NAMES, trainable, strict=True)),
        {name: f * ~d for name, d, f in zip(NAMES, trainable, fixed, strict=True)},
    )


def drawn(n_fix: tuple[int, ...], kappa: float, seed: int = 0) -> Asymmetry:
    return asym.draw(tiny(), WAsymmetric(n_fix=n_fix, kappa=(kappa,) * len(n_fix)), seed)


def inspected(asymmetry: Asymmetry | None) -> Automorphisms:
    return find(coloured_graph(tiny(), torch.zeros(2, SIZES[0]), asymmetry))


def counted(asymmetry: Asymmetry) -> int:
    """The oracle: permutations of both hidden layers that leave masks and constants of all three matrices in place."""
    first, second, third = (
        torch.where(asymmetry.trainable[name], torch.inf, asymmetry.fixed[name]).numpy() for name in NAMES
    )
    order = 0
    for p, q in product(map(list, permutations(range(4))), repeat=2):
        alike = (first[p] == first).all() and (second[np.ix_(q, p)] == second).all()
        order += bool(alike and (third[:, q] == third).all())
    return order


def order(found: Automorphisms) -> float:
    assert found.log10_least == found.log10_most
    return 10**found.log10_most


def paper(treatment: Treatment) -> Automorphisms:
    """The paper's MLP for MNIST under a treatment."""
    built = build(Design(MLPSpec(width=512), treatment, (1, 28, 28), 10, (0,)))
    return find(coloured_graph(built.network, torch.zeros(2, 1, 28, 28), built.asymmetry))


def test_a_standard_network_has_the_order_of_its_permutations() -> None:
    free = masked(
        [torch.ones(shape, dtype=torch.bool) for shape in SHAPES], [torch.zeros(shape) for shape in SHAPES]
    )
    assert counted(free) == 576
    for asymmetry in (None, free):
        found = inspected(asymmetry)
        assert found.certificate == "interchangeable"
        assert order(found) == pytest.approx(576)


def test_the_papers_perceptron_has_512_factorial_cubed_permutations_and_none_when_asymmetric() -> None:
    found = paper(Standard())
    assert found.log10_least == found.log10_most == pytest.approx(3 * math.log10(math.factorial(512)))
    w = WAsymmetric(n_fix=(64, 64, 64, 256), kappa=(1, 1, 0.5, 0.25))
    for treatment in (w, w.model_copy(update={"kappa": (0, 0, 0, 0)}), SigmaAsymmetric(std=1)):
        found = paper(treatment)
        assert found.trivial
        assert found.certificate == "forward"
        assert found.rounds in (1, 2)


@pytest.mark.parametrize("kappa", [0, 1])
def test_distinct_masks_leave_no_automorphism(kappa: float) -> None:
    asymmetry = drawn((2, 1, 1), kappa)
    assert counted(asymmetry) == 1
    assert inspected(asymmetry).trivial


def twins(kappa: float) -> Asymmetry:
    """Hidden neurons 0 and 1 of the first layer have equal masks, in what comes in and in what goes out."""
    masks = [d.clone() for d in drawn((2, 2, 1), kappa=1).trainable.values()]
    masks[0][1] = masks[0][0]
    masks[1][:, 1] = masks[1][:, 0]
    draw = torch.Generator().manual_seed(0)
    return masked(masks, [kappa * torch.randn(shape, generator=draw) for shape in SHAPES])


def test_equal_mask_rows_add_a_factor_without_constants_and_none_with_them() -> None:
    same, apart = twins(0), twins(1)
    assert order(inspected(same)) == pytest.approx(counted(same))
    assert counted(same) % 2 == 0
    assert counted(apart) == 1
    assert inspected(apart).trivial


def test_equal_rows_are_told_apart_by_what_goes_out() -> None:
    asymmetry = drawn((2, 1, 1), 0)
    asymmetry.trainable[NAMES[0]][1] = asymmetry.trainable[NAMES[0]][0]
    found = inspected(asymmetry)
    assert found.trivial
    assert found.certificate == "refinement"


@SEVERAL
@given(st.data())
def test_the_order_is_what_counting_gives(data: st.DataObject) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    share, values = data.draw(st.sampled_from([0.2, 0.5, 0.9])), data.draw(st.sampled_from([1, 2, 100]))
    masks = [torch.from_numpy(random.random(shape) < share) for shape in SHAPES]
    masks[0] = masks[0][:, :1].expand(4, 6) if data.draw(st.booleans()) else masks[0]
    asymmetry = masked(
        masks, [torch.from_numpy(random.integers(values, size=shape)).double() for shape in SHAPES]
    )
    found = inspected(asymmetry)
    if found.certificate == "open":
        assert found.log10_least <= math.log10(counted(asymmetry)) <= found.log10_most
    else:
        assert order(found) == pytest.approx(counted(asymmetry))


@SEVERAL
@given(width=st.integers(4, 12), depth=st.integers(1, 3), seed=st.integers(0, 99))
def test_distinct_nonzero_rows_suffice_without_constants(width: int, depth: int, seed: int) -> None:
    """Theorem 1 of Lim et al. 2024."""
    treatment = WAsymmetric(n_fix=(1, *[2] * (depth - 1), width // 2), kappa=(0,) * (depth + 1))
    built = build(Design(MLPSpec(width=width, depth=depth), treatment, (16,), 2, (0,), (seed,)))
    found = find(coloured_graph(built.network, torch.zeros(2, 16), built.asymmetry))
    assert found.trivial
    assert found.certificate == "forward"


class Gated(nn.Module):
    """One gated hidden layer."""

    def __init__(self, gate: Tensor) -> None:
        super().__init__()
        self.inward, self.gate, self.outward = nn.Linear(3, len(gate)), FiGLU(gate), nn.Linear(len(gate), 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.outward(self.gate(self.inward(x)))


def gate_order(gate: Tensor) -> int:
    """How many permutations P fulfil P^T F P = F."""
    f = gate.numpy()
    return sum(bool((f[np.ix_(p, p)] == f).all()) for p in permutations(range(len(f))))


def circulant(values: list[float]) -> Tensor:
    return torch.stack([torch.tensor(values).roll(shift) for shift in range(len(values))])


def gated(gate: Tensor) -> ColouredGraph:
    return coloured_graph(Gated(gate), torch.zeros(2, 3))


def test_a_random_gate_leaves_no_permutation_and_an_even_one_all() -> None:
    gate = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    assert gate_order(gate) == 1
    assert find(gated(gate)).trivial
    even = torch.ones(5, 5) + torch.eye(5)
    assert gate_order(even) == 120
    found = find(gated(even))
    assert (found.certificate, order(found)) == ("interchangeable", pytest.approx(120))


def test_what_refinement_leaves_is_searched_or_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    cycle = circulant([1.0, 2.0, 3.0, 4.0, 5.0])
    assert gate_order(cycle) == 5
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pynauty", None)
        found = find(gated(cycle))
        assert found.certificate == "open"
        assert not found.trivial
        assert (found.log10_least, found.log10_most) == (0, pytest.approx(math.log10(120)))
    pytest.importorskip("pynauty")
    found = find(gated(cycle))
    assert (found.certificate, order(found)) == ("search", pytest.approx(5))


@SEVERAL
@given(st.integers(0, 10_000))
def test_the_names_of_neurons_do_not_matter(seed: int) -> None:
    random = np.random.default_rng(seed)
    gate = torch.from_numpy(random.integers(2, size=(5, 5))).float()
    p = torch.from_numpy(random.permutation(5))
    first, second = find(gated(gate)), find(gated(gate[p][:, p]))
    assert (first.certificate, first.log10_least, first.log10_most, first.rounds) == (
        second.certificate,
        pytest.approx(second.log10_least),
        pytest.approx(second.log10_most),
        second.rounds,
    )
    parted = [np.sort(np.bincount(found.cells["inward"])) for found in (first, second)]
    np.testing.assert_array_equal(*parted)


class Residual(nn.Module):
    """A stream of 6 that a block of 5 writes to."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up = nn.Linear(4, 6), nn.Linear(6, 5)
        self.down, self.readout = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.readout(x + self.down(torch.tanh(self.up(x))))


def test_a_residual_stream_is_one_group_of_vertices() -> None:
    example = torch.zeros(2, 4)
    graph = coloured_graph(Residual(), example)
    assert sorted(graph.sizes.values()) == [5, 6]
    permuted = symmetry.derive(Residual(), example).without_signs()
    found = find(graph)
    assert found.log10_most == pytest.approx(symmetry.log10_order(permuted))
    matched = Asymmetry({"up.weight": torch.eye(5, 6, dtype=torch.bool)}, {"up.weight": torch.zeros(5, 6)})
    found = find(coloured_graph(Residual(), example, matched))
    assert found.certificate == "open" or order(found) == pytest.approx(120)


class Convolutional(nn.Module):
    """Two convolutions and a readout; channels are the neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 5, 3)
        self.readout = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(torch.relu(self.second(torch.relu(self.first(x)))).mean((2, 3)))


def test_a_convolution_joins_two_channels_by_its_whole_filter() -> None:
    example = torch.zeros(2, 1, 8, 8)
    assert order(find(coloured_graph(Convolutional(), example))) == pytest.approx(24 * 120)
    trainable = torch.ones(5, 4, 3, 3, dtype=torch.bool)
    trainable[torch.arange(4), torch.arange(4), 0, torch.tensor([0, 1, 2, 2])] = False
    one = Asymmetry({"second.weight": trainable}, {"second.weight": torch.zeros(5, 4, 3, 3)})
    found = find(coloured_graph(Convolutional(), example, one))
    assert found.certificate == "open" or order(found) == pytest.approx(2)


def test_a_resnet_has_a_group_for_each_stream_and_each_block_and_none_when_asymmetric() -> None:
    widths = 4 * [16] + 4 * [32] + 4 * [64]
    for treatment in (Standard(), SigmaAsymmetric(), WAsymmetric()):
        built = build(Design(ResNetSpec(), treatment, (3, 8, 8), 10, (0,)))
        graph = coloured_graph(built.network, torch.zeros(2, 3, 8, 8), built.asymmetry)
        assert sorted(graph.sizes.values()) == widths
        found = find(graph)
        factorials = sum(math.log10(math.factorial(width)) for width in widths)
        assert found.log10_most == pytest.approx(factorials if isinstance(treatment, Standard) else 0)


def test_swapping_what_the_graph_lets_swap_changes_no_network_of_the_family() -> None:
    """An automorphism permutes weights and leaves every constant in place, and so the function."""
    asymmetry = twins(0)
    network = tiny().double()
    weights = asymmetry.apply({name: p.detach().double() for name, p in network.named_parameters()})
    x = torch.randn(9, SIZES[0], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spec = symmetry.derive(tiny(), torch.zeros(2, SIZES[0]))
    before = functional_call(network, weights, (x,))

    def after(i: int, j: int) -> Tensor:
        chosen = symmetry.identity(spec)
        chosen[spec.groups[0].name][[i, j]] = torch.tensor([j, i])
        moved = symmetry.permute(weights, spec, chosen)
        return functional_call(network, asymmetry.apply(asymmetry.raw(moved)), (x,))

    torch.testing.assert_close(after(0, 1), before)
    assert (after(1, 2) - before).norm() > 1e-3 * before.norm()


def test_refinement_takes_as_many_rounds_as_the_network_is_deep() -> None:
    built = build(
        Design(MLPSpec(width=8, depth=3), WAsymmetric(n_fix=(3, 2, 2, 1), kappa=(0, 0, 0, 0)), (8,), 2, (0,))
    )
    assert built.asymmetry is not None
    graph = coloured_graph(built.network, torch.zeros(2, 8), built.asymmetry)
    inputs_only = ColouredGraph(graph.sizes, tuple(m for m in graph.marks if m.incoming), graph.edges)
    cells, rounds = refine(inputs_only)
    assert all(len(np.unique(numbers)) == 8 for numbers in cells.values())
    assert 2 <= rounds <= 3
