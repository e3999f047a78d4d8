"""Surfaces: known ones come out as they are, cells together equal cells alone, and rounds leave no cell out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from symcore.data import sources
from symcore.landscape.planes import Plane, random_plane
from symcore.landscape.surfaces import evaluate, rounds, subset
from symcore.metrics import Evaluator
from symcore.networks.mlp import MLPSpec
from symcore.population import Design, build
from symcore.treatments import SigmaAsymmetric, Standard, WAsymmetric

DIGITS = sources.load("digits", Path())
GRID = np.meshgrid(np.linspace(-1, 1, 7), np.linspace(-1, 1, 5))
XS, YS = (axis.ravel() for axis in GRID)


@pytest.fixture(scope="module")
def digits():
    return subset(DIGITS, "test", 150, seed=0)


def assert_each_cell_is_that_network(network, plane, buffers, dataset):
    evaluator = Evaluator(network, dataset)
    surface = evaluate(evaluator, plane, buffers, "test", XS, YS)
    for index, (x, y) in enumerate(zip(XS, YS, strict=True)):
        loss, accuracy = evaluator(plane.at(np.array([x]), np.array([y])), buffers, "test")
        assert surface.loss[index] == pytest.approx(loss[0], rel=1e-5)
        assert surface.accuracy[index] == pytest.approx(accuracy[0], abs=1e-2)


@pytest.mark.parametrize("rows", [2_000, 200], ids=["several at once", "one at a time"])
@pytest.mark.parametrize("norm", ["layer", "none"])
@pytest.mark.parametrize("treatment", [Standard(), WAsymmetric(), SigmaAsymmetric()], ids=lambda t: t.kind)
def test_cells_together_equal_cells_alone(treatment, norm, rows, digits, monkeypatch):
    monkeypatch.setattr("symcore.landscape.surfaces.CELLS", {"cpu": 20})
    monkeypatch.setattr("symcore.metrics.COMBINED_IMAGES", 64)
    monkeypatch.setattr("symcore.metrics.ROWS", {"cpu": rows})
    population = build(Design(MLPSpec(width=16, depth=2, norm=norm), treatment, (8, 8), 10, (4,)))
    origin = {name: w[0] for name, w in population.effective().items()}
    trainable = population.asymmetry.trainable if population.asymmetry else None
    plane = random_plane(origin, seed=2, trainable=trainable)
    assert_each_cell_is_that_network(population.network, plane, population.buffers, digits)


class Convolutional(nn.Module):
    """A convolution and a positional weight before the first nonlinearity, one in place, a shortcut, a shared readout."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.position = nn.Parameter(torch.randn(4, 8, 8))
        self.second = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.readout = nn.Linear(4 * 64, 10)

    def forward(self, x):
        h = self.first(x.unsqueeze(1)) + self.position
        inner = nn.functional.relu(h * 1.0, inplace=True)
        h = h + self.norm(self.second(inner))
        return self.readout(h.flatten(1)) - self.readout(inner.flatten(1)) / 2


class Multiplicative(nn.Module):
    """Products of weights, which are not linear in them, before any nonlinearity of the data."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 6), nn.Linear(6, 10)
        self.gain = nn.Parameter(torch.ones(6))

    def forward(self, x):
        return self.second((self.first(x.flatten(1)) + 1) * self.gain)


@pytest.mark.parametrize("network", [Convolutional, Multiplicative])
def test_any_network_may_be_evaluated(network, digits):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = network().eval().requires_grad_(requires_grad=False)
        plane = random_plane(dict(module.named_parameters()), seed=0)
    assert_each_cell_is_that_network(module, plane, dict(module.named_buffers()), digits)


def test_the_surface_of_a_known_loss_is_that_surface(digits):
    """Zero weights and a bias of (x, y, 0, ...) give every image the logits (x, y, 0, ...)."""

    class Readout(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 10)

        def forward(self, x):
            return self.linear(x.flatten(1))

    zero = {"linear.weight": torch.zeros(10, 64), "linear.bias": torch.zeros(10)}
    along = [{**zero, "linear.bias": torch.eye(10)[axis]} for axis in (0, 1)]
    surface = evaluate(Evaluator(Readout(), digits), Plane(zero, *along), {}, "test", XS, YS)
    labels = digits.splits["test"].labels.numpy()
    shares = [(labels == label).mean() for label in (0, 1)]
    expected = np.log(np.exp(XS) + np.exp(YS) + 8) - shares[0] * XS - shares[1] * YS
    np.testing.assert_allclose(surface.loss, expected, rtol=1e-5)


def test_work_is_reported_and_can_be_stopped_between_chunks(digits, monkeypatch):
    monkeypatch.setattr("symcore.landscape.surfaces.CELLS", {"cpu": 10})
    population = build(Design(MLPSpec(width=8, depth=1), Standard(), (8, 8), 10, (0,)))
    plane = random_plane({name: w[0] for name, w in population.effective().items()}, seed=0)
    done: list[int] = []
    evaluate(Evaluator(population.network, digits), plane, {}, "test", XS, YS, done.append)
    assert done == [10, 20, 30, 35]

    def stop():
        raise InterruptedError

    with pytest.raises(InterruptedError):
        evaluate(Evaluator(population.network, digits, on_chunk=stop), plane, {}, "test", XS, YS)


@given(st.integers(1, 70), st.integers(1, 70))
def test_rounds_hold_every_cell_once_and_begin_with_the_corners(rows, columns):
    found = rounds(rows, columns)
    cells = [tuple(cell) for part in found for cell in part.tolist()]
    assert sorted(cells) == [(row, column) for row in range(rows) for column in range(columns)]
    first = {tuple(cell) for cell in found[0].tolist()}
    assert {(row, column) for row in (0, rows - 1) for column in (0, columns - 1)} <= first
    for step, seen in enumerate(np.cumsum([len(part) for part in found])):
        spacing = 2 ** (len(found) - 1 - step)
        lattice = [
            (r, c)
            for r in range(rows)
            for c in range(columns)
            if all(i % spacing == 0 or i == n - 1 for i, n in ((r, rows), (c, columns)))
        ]
        assert set(cells[:seen]) == set(lattice)
    assert all(len(part) and part.dtype == np.int64 for part in found)


def test_a_grid_without_cells_is_refused():
    with pytest.raises(ValueError, match="0 x 5"):
        rounds(0, 5)


@given(st.integers(1, 497), st.integers(0, 100))
def test_a_subset_is_the_same_for_the_same_seed_and_holds_each_class_alike(images, seed):
    whole = DIGITS.splits["test"].labels
    part = subset(DIGITS, "test", images, seed)
    test = part.splits["test"]
    assert len(test) == len(test.images) == images
    counts, available = torch.bincount(test.labels, minlength=10), torch.bincount(whole, minlength=10)
    assert (counts >= available.clamp(max=int(counts.max()) - 1)).all()
    assert torch.equal(subset(DIGITS, "test", images, seed).splits["test"].images, test.images)
    assert part.splits["train"] is DIGITS.splits["train"]


def test_a_subset_of_all_is_all_and_a_larger_one_holds_the_smaller():
    assert subset(DIGITS, "test", 10_000, seed=0) is DIGITS
    marked = replace(DIGITS.splits["test"], images=torch.arange(497).view(-1, 1, 1))
    dataset = replace(DIGITS, splits={**DIGITS.splits, "test": marked})
    small, large = (
        set(subset(dataset, "test", n, 7).splits["test"].images.flatten().tolist()) for n in (90, 200)
    )
    assert small < large
    assert small != set(subset(dataset, "test", 90, 8).splits["test"].images.flatten().tolist())
