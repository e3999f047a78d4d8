"""Curves keep their ends, follow a valley where it bends, and leave what is fixed as it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import nn

from symcore.checkpoints import StoppedError
from symcore.data import sources
from symcore.data.sources import Split
from symcore.landscape.curves import CurveTrainer, bezier, curve_path
from symcore.landscape.paths import alphas, linear_path
from symcore.metrics import Evaluator
from symcore.networks.mlp import MLPSpec
from symcore.population import Design, Population, build
from symcore.training import Hooks, TrainingSpec, fit
from symcore.treatments import SigmaAsymmetric, Standard, WAsymmetric


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return sources.load("digits", tmp_path_factory.mktemp("data"))


def halves(treatment, mask_seeds=(0,), pairs=2):
    """Untrained networks of some pairs: the first ones as a population, and the weights of both."""
    seeds = tuple(range(2 * pairs))
    whole = build(Design(MLPSpec(width=16, depth=1), treatment, (8, 8), 10, seeds, mask_seeds))
    first, second = whole.select(seeds[::2]), whole.select(seeds[1::2])
    return first, (first.effective(), second.effective())


def test_a_quadratic_curve_is_de_casteljaus():
    draw = torch.Generator().manual_seed(0)
    a, bend, b = ({"w": torch.randn(3, 2, 5, generator=draw, dtype=torch.float64)} for _ in range(3))
    positions = np.array([0.0, 0.2, 0.7, 1.0])
    points = bezier([a, bend, b], positions)["w"].unflatten(0, (3, 4))
    for place, t in enumerate(positions):
        left, right = (torch.lerp(x["w"], y["w"], t) for x, y in ((a, bend), (bend, b)))
        torch.testing.assert_close(points[:, place], torch.lerp(left, right, t))
    assert torch.equal(points[:, 0], a["w"])
    assert torch.equal(points[:, -1], b["w"])


def test_a_curve_without_bends_is_the_straight_path(digits):
    first, ends = halves(Standard())
    evaluator = Evaluator(first.network, digits)
    straight = linear_path(evaluator, *ends, first.buffers, "test", alphas(5))
    curve = curve_path(evaluator, ends, first.buffers, "test", alphas(5))
    np.testing.assert_allclose(curve.loss, straight.loss, rtol=1e-5)
    np.testing.assert_array_equal(curve.accuracy, straight.accuracy)


class Ring(nn.Module):
    """Two weights whose loss is least on the unit circle: the logit of the first class is 6 - 8 (|w|^2 - 1)^2."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        logit = 6 - 8 * (self.w.square().sum() - 1) ** 2
        return torch.cat([logit.view(1, 1), torch.zeros(1, 1)], dim=1).expand(len(x), 2)


def ring_loss(points):
    """Of points [*, 2]."""
    return np.log1p(np.exp(8 * ((points**2).sum(-1) - 1) ** 2 - 6))


def test_the_bend_of_a_curve_along_a_round_valley_is_where_the_mean_loss_is_least(digits):
    """Ends at (1, 0) and (0, 1): by symmetry the bend is (s, s), and s minimises the integral over the curve."""
    t = (np.arange(2000) + 0.5)[:, None] / 2000

    def mean_loss(s):
        return ring_loss((1 - t) ** 2 * [1, 0] + 2 * t * (1 - t) * [s, s] + t**2 * [0, 1]).mean()

    best = minimize_scalar(mean_loss, bounds=(0.5, 1.5), method="bounded", options={"xatol": 1e-6})
    labels = torch.zeros_like(digits.splits["train"].labels)
    splits = {name: Split(s.images, labels[: len(s)]) for name, s in digits.splits.items()}
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    design = Design(MLPSpec(), Standard(), (8, 8), 2, (0,))
    ends = Population(design, Ring().requires_grad_(requires_grad=False), {"w": a}, {}, None)
    spec = TrainingSpec(epochs=30, batch=10, learning_rate=3e-3, weight_decay=0)
    trainer = CurveTrainer(({"w": a}, {"w": b}), ends, replace(digits, splits=splits), spec)
    fit(trainer)
    bend = trainer.controls()[1]["w"].numpy()
    np.testing.assert_allclose(bend, [[best.x, best.x]], atol=0.03)
    floor = np.log1p(np.exp(-6))  # on the circle itself
    assert mean_loss(bend.mean()) - floor < 0.01 * (mean_loss(0.5) - floor)


@pytest.mark.parametrize("treatment", [Standard(), WAsymmetric(), SigmaAsymmetric()], ids=lambda t: t.kind)
@pytest.mark.parametrize("mask_seeds", [(0,), (0, 0, 1, 1)], ids=["shared masks", "masks per pair"])
def test_bends_lower_the_loss_and_move_only_what_is_trained(digits, treatment, mask_seeds):
    first, ends = halves(treatment, mask_seeds)
    before = [{n: w.clone() for n, w in end.items()} for end in ends]
    trainer = CurveTrainer(ends, first, digits, TrainingSpec(epochs=3), bends=2)
    start = [{n: w.clone() for n, w in control.items()} for control in trainer.controls()]
    fit(trainer)
    controls = trainer.controls()
    for kept, end in zip(before, (controls[0], controls[-1]), strict=True):
        assert all(torch.equal(w, end[n]) for n, w in kept.items())
    for name, d in first.asymmetry.trainable.items() if first.asymmetry else ():
        fixed = ~d.expand_as(controls[1][name])
        assert torch.equal(controls[1][name][fixed], start[1][name][fixed])
        torch.testing.assert_close(controls[2][name][fixed], ends[0][name][fixed])
    evaluator = Evaluator(first.network, digits, stacked_buffers=first.stacked)
    paths = [
        curve_path(evaluator, c, first.buffers, "train", alphas(9)).loss.mean(1) for c in (start, controls)
    ]
    assert (paths[1] < paths[0] - 0.1).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="runs on a GPU; there is none here")
def test_bends_trained_on_a_cuda_device_equal_those_of_the_cpu(digits):
    first, ends = halves(WAsymmetric(), (0,))
    on_cpu, on_gpu = (
        CurveTrainer(
            tuple({n: w.to(device) for n, w in end.items()} for end in ends),
            first.to(device),
            digits.to(device),
            TrainingSpec(epochs=2),
        )
        for device in ("cpu", "cuda")
    )
    for trainer in (on_cpu, on_gpu):
        fit(trainer)
    for name, bend in on_cpu.controls()[1].items():
        assert (on_gpu.controls()[1][name].cpu() - bend).norm() <= 1e-3 * bend.norm(), name


def test_a_pair_trains_beside_others_as_alone(digits):
    first, ends = halves(Standard(), pairs=3)
    spec = TrainingSpec(epochs=2)
    together = CurveTrainer(ends, first, digits, spec)
    fit(together)
    only = [{n: w[1:2] for n, w in end.items()} for end in ends]
    alone = CurveTrainer((only[0], only[1]), first.select([1]), digits, spec)
    fit(alone)
    for name, bend in alone.controls()[1].items():
        torch.testing.assert_close(together.controls()[1][name][1:2], bend, rtol=1e-4, atol=1e-5)


def test_training_that_was_stopped_goes_on_to_the_same_bends(digits, tmp_path):
    first, ends = halves(Standard())
    spec, checkpoint = TrainingSpec(epochs=6), tmp_path / "checkpoint"
    undisturbed = CurveTrainer(ends, first, digits, spec)
    fit(undisturbed)
    asked = 0

    def stopping():
        nonlocal asked
        asked += 1
        return asked > 1

    with pytest.raises(StoppedError):
        fit(CurveTrainer(ends, first, digits, spec), checkpoint=checkpoint, hooks=Hooks(stopping=stopping))
    again = CurveTrainer(ends, first, digits, spec)
    fit(again, checkpoint=checkpoint)
    for control, other in zip(undisturbed.controls(), again.controls(), strict=True):
        assert all(torch.equal(w, other[n]) for n, w in control.items())
