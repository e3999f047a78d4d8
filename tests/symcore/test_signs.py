"""Signed permutations: which neurons can change sign is read off the graph, and alignment uses it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from symcore.align.weights import match
from symcore.networks.recurrent import RecurrentSpec
from symcore.randomness import stream
from symcore.symmetry import permutations as symmetry

CELLS = ["rnn", "gru", "lstm"]


def recurrent(cell: str, width: int = 6) -> nn.Module:
    return RecurrentSpec(cell=cell, width=width).build((4, 3), 3).double()


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in network.named_parameters()}


PROBES = torch.randn(5, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("cell", CELLS)
def test_a_signed_permutation_leaves_a_cell_as_it_is(cell: str) -> None:
    """One group of H neurons, 2^H H! elements: cells of tanh have the hyperoctahedral group."""
    network = recurrent(cell)
    spec = symmetry.derive(network, PROBES)
    (group,) = spec.groups
    assert group.size == 6
    assert symmetry.log10_order(spec) == pytest.approx(np.log10(2**6 * 720))
    assert symmetry.log10_order(spec.without_signs()) == pytest.approx(np.log10(720))
    draw = stream(0, "test")
    moved = symmetry.permute(
        weights_of(network), spec, symmetry.random(spec, draw), symmetry.random_signs(spec, draw)
    )
    torch.testing.assert_close(
        functional_call(network, moved, (PROBES,)), network(PROBES), rtol=1e-12, atol=1e-12
    )
    assert any(not torch.equal(moved[n], w) for n, w in weights_of(network).items())


@pytest.mark.parametrize("cell", CELLS)
def test_the_gates_keep_their_sign_and_the_candidate_changes_it(cell: str) -> None:
    """The candidate's rows flip, and the columns of every map that reads the hidden state; no gate's rows do."""
    network = recurrent(cell)
    (group,) = symmetry.derive(network, PROBES).groups
    names = [name for name, _ in network.named_parameters()]
    columns = {(n, 1) for n in names if n.endswith("hidden.weight") or n == "readout.weight"}
    rows = {(n, 0) for n in names if ".candidate." in n}
    assert set(group.flip) == rows | columns


class Layers(nn.Module):
    """A hidden layer with an activation of choice, with or without a norm before it."""

    def __init__(self, activation: nn.Module, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.norm = norm or nn.Identity()
        self.activation = activation
        self.second = nn.Linear(4, 4)
        self.readout = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.norm(self.first(x[:, 0])))
        return self.readout(torch.tanh(self.second(x)) + x * 0.5)


class Gated(nn.Module):
    """Two maps multiplied: their signs can change together, or one of them with what follows."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.readout = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(torch.tanh(self.left(x[:, 0])) * self.right(x[:, 0]))


def shifted_norm() -> nn.Module:
    norm = nn.LayerNorm(4)
    nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(1))
    nn.init.normal_(norm.bias, generator=torch.Generator().manual_seed(2))
    return norm


@pytest.mark.parametrize(
    "network",
    [
        Layers(nn.Tanh()),
        Layers(nn.GELU()),
        Layers(nn.ReLU()),
        Layers(nn.Sigmoid()),
        Layers(nn.Tanhshrink()),
        Layers(nn.Softshrink()),
        Layers(nn.Hardtanh()),
        Layers(nn.Hardtanh(-0.3, 0.3, inplace=True)),
        Layers(nn.Hardtanh(-0.1, 0.3)),
        Layers(nn.Hardtanh(0, 2)),
        Layers(nn.ReLU6()),
        Layers(nn.Tanh(), shifted_norm()),
        Layers(nn.Tanh(), nn.LayerNorm(4, elementwise_affine=False)),
        Layers(nn.Tanh(), nn.RMSNorm(4, elementwise_affine=False)),
        Gated(),
        Layers(nn.Tanh(), nn.RMSNorm(4)),
        RecurrentSpec(cell="rnn", width=4).build((4, 3), 2),
    ],
    ids=[
        "tanh",
        "gelu",
        "relu",
        "sigmoid",
        "tanhshrink",
        "softshrink",
        "hardtanh",
        "narrow hardtanh",
        "lopsided hardtanh",
        "hardtanh from 0",
        "relu6",
        "norm and tanh",
        "plain norm and tanh",
        "plain rms norm and tanh",
        "product",
        "rms norm and tanh",
        "cell",
    ],
)
def test_every_pattern_of_signs_is_tried(network: nn.Module) -> None:
    """Brute force over all sets of a group's axes: those that leave the function are what is derived, or products of it."""
    network = network.double()
    weights, expected = weights_of(network), network(PROBES)
    for group in symmetry.derive(network, PROBES).groups:
        signs = torch.tensor([1, -1] * (group.size // 2))
        harmless = set()
        for pattern in itertools.product([False, True], repeat=len(group.axes)):
            chosen = [axis for axis, taken in zip(group.axes, pattern, strict=True) if taken]
            moved = dict(weights)
            for name, axis in chosen:
                moved[name] = symmetry.flip_axis(moved[name], axis, signs)
            if torch.allclose(functional_call(network, moved, (PROBES,)), expected, rtol=1e-9, atol=1e-9):
                harmless.add(frozenset(chosen))
        scaled = ("norm.weight", 0) in group.axes and isinstance(network.norm, nn.RMSNorm)
        if isinstance(network, Gated) or scaled:
            assert len(harmless) == 4  # two flips and their product; the specification names one
            assert frozenset(group.flip) in harmless
            assert group.flip
        else:
            assert harmless == {frozenset(), frozenset(group.flip)}


@pytest.mark.parametrize("cell", CELLS)
def test_a_planted_signed_permutation_is_found(cell: str) -> None:
    network = recurrent(cell, 12)
    drawn = [weights_of(recurrent(cell, 12)) for _ in range(3)]
    a = {n: torch.stack([w[n] for w in drawn]) for n in drawn[0]}
    spec = symmetry.derive(network, PROBES)
    draw = stream(3, "test")
    planted, signs = symmetry.random(spec, draw, 3), symmetry.random_signs(spec, draw, 3)
    found = match(network, a, symmetry.permute(a, spec, planted, signs), PROBES, restarts=20)
    norm = sum(w.square().flatten(1).sum(1) for w in a.values())
    torch.testing.assert_close(found.objective, norm, rtol=1e-9, atol=1e-9)
    undone = symmetry.invert(planted)
    for name, permutation in found.permutations.items():
        assert torch.equal(permutation, undone[name])
        assert torch.equal(found.signs[name], signs[name].gather(1, undone[name]))


@pytest.mark.parametrize("cell", CELLS)
def test_signs_bring_networks_closer_than_permutations_alone(cell: str) -> None:
    torch.manual_seed(0)
    network = recurrent(cell, 16)
    drawn = [weights_of(recurrent(cell, 16)) for _ in range(8)]
    a, b = (
        {n: torch.stack([w[n] for w in drawn[half]]) for n in drawn[0]} for half in (slice(4), slice(4, 8))
    )
    spec = symmetry.derive(network, PROBES)
    signed = match(network, a, b, PROBES, spec=spec, restarts=5)
    unsigned = match(network, a, b, PROBES, spec=spec.without_signs(), restarts=5)
    assert not unsigned.signs
    assert (signed.objective > unsigned.objective).all()
    assert (unsigned.objective > unsigned.identity_objective).all()
