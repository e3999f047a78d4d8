"""Planes: networks lie where it is said, directions are scaled filter by filter, and what D fixes stays put."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from symcore.landscape.planes import plane_through, random_plane, trajectory_plane
from symcore.networks.mlp import MLPSpec
from symcore.population import Design, build
from symcore.treatments import Standard, WAsymmetric


def networks(treatment, count=1, width=16):
    population = build(Design(MLPSpec(width=width, depth=2), treatment, (8, 8), 10, tuple(range(count))))
    weights = population.effective()
    return population, [{name: w[member] for name, w in weights.items()} for member in range(count)]


def flat(weights):
    return torch.cat([w.double().flatten() for w in weights.values()]).numpy()


def cell(plane, x, y):
    return {name: w[0] for name, w in plane.at(np.array([x]), np.array([y])).items()}


def test_a_plane_is_its_origin_at_zero_and_linear_in_both_coordinates():
    _, (origin,) = networks(Standard())
    plane = random_plane(origin, seed=3)
    xs, ys = np.array([0.0, 1.0, 0.0, -0.5]), np.array([0.0, 0.0, 1.0, 2.0])
    cells = plane.at(xs, ys)
    for name, weights in origin.items():
        assert torch.equal(cells[name][0], weights)
        assert torch.equal(cells[name][1], weights + plane.first[name])
        assert torch.equal(cells[name][2], weights + plane.second[name])
        torch.testing.assert_close(cells[name][3], weights - 0.5 * plane.first[name] + 2 * plane.second[name])


def test_every_filter_of_a_random_direction_has_the_norm_of_the_networks_own():
    _, (origin,) = networks(Standard())
    origin["kernel"] = torch.randn(4, 3, 2, 2)
    plane = random_plane(origin, seed=0)
    for direction in (plane.first, plane.second):
        for name, weights in origin.items():
            if weights.ndim == 1:
                assert not direction[name].any()
            else:
                norms = direction[name].flatten(1).norm(dim=1)
                torch.testing.assert_close(norms, weights.flatten(1).norm(dim=1), rtol=1e-5, atol=0)


def test_what_d_fixes_stays_put_and_counts_in_no_norm():
    population, (origin,) = networks(
        WAsymmetric(n_fix=(8, 4, 16))
    )  # the readout of width 16 is fixed entirely
    trainable = population.asymmetry.trainable
    plane = random_plane(origin, seed=1, trainable=trainable)
    cells = plane.at(np.array([-1.5, 0.7]), np.array([2.0, 0.3]))
    for name, free in trainable.items():
        assert (cells[name][:, ~free] == origin[name][~free]).all()
        own = (origin[name] * free).norm(dim=1)
        torch.testing.assert_close(plane.second[name].norm(dim=1), own, rtol=1e-5, atol=0)
    assert not plane.first["readout.weight"].any()
    assert plane.first["hidden.0.linear.weight"].any()


def test_one_seed_gives_comparable_planes():
    _, (one, other) = networks(Standard(), count=2)
    a, b, c = random_plane(one, seed=5), random_plane(other, seed=5), random_plane(one, seed=6)
    name = "hidden.1.linear.weight"
    cosines = torch.cosine_similarity(a.first[name], b.first[name])
    torch.testing.assert_close(cosines, torch.ones_like(cosines))
    assert torch.cosine_similarity(a.first[name], c.first[name]).abs().max() < 0.9
    assert torch.cosine_similarity(a.first[name], a.second[name]).abs().max() < 0.9
    alone = random_plane({name: one[name]}, seed=5)
    assert torch.equal(alone.first[name], a.first[name])


@pytest.mark.parametrize("treatment", [Standard(), WAsymmetric()], ids=lambda t: t.kind)
def test_three_networks_lie_where_they_are_said_to(treatment):
    population, (a, b, c) = networks(treatment, count=3)
    plane, places = plane_through(a, b, c)
    for network, (x, y) in zip((a, b, c), places, strict=True):
        here = cell(plane, x, y)
        for name, weights in network.items():
            torch.testing.assert_close(here[name], weights, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(w, a[name]) for name, w in cell(plane, 0.0, 0.0).items())
    if population.asymmetry:
        for name, free in population.asymmetry.trainable.items():
            assert (cell(plane, 3.0, -2.0)[name][~free] == a[name][~free]).all()


@given(st.integers(0, 10_000))
def test_distances_on_the_plane_through_three_networks_are_distances_between_weights(seed):
    torch.manual_seed(seed)
    a, b, c = ({"w": torch.randn(3, 4), "b": torch.randn(3)} for _ in range(3))
    plane, places = plane_through(a, b, c)
    u, v = flat(plane.first), flat(plane.second)
    np.testing.assert_allclose([u @ u, v @ v, u @ v], [1, 1, 0], atol=1e-6)
    vectors = [flat(weights) for weights in (a, b, c)]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        expected = np.linalg.norm(vectors[i] - vectors[j])
        assert np.linalg.norm(places[i] - places[j]) == pytest.approx(expected, rel=1e-6)


def test_three_networks_on_a_line_span_no_plane():
    _, (a, b) = networks(Standard(), count=2)
    middle = {name: (a[name] + b[name]) / 2 for name in a}
    for c in (middle, a, b):
        with pytest.raises(ValueError, match="one line"):
            plane_through(a, b, c)
    with pytest.raises(ValueError, match="one line"):
        plane_through(a, a, b)


def spiral(out_of_plane=0.0):
    """Weights that wind around their end in a known plane, and stand at a given height above it before they get there."""
    rng = np.random.default_rng(4)
    basis, _ = np.linalg.qr(rng.standard_normal((20, 3)))
    times = np.linspace(0, 1, 9)
    radius = 3 * (1 - times)
    places = np.stack([radius * np.cos(4 * times), radius * np.sin(4 * times), out_of_plane * radius])
    points = rng.standard_normal(20) + (basis @ places).T
    weights = torch.from_numpy(points).float()
    return {"w": weights[:, :12].reshape(9, 3, 4), "b": weights[:, 12:]}, radius


def test_a_trajectory_in_a_plane_is_held_whole():
    trajectory, radius = spiral()
    found = trajectory_plane(trajectory)
    np.testing.assert_allclose(found.error, 0, atol=1e-5)
    assert found.explained.sum() == pytest.approx(1)
    assert found.explained[0] >= found.explained[1] > 0
    np.testing.assert_allclose(np.linalg.norm(found.coordinates, axis=1), radius, atol=1e-5)
    assert (found.coordinates[0] >= 0).all()
    held = found.plane.at(found.coordinates[:, 0], found.coordinates[:, 1])
    for name, weights in trajectory.items():
        torch.testing.assert_close(held[name], weights, rtol=1e-5, atol=1e-5)
        assert torch.equal(found.plane.origin[name], weights[-1])


def test_the_error_of_a_trajectory_is_what_stands_above_its_plane():
    height = 0.1
    found = trajectory_plane(spiral(height)[0])
    held = found.plane.at(found.coordinates[:, 0], found.coordinates[:, 1])
    weights = spiral(height)[0]
    above = sum((held[n] - w).flatten(1).double().square().sum(1) for n, w in weights.items()).sqrt()
    distance = sum((w - w[-1]).flatten(1).double().square().sum(1) for w in weights.values()).sqrt()
    np.testing.assert_allclose(found.error[:-1], (above / distance)[:-1], atol=1e-5)
    assert 0 < found.error[:-1].max() < 0.2
    assert found.error[-1] == 0


def test_principal_components_are_those_of_the_whole_matrix():
    trajectory = {"w": torch.randn(7, 5, 4), "b": torch.randn(7, 5)}
    found = trajectory_plane(trajectory)
    matrix = np.concatenate([w.double().flatten(1).numpy() for w in trajectory.values()], axis=1)
    _, singular, rows = np.linalg.svd(matrix - matrix[-1], full_matrices=False)
    np.testing.assert_allclose(found.explained, singular[:2] ** 2 / (singular**2).sum(), rtol=1e-6)
    for direction, row in zip((found.plane.first, found.plane.second), rows, strict=False):
        assert abs(flat(direction) @ row) == pytest.approx(1, rel=1e-5)


def test_a_straight_trajectory_spans_no_plane():
    steps = torch.linspace(0, 1, 6).view(-1, 1, 1)
    for weights in (steps * torch.randn(3, 4), torch.randn(2, 3, 4), torch.ones(4, 3, 4)):
        with pytest.raises(ValueError, match="one line"):
            trajectory_plane({"w": weights})
