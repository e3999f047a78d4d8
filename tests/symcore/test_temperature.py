"""A fitted temperature is the best one, changes no answer, and does not depend on what is fitted beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from torch.nn.functional import cross_entropy

from symcore.data import sources
from symcore.landscape.paths import alphas, fit_temperatures, linear_path
from symcore.metrics import Evaluator
from symcore.networks.mlp import MLPSpec
from symcore.population import Design, build
from symcore.temperature import LEAST, MOST, fit, measure
from symcore.treatments import Standard


def made(seed: int, members: int = 4, images: int = 60, classes: int = 5, scale: float = 3.0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (images,), generator=generator)
    hint = torch.nn.functional.one_hot(labels, classes)
    spreads = torch.rand(members, 1, 1, generator=generator) * scale + 0.1
    noise = torch.randn(members, images, classes, generator=generator)
    return spreads * (noise + hint), labels


@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 20))
def test_no_other_temperature_has_a_lower_loss(seed, scale):
    logits, labels = made(seed, scale=scale)
    found = fit(logits, labels)
    for z, b in zip(logits.double(), found, strict=True):
        loss = lambda t, z=z: float(cross_entropy(np.exp(t) * z, labels))  # noqa: E731
        best = minimize_scalar(
            loss, bounds=(np.log(LEAST), np.log(MOST)), method="bounded", options={"xatol": 1e-9}
        )
        assert loss(float(b.log())) <= best.fun + 1e-9


def test_networks_fitted_together_are_fitted_alone(monkeypatch):
    logits, labels = made(1)
    together = fit(logits, labels)
    torch.testing.assert_close(torch.cat([fit(z[None], labels) for z in logits]), together)
    monkeypatch.setattr("symcore.temperature.NUMBERS", 1)
    torch.testing.assert_close(fit(logits, labels), together)


def test_scaled_logits_have_the_scaled_temperature():
    logits, labels = made(2)
    torch.testing.assert_close(fit(logits / 2, labels), 2 * fit(logits, labels), rtol=1e-5, atol=0)


def test_a_loss_without_minimum_ends_at_a_bound():
    labels = torch.arange(5)
    right = torch.nn.functional.one_hot(labels, 5).float()
    found = fit(torch.stack([right, -right, torch.zeros(5, 5)]), labels)
    assert 30 < found[0] <= MOST  # the loss is below 1e-12 there
    assert found[1] == pytest.approx(LEAST, rel=1e-5)
    assert LEAST <= found[2] <= MOST


def test_each_image_is_measured_at_the_temperature_of_its_fold():
    logits, labels = made(3, images=7)
    sharpness = torch.tensor([[0.5, 2.0]] * 4, dtype=torch.float64)
    chunks = list(zip(logits.split(3, dim=1), labels.split(3), strict=True))
    loss, accuracy, calibrated = measure(chunks, sharpness)
    scaled = logits.double() * torch.tensor([0.5, 2.0] * 4)[:7].view(1, 7, 1)
    for member in range(4):
        assert loss[member] == pytest.approx(float(cross_entropy(logits[member], labels)))
        assert calibrated[member] == pytest.approx(float(cross_entropy(scaled[member], labels)))
        assert accuracy[member] == pytest.approx(float((logits[member].argmax(-1) == labels).double().mean()))


@pytest.mark.parametrize("folds", [1, 2])
def test_along_a_path_the_loss_falls_and_accuracy_stays(folds, monkeypatch):
    monkeypatch.setattr("symcore.landscape.paths.PATHS_AT_ONCE", {"cpu": 5})  # one pair at a time
    population = build(Design(MLPSpec(width=16), Standard(), (8, 8), 10, (0, 1, 2, 3)))
    evaluator = Evaluator(population.network, sources.load("digits", Path()))
    weights = {name: 3 * w for name, w in population.effective().items()}
    a, b = ({name: w[first::2] for name, w in weights.items()} for first in (0, 1))
    done: list[int] = []
    arguments = (evaluator, a, b, {}, "test", alphas(5))
    sharpness = fit_temperatures(*arguments, done.append, folds=folds)
    assert sharpness.shape == (2, 5, folds)
    assert done == [1, 2]
    plain, calibrated = linear_path(*arguments), linear_path(*arguments, sharpness=sharpness)
    assert plain.calibrated is None
    np.testing.assert_allclose(calibrated.loss, plain.loss, rtol=1e-5)
    np.testing.assert_array_equal(calibrated.accuracy, plain.accuracy)
    assert calibrated.calibrated is not None
    assert (calibrated.calibrated < plain.loss).all()


def test_of_two_halves_each_is_measured_at_the_temperature_of_the_other():
    """By hand: images at even places at the temperature that is best at odd ones, and the other way round."""
    population = build(Design(MLPSpec(width=16), Standard(), (8, 8), 10, (0, 1)))
    evaluator = Evaluator(population.network, sources.load("digits", Path()))
    a, b = ({name: 3 * w[[member]] for name, w in population.effective().items()} for member in (0, 1))
    arguments = (evaluator, a, b, {}, "test", alphas(3))
    sharpness = fit_temperatures(*arguments, folds=2)
    found = linear_path(*arguments, sharpness=sharpness)
    middle = {name: (a[name] + b[name]) / 2 for name in a}
    chunks, seen = zip(*evaluator.logits(middle, {}, "test"), strict=True)
    logits, labels = torch.cat(chunks, dim=1), torch.cat(seen)
    halves = [slice(0, None, 2), slice(1, None, 2)]
    losses = []
    for own, other in (halves, halves[::-1]):
        best = fit(logits[:, other], labels[other])
        losses.append(cross_entropy(logits[0, own].double() * best, labels[own], reduction="none"))
    np.testing.assert_allclose(found.calibrated[0, 1], torch.cat(losses).mean(), rtol=1e-6)
    np.testing.assert_array_equal(fit_temperatures(*arguments, folds=2), sharpness)
