"""The order of the signed permutations that what is fixed allows is what counting all of them gives."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from symcore.asymmetry import Asymmetry
from symcore.networks.recurrent import RecurrentSpec
from symcore.population import Design, build
from symcore.symmetry import permutations as symmetry
from symcore.symmetry.automorphisms import coloured_graph, find, neurons
from symcore.symmetry.signed import Signed, signed
from symcore.treatments import SigmaAsymmetric, Standard, Treatment, WAsymmetric

SEVERAL = settings(max_examples=10)
CELLS = ("rnn", "gru", "lstm")
ROWS, WIDTH = (3, 2), 3


def layers(activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    """Two hidden layers of 3 neurons, whose (2^3 3!)^2 signed permutations can all be tried."""
    return nn.Sequential(
        nn.Linear(3, WIDTH), activation(), nn.Linear(WIDTH, WIDTH), activation(), nn.Linear(WIDTH, 2)
    )


def cell(kind: str) -> nn.Module:
    return RecurrentSpec.model_validate({"cell": kind, "width": WIDTH}).build(ROWS, 2)


def example(network: nn.Module) -> Tensor:
    return torch.zeros(2, 3) if isinstance(network, nn.Sequential) else torch.zeros(2, *ROWS)


def constants(network: nn.Module, share: float, values: int, seed: int) -> Asymmetry:
    """A share of all parameters is fixed, at one of so many whole numbers around 0, or at normal ones for 0."""
    random = np.random.default_rng(seed)
    trainable, fixed = {}, {}
    for name, p in network.named_parameters():
        trainable[name] = torch.from_numpy(random.random(p.shape) >= share)
        drawn = (
            random.integers(-(values // 2), values // 2 + 1, p.shape)
            if values
            else random.normal(size=p.shape)
        )
        fixed[name] = torch.from_numpy(drawn).double() * ~trainable[name]
    return Asymmetry(trainable, fixed)


def inspected(network: nn.Module, asymmetry: Asymmetry | None) -> Signed:
    x = example(network)
    return signed(network, x, asymmetry, find(coloured_graph(network, x, asymmetry)))


def elements(
    network: nn.Module,
) -> Iterator[tuple[symmetry.PermutationSpec, dict[str, Tensor], dict[str, Tensor]]]:
    """All signed permutations."""
    spec = symmetry.derive(network, example(network))
    names = [group.name for group in spec.groups]
    orders = [torch.tensor(p) for p in itertools.permutations(range(WIDTH))]
    signs = [torch.tensor(s) for s in itertools.product([1, -1], repeat=WIDTH)]
    flipping = [group.name for group in spec.groups if group.flip]
    for chosen in itertools.product(orders, repeat=len(names)):
        for flips in itertools.product(signs, repeat=len(flipping)):
            yield spec, dict(zip(names, chosen, strict=True)), dict(zip(flipping, flips, strict=True))


def counted(network: nn.Module, asymmetry: Asymmetry) -> tuple[int, int]:
    """The oracle: signed permutations that leave masks and constants in place; and those among them that permute nothing."""
    masks = {name: d.double() for name, d in asymmetry.trainable.items()}
    order = alone = 0
    for spec, chosen, flips in elements(network):
        moved = symmetry.permute(asymmetry.fixed, spec, chosen, flips)
        kept = symmetry.permute(masks, spec, chosen)
        if all(
            torch.equal(moved[n], f) and torch.equal(kept[n], masks[n]) for n, f in asymmetry.fixed.items()
        ):
            order += 1
            alone += all(torch.equal(p, torch.arange(WIDTH)) for p in chosen.values())
    return order, alone


@SEVERAL
@given(st.data())
def test_the_order_is_what_counting_gives(data: st.DataObject) -> None:
    network = layers() if data.draw(st.booleans()) else cell(data.draw(st.sampled_from(CELLS)))
    share, values = data.draw(st.sampled_from([0.1, 0.3, 0.7])), data.draw(st.sampled_from([0, 1, 3]))
    asymmetry = constants(network, share, values, data.draw(st.integers(0, 10_000)))
    found, (order, alone) = inspected(network, asymmetry), counted(network, asymmetry)
    assert found.flippable == (2 * WIDTH if isinstance(network, nn.Sequential) else WIDTH)
    assert 2**found.changes == alone
    assert found.log10_least - 1e-9 <= math.log10(order) <= found.log10_most + 1e-9
    if values != 3 and find(coloured_graph(network, example(network), asymmetry)).certificate != "open":
        assert found.log10_least == found.log10_most


def test_neurons_with_opposite_constants_may_change_places_and_signs_at_once() -> None:
    """No permutation keeps them in place, but one does with its signs; the bounds say that it is not excluded."""
    network = layers()
    fixed = torch.tensor([[1.0, 2, 3], [-1, -2, -3], [4, 5, 6]]).double()
    asymmetry = constants(network, 0, 0, 0)
    asymmetry.fixed["0.weight"], asymmetry.trainable["0.weight"] = fixed, torch.zeros(3, 3, dtype=torch.bool)
    found, (order, alone) = inspected(network, asymmetry), counted(network, asymmetry)
    assert (order, alone) == (2 * 48, 8)
    assert (found.changes, found.log10_least, found.log10_most) == (
        3,
        pytest.approx(math.log10(48)),
        pytest.approx(math.log10(96)),
    )


@pytest.mark.parametrize("kind", CELLS)
def test_every_element_that_is_counted_leaves_the_function_and_no_other_does(kind: str) -> None:
    """With zeros fixed all signs of a cell remain, and no permutation, for any weights between the zeros."""
    weights = {"rnn": 3, "gru": 7, "lstm": 9}[kind]
    treatment = WAsymmetric(n_fix=(1,) * weights, kappa=(0,) * weights)
    one = build(
        Design(RecurrentSpec.model_validate({"cell": kind, "width": WIDTH}), treatment, (4, 3), 2, (0,))
    )
    network, asymmetry = one.network.double(), one.asymmetry
    assert asymmetry is not None
    x = torch.randn(5, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    spec = symmetry.derive(network, x)
    effective = {name: p[0].double() for name, p in one.effective().items()}
    before, kept = functional_call(network, effective, (x,)), 0
    for chosen in itertools.permutations(range(WIDTH)):
        for signs in itertools.product([1, -1], repeat=WIDTH):
            (group,) = spec.groups
            moved = symmetry.permute(
                effective, spec, {group.name: torch.tensor(chosen)}, {group.name: torch.tensor(signs)}
            )
            after = functional_call(network, asymmetry.apply(moved), (x,))
            kept += bool((after - before).norm() < 1e-10 * before.norm())
    found = signed(network, x, asymmetry, find(coloured_graph(network, x, asymmetry)))
    assert 10**found.log10_most == pytest.approx(kept) == pytest.approx(2**WIDTH)


@pytest.mark.parametrize(
    ("treatment", "changes"),
    [(Standard(), 6), (WAsymmetric(), 0), (SigmaAsymmetric(), 0)],
    ids=str,
)
@pytest.mark.parametrize("kind", CELLS)
def test_a_standard_cell_has_signed_permutations_and_an_asymmetric_one_none(
    kind: str, treatment: Treatment, changes: int
) -> None:
    spec = RecurrentSpec.model_validate({"cell": kind, "width": 6})
    one = build(Design(spec, treatment, (8, 8), 10, (0,)))
    x = torch.zeros(2, 8, 8)
    found = signed(one.network, x, one.asymmetry, find(coloured_graph(one.network, x, one.asymmetry)))
    expected = symmetry.log10_order(symmetry.derive(one.network, x)) if changes else 0.0
    assert (found.changes, found.log10_least) == (changes, pytest.approx(expected))
    assert found.log10_least == found.log10_most


def test_neurons_before_an_activation_that_is_not_odd_keep_their_signs() -> None:
    network = layers(nn.GELU)
    assert not any(group.flip for group in neurons(network, example(network)).groups)
    found = inspected(network, None)
    assert (found.flippable, found.changes) == (0, 0)
    assert found.log10_least == found.log10_most == pytest.approx(math.log10(36))
