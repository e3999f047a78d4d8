"""The probe reads known valleys right, and directions are what they are called."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from symcore.landscape.valleys import along, direction, probe, toward
from symcore.networks.mlp import MLPSpec
from symcore.population import Design, build
from symcore.treatments import WAsymmetric

POSITIONS = np.linspace(-1, 1, 41)


@given(slope=st.floats(0.01, 10), c=st.floats(1.01, 50), side=st.sampled_from([-1, 1]), base=st.floats(-5, 5))
def test_two_straight_slopes_give_back_their_ratio(slope, c, side, base):
    losses = base + np.where(side * POSITIONS > 0, c * slope, slope) * np.abs(POSITIONS)
    found = probe(POSITIONS, losses)
    assert found.minimum == pytest.approx(0, abs=1e-12)
    assert found.sharp_side == side
    assert found.rise == pytest.approx(c, rel=1e-6)
    for zeta, ratio in found.ratio.items():
        assert ratio == pytest.approx(c, rel=1e-6)
        assert found.slope[zeta] == pytest.approx(slope, rel=1e-6)


@given(scale=st.floats(0.1, 10))
def test_a_parabola_is_symmetric(scale):
    """Its rise is the same on both sides, and no c above 1 holds anywhere: slopes start at 0."""
    found = probe(POSITIONS, scale * POSITIONS**2)
    assert found.rise == pytest.approx(1, rel=1e-6)
    assert all(ratio < 1 for ratio in found.ratio.values())


def test_a_lowest_point_at_the_end_is_refused():
    with pytest.raises(ValueError, match="lowest point, -1, has 0 points on one side"):
        probe(POSITIONS, POSITIONS)


@pytest.fixture(scope="module")
def network():
    made = build(Design(MLPSpec(width=32), WAsymmetric(), (8, 8), 10, (0, 1)))
    one = made.select([0])
    return (
        {n: w[0] for n, w in one.effective().items()},
        {n: w[0] for n, w in made.select([1]).effective().items()},
        made.asymmetry.trainable,
    )


@pytest.mark.parametrize("kind", ["gaussian", "uniform", "sign"])
def test_directions_have_length_1_and_leave_fixed_weights(network, kind):
    origin, _, trainable = network
    found = direction(kind, origin, 0, trainable)
    assert sum(p.square().sum() for p in found.values()).item() == pytest.approx(1, rel=1e-5)
    for name, d in trainable.items():
        assert (found[name][~d] == 0).all()
    again, other = direction(kind, origin, 0, trainable), direction(kind, origin, 1, trainable)
    assert all(torch.equal(p, again[name]) for name, p in found.items())
    assert any(not torch.equal(p, other[name]) for name, p in found.items())
    moved = torch.cat([(found[name] * w).flatten() for name, w in origin.items()])
    if kind == "sign":
        assert (moved >= 0).all()  # every weight grows away from 0
    if kind == "uniform":
        assert all((p >= 0).all() for p in found.values())


def test_the_way_to_another_network_leads_there(network):
    origin, other, _ = network
    step = toward(origin, other)
    distance = sum((other[n] - w).square().sum() for n, w in origin.items()).sqrt().item()
    points = along(origin, step, np.array([0.0, distance]))
    for name, weight in origin.items():
        assert torch.equal(points[name][0], weight)
        torch.testing.assert_close(points[name][1], other[name], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="length 0"):
        toward(origin, origin)
