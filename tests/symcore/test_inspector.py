"""Which transformations of the weights leave a network as it is, and which no longer do once it is asymmetric."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from symcore.metrics import Array
from symcore.networks.mlp import MLPSpec
from symcore.population import Design, Population, build
from symcore.symmetry.inspector import changes, normalised
from symcore.treatments import SigmaAsymmetric, Standard, Treatment, WAsymmetric

ROUNDING = 1e-10
GONE = 0.05
PERMUTING, NORM = ("swap", "permutation"), ("scale", "shift")
STANDARD, SIGMA = Standard(), SigmaAsymmetric(std=1)
W, BARE_W = WAsymmetric(), WAsymmetric(kappa=(0, 0, 0))


def network(treatment: Treatment, width: int = 24, norm: str = "layer") -> Population:
    spec = MLPSpec.model_validate({"width": width, "depth": 2, "norm": norm})
    return build(Design(spec, treatment, (1, 5, 5), 4, (3,), (7,)))


def measured(treatment: Treatment, *, exact_norm: bool = False, seed: int = 0) -> dict[str, Array]:
    """Eight draws of each transformation; `exact_norm` takes away LayerNorm's eps, which no symmetry survives."""
    population = network(treatment)
    for module in population.network.modules():
        if isinstance(module, nn.LayerNorm) and exact_norm:
            module.eps = 0.0
    return changes(population, draws=8, probes=32, seed=seed)


def test_a_standard_network_keeps_every_symmetry() -> None:
    found = measured(STANDARD, exact_norm=True)
    assert set(found) == {*PERMUTING, *NORM}
    assert all(values.max() < ROUNDING for values in found.values())


def test_sigma_loses_permutations_and_keeps_what_the_norms_allow() -> None:
    found = measured(SIGMA, exact_norm=True)
    assert all(found[name].min() > GONE for name in PERMUTING)
    assert all(found[name].max() < ROUNDING for name in NORM)


def test_w_loses_permutations_and_what_the_norms_allow() -> None:
    found = measured(W, exact_norm=True)
    assert all(found[name].mean() > GONE for name in (*PERMUTING, *NORM))
    assert all(values.min() > GONE / 10 for values in found.values())


def test_masks_without_constants_can_still_be_scaled() -> None:
    found = measured(BARE_W, exact_norm=True)
    assert found["scale"].max() < ROUNDING
    assert all(found[name].mean() > GONE for name in (*PERMUTING, "shift"))


@pytest.mark.parametrize("treatment", [STANDARD, SIGMA])
def test_the_norms_eps_is_all_that_is_left_of_a_scaling(treatment: Treatment) -> None:
    found = measured(treatment)
    assert ROUNDING < found["scale"].max() < 5e-3
    assert found["shift"].max() < ROUNDING


def test_draws_differ_and_the_same_seed_repeats_them() -> None:
    first, again, other = measured(W), measured(W), measured(W, seed=1)
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name])
        assert len(np.unique(values)) == len(values)
        assert not np.isin(values, other[name]).any()


def test_measuring_leaves_the_network_as_it_is() -> None:
    population = network(SIGMA)
    before = {name: p.clone() for name, p in population.parameters.items()}
    changes(population, draws=2, probes=4, seed=0)
    assert {p.dtype for p in population.network.parameters()} == {torch.float32}
    for name, p in population.parameters.items():
        assert torch.equal(p, before[name])


def test_what_has_no_place_is_not_tried() -> None:
    bare = changes(network(STANDARD, norm="none"), draws=1, probes=4, seed=0)
    single = changes(network(STANDARD, width=1), draws=1, probes=4, seed=0)
    assert set(bare) == set(PERMUTING)
    assert set(single) == set(NORM)


def test_several_networks_are_refused() -> None:
    two = build(Design(MLPSpec(width=4, depth=1), STANDARD, (3,), 2, (0, 1)))
    with pytest.raises(ValueError, match="got 2 networks; accepted: one"):
        changes(two, draws=1, probes=1, seed=0)


class Mixed(nn.Module):
    """Maps with a norm at once, with something between, without one, and with one that stores its statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.group = nn.Conv2d(1, 4, 3, bias=False), nn.GroupNorm(1, 4)
        self.second, self.stored = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)
        self.linear, self.layer = nn.Linear(4, 6), nn.LayerNorm(6)
        self.late, self.last = nn.Linear(6, 6), nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stored(self.second(torch.relu(self.group(self.conv(x))))))
        return self.last(torch.relu(self.late(self.layer(self.linear(x.mean((2, 3)))))))


def test_only_maps_that_a_norm_takes_at_once_are_normalised() -> None:
    found = normalised(Mixed().eval(), torch.zeros(2, 1, 8, 8))
    assert [(layer.name, layer.biased, layer.centred) for layer in found] == [
        ("conv", False, False),
        ("linear", True, True),
    ]
