"""Maps that are flattened into features: a channel becomes a block of them, and moves as one, in everything the lab does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations as orders

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import gelu

from symcore import asymmetry as asym
from symcore.align import activations, weights
from symcore.align.cycle import match_many
from symcore.align.proof import prove
from symcore.align.soft import Soft, moved
from symcore.asymmetry import Asymmetry
from symcore.symmetry import permutations as symmetry
from symcore.symmetry.automorphisms import coloured_graph, find
from symcore.symmetry.axes import DerivationError
from symcore.symmetry.features import features
from symcore.symmetry.permutations import Group, PermutationSpec
from symcore.treatments import WAsymmetric

FLATTENING: dict[str, Callable[[Tensor], Tensor]] = {
    "flatten": lambda x: x.flatten(1),
    "torch.flatten": lambda x: torch.flatten(x, start_dim=1),
    "view": lambda x: x.view(x.size(0), -1),
    "reshape": lambda x: x.reshape(len(x), -1),
    "in two steps": lambda x: x.flatten(2).flatten(1),
    "there and back": lambda x: x.flatten(1).unflatten(1, (16, 5, 5)).flatten(1),
}
GROUPS = {
    "conv1": (6, {"conv1.weight": 0, "conv1.bias": 0, "conv2.weight": 1}),
    "conv2": (16, {"conv2.weight": 0, "conv2.bias": 0, "linear1.weight": 1}),
    "linear1": (120, {"linear1.weight": 0, "linear1.bias": 0, "linear2.weight": 1}),
    "linear2": (84, {"linear2.weight": 0, "linear2.bias": 0, "linear3.weight": 1}),
}


class LeNet(nn.Module):
    """LeNet-5 (LeCun et al. 1998) with GELUs, under which no neuron is dead, for inputs [1, 28, 28]."""

    def __init__(self, flatten: Callable[[Tensor], Tensor] = FLATTENING["flatten"]) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.linear1, self.linear2, self.linear3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)
        self.flatten = flatten

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.conv1, self.conv2):
            x = torch.max_pool2d(gelu(conv(x)), 2)
        x = self.flatten(x)
        for linear in (self.linear1, self.linear2):
            x = gelu(linear(x))
        logits: Tensor = self.linear3(x)
        return logits


def drawn(network: nn.Module, count: int, seed: int = 0) -> dict[str, Tensor]:
    """Parameters of several networks, [network, *shape], all at random."""

    def scale(p: Tensor) -> float:
        return 10 if p.ndim == 1 else math.sqrt(p[0].numel() / 2)

    draw = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(count, *p.shape, generator=draw, dtype=torch.float64) / scale(p)
        for name, p in network.named_parameters()
    }


def probe(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def change(network: nn.Module, spec: PermutationSpec, x: Tensor) -> float:
    """Largest relative change of the outputs under random permutations of every group."""
    own = {name: w[0] for name, w in drawn(network, 1).items()}
    permuted = symmetry.permute(own, spec, symmetry.random(spec, np.random.default_rng(0)))
    before, after = (functional_call(network.double(), parameters, (x,)) for parameters in (own, permuted))
    return float((after - before).abs().max() / before.abs().max())


@pytest.mark.parametrize("flatten", FLATTENING)
def test_a_channel_is_a_block_of_features(flatten: str) -> None:
    network, x = LeNet(FLATTENING[flatten]), probe(3, 1, 28, 28)
    spec = symmetry.derive(network, x.float())
    assert {group.name: (group.size, dict(group.axes)) for group in spec.groups} == GROUPS
    assert change(network, spec, x) < 1e-12
    own = drawn(network, 2)
    prove(network, x, own, spec, symmetry.random(spec, np.random.default_rng(1), 2))


def test_no_axis_is_tied_for_nothing() -> None:
    network, x = LeNet(), probe(3, 1, 28, 28)
    for group in symmetry.derive(network, x.float()).groups:
        for axis in group.axes:
            torn = replace(group, axes=tuple(other for other in group.axes if other != axis))
            assert change(network, PermutationSpec((torn,)), x) > 1e-3


def test_blocks_move_whole_and_flip_whole() -> None:
    weight = torch.arange(2 * 3 * 6.0).view(2, 3, 6)
    permutation = torch.tensor([[2, 0, 1], [0, 2, 1]])
    expected = torch.stack(
        [w.view(3, 3, 2)[:, p].reshape(3, 6) for w, p in zip(weight, permutation, strict=True)]
    )
    assert torch.equal(symmetry.permute_axis(weight, 1, permutation), expected)
    assert torch.equal(symmetry.permute_axis(weight[0], 1, permutation[0]), expected[0])
    spec = PermutationSpec((Group("g", 3, (("w", 1),)),))
    hard = torch.nn.functional.one_hot(permutation, 3).to(weight)
    assert torch.equal(moved({"w": weight}, spec, Soft({"g": hard}, {}))["w"], expected)
    signs = torch.tensor([1, -1, 1])
    assert torch.equal(
        symmetry.flip_axis(weight[0], 1, signs), weight[0] * torch.tensor([1, 1, -1, -1, 1, 1])
    )
    with pytest.raises(ValueError, match=r"axis 1 of a tensor \[2, 3, 6\] cannot be permuted"):
        symmetry.permute_axis(weight, 1, torch.zeros(2, 4, dtype=torch.int64))


def test_features_are_normalised_and_made_into_maps_again() -> None:
    """Norms have a block of scales for each channel; a linear map can put maps out, too."""

    class Through(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.inner = nn.Conv2d(1, 4, 3), nn.LayerNorm(36), nn.Linear(36, 45)
            self.last, self.readout = nn.Conv2d(5, 3, 2), nn.Linear(12, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.norm(torch.tanh(self.conv(x)).flatten(1)))
            x = torch.relu(self.inner(x)).unflatten(1, (5, 3, 3))
            logits: Tensor = self.readout(torch.relu(self.last(x)).flatten(1))
            return logits

    network, x = Through(), probe(3, 1, 5, 5)
    spec = symmetry.derive(network, x.float())
    assert [dict(group.axes) for group in spec.groups] == [
        {"conv.weight": 0, "conv.bias": 0, "norm.weight": 0, "norm.bias": 0, "inner.weight": 1},
        {"inner.weight": 0, "inner.bias": 0, "last.weight": 1},
        {"last.weight": 0, "last.bias": 0, "readout.weight": 1},
    ]
    assert [group.size for group in spec.groups] == [4, 5, 3]
    assert change(network, spec, x) < 1e-12


def test_blocks_on_both_axes_of_a_weight_are_matched() -> None:
    """A residual map of flattened features, whose rows and columns are blocks of the same channels."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.map, self.readout = nn.Conv2d(1, 6, 3), nn.Linear(54, 54), nn.Linear(54, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.conv(x)).flatten(1)
            logits: Tensor = self.readout(x + torch.relu(self.map(x)))
            return logits

    network, x = Residual(), probe(3, 1, 5, 5)
    (group,) = symmetry.derive(network, x.float()).groups
    assert [axis for axis in group.axes if axis[0] == "map.weight"] == [("map.weight", 0), ("map.weight", 1)]
    spec = PermutationSpec((group,))
    assert change(network, spec, x) < 1e-12
    a = drawn(network, 3)
    b = symmetry.permute(a, spec, symmetry.random(spec, np.random.default_rng(2), 3))
    found = weights.match(network, a, b, x)
    undone = symmetry.permute(b, spec, found.permutations)
    assert all(torch.equal(undone[name], a[name]) for name in a)


@pytest.mark.parametrize("method", ["weights", "activations", "cycle"])
def test_alignment_undoes_a_permutation_of_it(method: str) -> None:
    network, x = LeNet(), probe(2, 1, 28, 28).float()
    spec = symmetry.derive(network, x)
    a = {name: w.float() for name, w in drawn(network, 2).items()}
    planted = symmetry.random(spec, np.random.default_rng(0), 2)
    b = symmetry.permute(a, spec, planted)
    if method == "cycle":
        pair = {name: torch.stack([w[0], b[name][0]]) for name, w in a.items()}
        found = {name: p.unsqueeze(0) for name, p in match_many(network, pair, x).between(0, 1)[0].items()}
        planted = {name: p[:1] for name, p in planted.items()}
    elif method == "weights":
        found = weights.match(network, a, b, x).permutations
    else:
        images = probe(200, 1, 28, 28).float()
        found = activations.match(network, a, b, images, similarity="correlation").permutations
    undone = symmetry.invert(planted)
    assert all(torch.equal(p, undone[name]) for name, p in found.items())


def test_what_neurons_show_is_their_maps() -> None:
    shown = features(LeNet(), probe(3, 1, 28, 28).float())
    assert [group.size for group in shown.spec.groups] == [6, 16, 120, 84]


def test_a_standard_network_has_all_its_permutations_and_an_asymmetric_one_none() -> None:
    network, x = LeNet(), probe(2, 1, 28, 28).float()
    free = find(coloured_graph(network, x))
    expected = sum(math.lgamma(n + 1) for n, _ in GROUPS.values()) / math.log(10)
    assert free.log10_most == pytest.approx(expected)
    assert free.certificate == "interchangeable"
    fixed = asym.draw(network, WAsymmetric(n_fix=(6, 6, 40, 30, 42), kappa=(1,) * 5), 0)
    assert find(coloured_graph(network, x, fixed)).trivial


@pytest.mark.parametrize("seed", range(4))
def test_the_order_is_what_counting_gives(seed: int) -> None:
    """A mask on the linear map alone: a channel's block must look like another's, place for place."""
    network = nn.Sequential(nn.Conv2d(1, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    rng = np.random.default_rng(seed)
    blocks = rng.random((2, 2, 4)) < 0.5  # two looks
    mask = torch.from_numpy(blocks[:, rng.integers(2, size=4)].reshape(2, 16))
    fixed = Asymmetry({"3.weight": ~mask}, {"3.weight": mask * 1.5})
    found = find(coloured_graph(network, torch.zeros(2, 1, 3, 3), fixed))
    by_channel = mask.view(2, 4, 4)
    counted = sum(torch.equal(by_channel[:, list(order)], by_channel) for order in orders(range(4)))
    assert 10**found.log10_least == pytest.approx(counted)
    assert 10**found.log10_most == pytest.approx(counted)


@pytest.mark.parametrize(
    ("between", "reads"),
    [
        (lambda x: x.permute(0, 2, 3, 1).flatten(1), 144),  # channels after positions
        (lambda x: x.view(len(x), 2, 2, 6, 6).amax(2).flatten(1), 72),  # every second channel
    ],
    ids=["channels last", "channels apart"],
)
def test_neurons_that_are_no_block_are_refused(between: Callable[[Tensor], Tensor], reads: int) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.readout = nn.Conv2d(1, 4, 3), nn.Linear(reads, 3)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.readout(between(torch.relu(self.conv(x))))
            return logits

    with pytest.raises(DerivationError, match="splits or merges neurons that can be permuted"):
        symmetry.derive(Odd(), probe(2, 1, 8, 8).float())
