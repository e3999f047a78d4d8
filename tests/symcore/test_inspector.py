"""Which transformations of the weights leave a network as it is, and which no longer do once it is asymmetric."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from symcore.metrics import Array
from symcore.networks.mlp import MLPSpec
from symcore.networks.recurrent import RecurrentSpec
from symcore.networks.registry import NetworkSpec
from symcore.networks.resnet import ResNetSpec
from symcore.population import Design, Population, build
from symcore.symmetry.automorphisms import neurons
from symcore.symmetry.inspector import changes, normalised, rescaled
from symcore.treatments import FixedBiases, SigmaAsymmetric, Standard, Syre, Treatment, WAsymmetric

ROUNDING = 1e-10
GONE = 0.05
PERMUTING, NORM = ("swap", "permutation"), ("scale", "shift")
STANDARD, SIGMA = Standard(), SigmaAsymmetric(std=1)
W, BARE_W = WAsymmetric(), WAsymmetric(kappa=(0, 0, 0))


def network(
    treatment: Treatment, width: int = 24, norm: str = "layer", activation: str = "relu"
) -> Population:
    spec = MLPSpec.model_validate({"width": width, "depth": 2, "norm": norm, "activation": activation})
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
    assert set(found) == {*PERMUTING, "rescale", *NORM}
    assert all(values.max() < ROUNDING for values in found.values())


def test_sigma_loses_permutations_and_keeps_what_the_norms_allow() -> None:
    found = measured(SIGMA, exact_norm=True)
    assert all(found[name].min() > GONE for name in (*PERMUTING, "sign", "rescale"))
    assert all(found[name].max() < ROUNDING for name in NORM)


def test_w_loses_permutations_and_what_the_norms_allow() -> None:
    found = measured(W, exact_norm=True)
    assert all(found[name].mean() > GONE for name in (*PERMUTING, "rescale", *NORM))
    assert all(values.min() > GONE / 10 for values in found.values())


def test_masks_without_constants_can_still_be_scaled() -> None:
    found = measured(BARE_W, exact_norm=True)
    assert max(found["scale"].max(), found["rescale"].max()) < ROUNDING
    assert all(found[name].mean() > GONE for name in (*PERMUTING, "shift"))


RESCALED = {
    "relu": MLPSpec(width=12, depth=2, norm="none", activation="relu"),
    "norm": MLPSpec(width=12, depth=2, norm="layer", activation="relu"),
    "batch": MLPSpec(width=12, depth=2, norm="batch", activation="relu"),
    "resnet": ResNetSpec(depth=8, width=0.25),
    "bare resnet": ResNetSpec(depth=8, width=0.25, norm="none"),
}
"""Networks all of whose neurons have a positively homogeneous activation."""


def inspected(spec: NetworkSpec, treatment: Treatment) -> dict[str, Array]:
    shape = (3, 8, 8) if isinstance(spec, ResNetSpec) else (5, 5)
    return changes(build(Design(spec, treatment, shape, 4, (3,), (7,))), draws=4, probes=16, seed=0)


@pytest.mark.parametrize("name", RESCALED)
def test_neurons_of_relu_can_be_rescaled_unless_constants_hold_them(name: str) -> None:
    """relu(s x) / s = relu(x) for s > 0, where x is what a map or a norm's scale and shift give."""
    assert inspected(RESCALED[name], STANDARD)["rescale"].max() < ROUNDING
    for treatment in (W, Syre(), SIGMA):
        assert inspected(RESCALED[name], treatment)["rescale"].min() > 1e-3


@pytest.mark.parametrize("spec", [MLPSpec(width=12, depth=2), RecurrentSpec(width=12)], ids=["gelu", "tanh"])
def test_rescaling_is_measured_where_the_activation_does_not_allow_it(spec: NetworkSpec) -> None:
    assert inspected(spec, STANDARD)["rescale"].min() > GONE


def test_fixed_biases_hold_the_size_of_neurons_without_a_norm_alone() -> None:
    assert inspected(RESCALED["relu"], FixedBiases())["rescale"].min() > GONE
    assert inspected(RESCALED["norm"], FixedBiases())["rescale"].max() < ROUNDING


def test_what_goes_in_is_the_norms_where_there_is_one_and_the_candidates_in_a_cell() -> None:
    x = torch.zeros(2, 5, 5)

    def places(spec: NetworkSpec) -> list[tuple[set[str], set[str]]]:
        built = spec.build((5, 5), 4)
        found = rescaled(neurons(built, x), normalised(built, x))
        assert all(axis == 0 for place in found for _, axis in place.incoming)
        assert all(axis == 1 for place in found for _, axis in place.outgoing)
        return [({n for n, _ in p.incoming}, {n for n, _ in p.outgoing}) for p in found]

    assert places(RESCALED["norm"]) == [
        ({"hidden.0.norm.weight", "hidden.0.norm.bias"}, {"hidden.1.linear.weight"}),
        ({"hidden.1.norm.weight", "hidden.1.norm.bias"}, {"readout.weight"}),
    ]
    candidate = {f"cell.candidate.{name}" for name in ("input.weight", "input.bias", "hidden.weight")}
    reading = {f"cell.{gate}.hidden.weight" for gate in ("reset", "update", "candidate")} | {"readout.weight"}
    assert places(RecurrentSpec(cell="gru", width=6)) == [(candidate, reading)]


def treated_cell(cell: str, treatment: Treatment) -> dict[str, Array]:
    return inspected(RecurrentSpec.model_validate({"cell": cell, "width": 8}), treatment)


@pytest.mark.parametrize(("cell", "weights"), [("rnn", 3), ("gru", 7), ("lstm", 9)])
def test_signs_of_tanh_remain_where_what_is_fixed_is_zero(cell: str, weights: int) -> None:
    """Masks of zeros take all permutations, and no sign: a zero is its own negative."""
    bare = treated_cell(cell, WAsymmetric(kappa=(0,) * weights))
    assert bare["permutation"].min() > GONE
    for kept in (bare, treated_cell(cell, STANDARD)):
        assert kept["sign"].max() < ROUNDING
    for treatment in (W, SIGMA, FixedBiases()):
        assert treated_cell(cell, treatment)["sign"].min() > GONE


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
    assert set(bare) == {*PERMUTING, "rescale"}
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
