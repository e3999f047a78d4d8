"""Paths and barriers: endpoints are the networks themselves, and the barriers are the defined numbers."""

import numpy as np
import pytest
import torch

from symcore.data import sources
from symcore.landscape.paths import alphas, interpolate, linear_path
from symcore.metrics import Evaluator, barrier_maximum, barrier_midpoint
from symcore.networks.mlp import MLPSpec
from symcore.population import Design, build
from symcore.treatments import SigmaAsymmetric, WAsymmetric


@pytest.mark.parametrize("treatment", [WAsymmetric(), SigmaAsymmetric()], ids=lambda t: t.kind)
@pytest.mark.parametrize("mask_seeds", [(0,), (1, 1, 2, 2)], ids=["one mask seed", "per pair"])
def test_a_path_starts_at_a_and_ends_at_b_and_each_pair_is_its_own(
    treatment, mask_seeds, tmp_path, monkeypatch
):
    monkeypatch.setattr("symcore.landscape.paths.PATHS_AT_ONCE", {"cpu": 5})  # one pair at a time
    population = build(Design(MLPSpec(width=16), treatment, (8, 8), 10, (0, 1, 2, 3), mask_seeds))
    dataset = sources.load("digits", tmp_path)
    evaluator = Evaluator(population.network, dataset, stacked_buffers=len(mask_seeds) > 1)
    weights = population.effective()
    a, b = ({name: w[first::2] for name, w in weights.items()} for first in (0, 1))
    buffers = {n: x[::2] if len(mask_seeds) > 1 else x for n, x in population.buffers.items()}
    path = linear_path(evaluator, a, b, buffers, "test", alphas(5))
    loss, accuracy = evaluator(weights, population.buffers, "test")
    np.testing.assert_allclose(path.loss[:, 0], loss[::2], rtol=1e-5)
    np.testing.assert_allclose(path.loss[:, -1], loss[1::2], rtol=1e-5)
    np.testing.assert_allclose(path.accuracy[:, [0, -1]].ravel(), accuracy, atol=3e-3)
    middle = {name: (a[name] + b[name]) / 2 for name in a}
    np.testing.assert_allclose(path.loss[:, 2], evaluator(middle, buffers, "test")[0], rtol=1e-5)


def test_alpha_runs_fastest():
    points = interpolate({"w": torch.zeros(2, 1)}, {"w": torch.tensor([[1.0], [10.0]])}, alphas(3))
    assert points["w"].flatten().tolist() == [0, 0.5, 1, 0, 5, 10]


def test_barriers_of_known_curves():
    positions = alphas(5)
    tent = np.array([1.0, 2.0, 4.0, 2.5, 2.0])
    assert barrier_midpoint(tent) == pytest.approx(4 - 1.5)
    assert barrier_maximum(tent, positions) == pytest.approx(2.5)
    lopsided = np.array([0.0, 3.0, 1.0, 0.0, 0.0])
    assert barrier_midpoint(lopsided) == pytest.approx(1)
    assert barrier_maximum(lopsided, positions) == pytest.approx(3)
    dip = np.array([1.0, 0.5, 0.2, 0.5, 1.0])
    assert barrier_midpoint(dip) == pytest.approx(-0.8)
    assert barrier_maximum(dip, positions) == 0


def test_an_even_number_of_points_has_no_midpoint():
    with pytest.raises(ValueError, match=r"points: 4 .* odd"):
        barrier_midpoint(np.zeros(4))
