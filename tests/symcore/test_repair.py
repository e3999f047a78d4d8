"""REPAIR puts means and spreads where it says, on every kind of network, and leaves the ends of a path alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from symcore.align.repair import estimate, hidden_maps, repairable
from symcore.data import sources
from symcore.landscape.paths import alphas, interpolate, linear_path
from symcore.metrics import Evaluator
from symcore.networks.mlp import MLPSpec
from symcore.networks.recurrent import RecurrentSpec
from symcore.networks.registry import NetworkSpec
from symcore.networks.resnet import ResNetSpec
from symcore.population import Design, build
from symcore.treatments import SigmaAsymmetric, Standard, Treatment, WAsymmetric

DIGITS = sources.load("digits", Path())
IMAGES = DIGITS.normalise(DIGITS.splits["train"].images[:200])
POSITIONS = alphas(5)
PLAIN = MLPSpec(width=64, depth=3, norm="none", activation="relu")
NETWORKS: dict[str, NetworkSpec] = {
    "mlp": MLPSpec(width=16, depth=2),
    "plain mlp": PLAIN,
    "resnet": ResNetSpec(depth=8, width=0.25),
    "gru": RecurrentSpec(cell="gru", width=8),
}
TREATMENTS = [Standard(), WAsymmetric(), SigmaAsymmetric()]


def ends(network: NetworkSpec, treatment: Treatment, pairs: int = 2, mask_seeds: tuple[int, ...] = (0,)):
    population = build(Design(network, treatment, (8, 8), 10, tuple(range(2 * pairs)), mask_seeds))
    weights = population.effective()
    a, b = ({name: w[first::2] for name, w in weights.items()} for first in (0, 1))
    buffers = {n: v[::2] if population.stacked else v for n, v in population.buffers.items()}
    return population.network, a, b, buffers


def outputs(network, weights, maps):
    """What some maps of one network put out, by map, one tensor [..., channel] for each call."""
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in maps}

    def seen_by(name):
        return lambda module, _inputs, out: seen[name].append(
            out.movedim(1, -1) if isinstance(module, nn.Conv2d) else out
        )

    hooks = [network.get_submodule(name).register_forward_hook(seen_by(name)) for name in maps]
    with torch.no_grad():
        functional_call(network, weights, (IMAGES,))
    for hook in hooks:
        hook.remove()
    return seen


def moments(out):
    rows = out.flatten(0, -2).double()
    return rows.mean(0), rows.std(0, correction=0)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("treatment", TREATMENTS, ids=lambda t: t.kind)
def test_every_hidden_map_gets_the_moments_on_the_line_between_the_ends(network, treatment):
    form, a, b, buffers = ends(network, treatment)
    corrections = estimate(form, a, b, buffers, IMAGES, POSITIONS)
    corrected, maps = repairable(form, IMAGES[:2]), hidden_maps(form, IMAGES[:2])
    assert len(maps) == len([m for m in form.modules() if isinstance(m, nn.Linear | nn.Conv2d)]) - 1
    points = interpolate(a, b, POSITIONS)
    at_a, at_b = (outputs(form, {n: w[1] for n, w in end.items()} | buffers, maps) for end in (a, b))
    for place, alpha in enumerate(POSITIONS):
        weights = {n: w[len(POSITIONS) + place] for n, w in points.items()}
        at_point = outputs(
            corrected, weights | {n: c[1, place] for n, c in corrections.items()} | buffers, maps
        )
        for name in maps:
            for found, first, last in zip(at_point[name], at_a[name], at_b[name], strict=True):
                for got, x, y in zip(moments(found), moments(first), moments(last), strict=True):
                    torch.testing.assert_close(got, (1 - alpha) * x + alpha * y, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("mask_seeds", [(0,), (1, 1, 2, 2)], ids=["one mask seed", "per pair"])
def test_the_ends_are_left_as_they_are_and_each_pair_and_point_is_its_own(network, mask_seeds, monkeypatch):
    form, a, b, buffers = ends(network, SigmaAsymmetric(std=1), mask_seeds=mask_seeds)
    stacked, done = len(mask_seeds) > 1, []
    found = estimate(form, a, b, buffers, IMAGES, POSITIONS, stacked_buffers=stacked, on_points=done.append)
    assert done[-1] == 10
    for name, values in found.items():
        expected = 1.0 if name.endswith("scale") else 0.0
        assert (values[:, [0, -1]] == expected).all()
        assert not (values[:, 1:-1] == expected).all()
    monkeypatch.setattr("symcore.align.repair.rows_at_once", lambda *_: 1)  # one network at a time
    alone = estimate(form, a, b, buffers, IMAGES, POSITIONS, stacked_buffers=stacked)
    for name, values in alone.items():
        torch.testing.assert_close(values, found[name], rtol=1e-3, atol=1e-4)
    plain, repaired = (
        linear_path(
            Evaluator(module, DIGITS, stacked_buffers=stacked), a, b, buffers, "test", POSITIONS, **more
        )
        for module, more in ((form, {}), (repairable(form, IMAGES[:2]), {"corrections": found}))
    )
    np.testing.assert_allclose(repaired.loss[:, [0, -1]], plain.loss[:, [0, -1]], rtol=1e-6)
    assert (repaired.loss[:, 1:-1] != plain.loss[:, 1:-1]).all()


def test_the_spread_that_averaging_takes_is_given_back():
    form, a, b, buffers = ends(PLAIN, Standard(), pairs=1)
    corrections = estimate(form, a, b, buffers, IMAGES, alphas(3))
    last = hidden_maps(form, IMAGES[:2])[-1:]
    middle = {n: (a[n][0] + b[n][0]) / 2 for n in a}
    repaired = middle | {n: c[0, 1] for n, c in corrections.items()}

    def spread(network, weights):
        return float(moments(outputs(network, weights, last)[last[0]][0])[1].mean())

    wanted = np.mean([spread(form, {n: w[0] for n, w in end.items()}) for end in (a, b)])
    assert spread(form, middle) < 0.5 * wanted  # independent networks: each layer loses about 1 / sqrt(2)
    assert spread(repairable(form, IMAGES[:2]), repaired) == pytest.approx(wanted, rel=1e-3)


def test_of_one_linear_hidden_layer_the_corrections_are_known():
    form = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Linear(5, 10))
    torch.manual_seed(0)
    a, b = ({n: torch.randn(1, *p.shape) for n, p in form.named_parameters()} for _ in range(2))
    found = estimate(form, a, b, {}, IMAGES, np.array([0.0, 0.3, 1.0]))
    x = IMAGES.flatten(1).double().numpy()
    hidden = [x @ end["1.weight"][0].double().numpy().T + end["1.bias"][0].double().numpy() for end in (a, b)]
    between = 0.7 * hidden[0] + 0.3 * hidden[1]
    scale = (0.7 * hidden[0].std(0) + 0.3 * hidden[1].std(0)) / between.std(0)
    np.testing.assert_allclose(found["1.repair_scale"][0, 1, 0], scale, rtol=1e-4)
    np.testing.assert_allclose(
        found["1.repair_shift"][0, 1, 0], (1 - scale) * between.mean(0), rtol=1e-3, atol=1e-3
    )
    assert set(found) == {"1.repair_scale", "1.repair_shift"}


def test_a_channel_that_stands_still_is_shifted_only():
    form = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.ReLU(), nn.Linear(3, 10))
    torch.manual_seed(0)
    a = {n: torch.randn(1, *p.shape) for n, p in form.named_parameters()}
    b = {n: -w for n, w in a.items()}
    found = estimate(form, a, b, {}, IMAGES, alphas(3))
    assert (found["1.repair_scale"][0, 1] == 1).all()
    torch.testing.assert_close(found["1.repair_shift"][0, 1], torch.zeros(1, 3), atol=1e-5, rtol=0)


def test_the_network_itself_stays_and_a_fresh_copy_computes_the_same():
    form, *_ = ends(NETWORKS["resnet"], Standard())
    before, names = form(IMAGES), [name for name, _ in form.named_parameters()]
    copy = repairable(form, IMAGES[:2])
    assert [name for name, _ in form.named_parameters()] == names
    assert torch.equal(form(IMAGES), before)
    assert torch.equal(copy(IMAGES), before)
