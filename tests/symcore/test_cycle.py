"""Many networks in one order: planted permutations are undone, cycles close, and the sum of similarities rises."""

from __future__ import annotations

import itertools

import pytest
import torch

from symcore.align import weights
from symcore.align.cycle import match_many
from symcore.align.matching import Watch
from symcore.checkpoints import StoppedError
from symcore.networks.mlp import MLPSpec
from symcore.networks.recurrent import RecurrentSpec
from symcore.randomness import stream
from symcore.symmetry import permutations as symmetry

PROBE = torch.zeros(2, 4, 4)


def drawn(spec, count, seed=0):
    torch.manual_seed(seed)
    networks = [spec.build((4, 4), 3) for _ in range(count)]
    stacked = {
        name: torch.stack([dict(n.named_parameters())[name].detach() for n in networks])
        for name, _ in networks[0].named_parameters()
    }
    return networks[0], stacked


@pytest.mark.parametrize(
    "form", [MLPSpec(width=12, depth=2), RecurrentSpec(width=10)], ids=["mlp", "recurrent"]
)
def test_permuted_copies_fall_into_one_order(form):
    network, one = drawn(form, 1)
    spec = symmetry.derive(network, PROBE)
    copies = {name: w.repeat(5, *[1] * (w.ndim - 1)) for name, w in one.items()}
    planted = symmetry.random(spec, stream(0, "test"), 5)
    planted = {n: torch.cat([torch.arange(p.shape[1])[None], p[1:]]) for n, p in planted.items()}
    found = match_many(network, symmetry.permute(copies, spec, planted), PROBE)
    most = 10 * sum(float(w.double().square().sum()) for w in one.values())
    assert found.objective == pytest.approx(most, rel=1e-6)
    for b in range(1, 5):
        undone = symmetry.invert({n: p[b] for n, p in planted.items()})
        permutations, signs = found.between(0, b)
        assert all(torch.equal(p, undone[n]) for n, p in permutations.items())
        assert all((s == 1).all() for s in signs.values())


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_copies_that_are_permuted_and_flipped_fall_into_one_order(cell):
    """Frank and Wolfe's method over signed permutations: cells of tanh have those."""
    network, one = drawn(RecurrentSpec(width=10, cell=cell), 1)
    spec, draw = symmetry.derive(network, PROBE), stream(0, "test")
    copies = {name: w.repeat(4, *[1] * (w.ndim - 1)) for name, w in one.items()}
    planted, flipped = symmetry.random(spec, draw, 4), symmetry.random_signs(spec, draw, 4)
    many = symmetry.permute(copies, spec, planted, flipped)
    found = match_many(network, many, PROBE)
    most = 6 * sum(float(w.double().square().sum()) for w in one.values())
    assert found.objective == pytest.approx(most, rel=1e-6)
    for a, b in itertools.permutations(range(4), 2):
        moved = symmetry.permute({n: w[b] for n, w in many.items()}, spec, *found.between(a, b))
        for name, w in moved.items():
            torch.testing.assert_close(w, many[name][a])


@pytest.mark.parametrize(
    "form", [MLPSpec(width=10, depth=2), RecurrentSpec(width=10)], ids=["mlp", "recurrent"]
)
def test_every_cycle_closes(form):
    network, many = drawn(form, 4)
    found = match_many(network, many, PROBE)
    assert not found.signs or any((s < 0).any() for s in found.signs.values())
    for a, b, c in itertools.permutations(range(4), 3):
        moved = own = {n: w[c] for n, w in many.items()}
        for way in ((b, c), (a, b), (c, a)):
            moved = symmetry.permute(moved, found.spec, *found.between(*way))
        assert all(torch.equal(moved[n], w) for n, w in own.items())


def test_two_networks_are_matched_as_well_as_a_pair():
    """With two networks the objective is weight matching's own; the better start loses nothing over five draws."""
    for seed in range(5):
        network, two = drawn(MLPSpec(width=12, depth=2), 2, seed)
        found = match_many(network, two, PROBE)
        pair = weights.match(network, *({n: w[i : i + 1] for n, w in two.items()} for i in (0, 1)), PROBE)
        assert found.identity_objective == pytest.approx(pair.identity_objective.item(), rel=1e-9)
        assert found.objective >= 0.97 * pair.objective.item()
        between = {n: p[None] for n, p in found.between(0, 1)[0].items()}
        moved = symmetry.permute({n: w[1:] for n, w in two.items()}, found.spec, between)
        product = sum(float((two[n][:1].double() * w.double()).sum()) for n, w in moved.items())
        assert product == pytest.approx(found.objective, rel=1e-6)


def test_it_does_better_than_matching_all_to_the_first():
    network, many = drawn(MLPSpec(width=16, depth=2), 6)
    found = match_many(network, many, PROBE)
    a = {n: w[:1].repeat(5, *[1] * (w.ndim - 1)) for n, w in many.items()}
    star = weights.match(network, a, {n: w[1:] for n, w in many.items()}, PROBE)
    permuted = symmetry.permute({n: w[1:] for n, w in many.items()}, star.spec, star.permutations)
    together = {n: torch.cat([many[n][:1], w]).double() for n, w in permuted.items()}
    by_star = sum(float(w.sum(0).square().sum() - w.square().sum()) / 2 for w in together.values())
    assert found.objective > by_star > found.identity_objective


def test_bad_input_and_a_stop():
    network, one = drawn(MLPSpec(width=4, depth=1), 1)
    with pytest.raises(ValueError, match="weights: got 1 networks; at least 2"):
        match_many(network, one, PROBE)
    network, two = drawn(MLPSpec(width=4, depth=1), 2)
    with pytest.raises(StoppedError):
        match_many(network, two, PROBE, watch=Watch(stopping=lambda: True))
