"""The probe reads known valleys right, and directions are what they are called."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import functional_call

from symcore.landscape.valleys import (
    along,
    direction,
    gradient_noise,
    mean,
    norm_parameters,
    probe,
    toward,
    unit,
)
from symcore.metrics import cross_entropy
from symcore.networks.mlp import MLPSpec
from symcore.population import Design, build
from symcore.randomness import stream
from symcore.treatments import Standard, WAsymmetric

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


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_slice_ends_where_the_loss_is_no_number(bad):
    """The lowest point is that of the others, and the reach ends before the first that is none."""
    losses = np.where(POSITIONS > 0, 3.0, 1.0) * np.abs(POSITIONS)
    whole, diverged = probe(POSITIONS, losses), losses.copy()
    diverged[:10] = diverged[-1] = bad
    found = probe(POSITIONS, diverged)
    assert (found.minimum, found.sharp_side) == (whole.minimum, 1)
    assert (found.rise, found.ratio) == (pytest.approx(3), pytest.approx(whole.ratio))
    diverged[17] = bad
    with pytest.raises(ValueError, match="lowest point, 0, has 2 points on one side"):
        probe(POSITIONS, diverged)
    with pytest.raises(ValueError, match="losses: none of 41 is finite"):
        probe(POSITIONS, np.full(41, bad))


@pytest.mark.parametrize(("c", "published"), [(1, 0.0), (2, 0.006), (5, 0.021), (10, 0.046), (20, 0.095)])
def test_an_average_of_sgds_iterates_lies_on_the_flat_side(c, published):
    """He et al. 2019, theorem 2: slope 0.1 to the right and 0.1 c to the left, steps of 0.1, gradients with noise.

    The noise is uniform in [-0.15, 0.15]; the averages are those measured in a simulation of 1-D SGD.
    """
    draw, chains = np.random.default_rng(0), np.zeros(2000)
    iterates = []
    for _ in range(4000):
        noise = draw.uniform(-0.15, 0.15, len(chains))
        chains = chains - 0.1 * (np.where(chains > 0, 0.1, -0.1 * c) + noise)
        iterates.append(chains)
    average = mean({"w": torch.from_numpy(np.stack(iterates[500:]))})["w"].mean().item()
    assert average == pytest.approx(published, abs=6e-4)

    origin, right = {"w": torch.zeros(1)}, {"w": torch.ones(1)}
    points = along(origin, toward(origin, right), POSITIONS)["w"][:, 0].double().numpy()
    valley = probe(POSITIONS, np.where(points > 0, 0.1 * points, -0.1 * c * points))
    assert valley.rise == pytest.approx(c, rel=1e-4)
    assert c == 1 or np.sign(average) == -valley.sharp_side


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


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_norms_and_all_others_move_apart_and_make_the_whole(norm):
    made = build(Design(MLPSpec(width=8, norm=norm), Standard(), (8, 8), 10, (0,)))
    origin = {n: w[0] for n, w in made.effective().items()}
    norms = norm_parameters(made.network)
    assert norms == {f"hidden.{layer}.norm.{own}" for layer in range(3) for own in ("weight", "bias")}
    apart = [direction("uniform", origin, 0, moved=moved) for moved in (norms, set(origin) - norms)]
    for name in origin:
        assert [bool(part[name].any()) for part in apart] == [name in norms, name not in norms]
    whole = direction("uniform", origin, 0)
    lengths = [sum((whole[n] * part[n]).sum() for n in origin) for part in apart]
    assert all(
        torch.allclose(lengths[n not in norms] * apart[n not in norms][n], w) for n, w in whole.items()
    )


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_noise_is_a_minibatchs_gradient_less_the_mean(norm):
    """With BatchNorm less the mean over an epoch's whole minibatches, each with its own statistics."""
    made = build(Design(MLPSpec(width=4, depth=1, norm=norm), Standard(), (2, 3), 3, (0,)))
    origin = {n: w[0] for n, w in made.effective().items()}
    draw = torch.Generator().manual_seed(0)
    images, labels = torch.randn(50, 2, 3, generator=draw), torch.randint(3, (50,), generator=draw)

    def gradient(some):
        at = {n: w.clone().requires_grad_() for n, w in origin.items()}
        logits = functional_call(made.network, at, (images[some],))
        found = torch.autograd.grad(cross_entropy(logits, labels[some]).mean(), list(at.values()))
        return dict(zip(at, found, strict=True))

    chosen = stream(1, "minibatch").choice(50, 12, replace=False)
    epoch = stream(1, "epoch").permutation(50)[:48].reshape(4, 12)
    over = [gradient(some) for some in epoch] if norm == "batch" else [gradient(np.arange(50))]
    own, whole = gradient(chosen), {n: torch.stack([one[n] for one in over]).mean(0) for n in origin}
    expected = unit({n: own[n] - whole[n] for n in origin})
    found = gradient_noise(made.network, origin, {}, images, labels, batch=12, seed=1)
    for name, part in expected.items():
        torch.testing.assert_close(found[name], part, rtol=1e-3, atol=1e-5)


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
