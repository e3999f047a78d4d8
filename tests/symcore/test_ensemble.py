"""An ensemble's first network is the member itself; the others differ in their seeds alone, and no ensemble knows another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from symcore.data import sources
from symcore.metrics import Evaluator
from symcore.networks.mlp import MLPSpec
from symcore.population import Design, build
from symcore.posteriors import ensemble
from symcore.posteriors.predict import predict
from symcore.training import Hooks, Trainer, TrainingSpec, fit
from symcore.treatments import SigmaAsymmetric, Standard, WAsymmetric

TRAINING = TrainingSpec(epochs=2, batch=128, learning_rate=1e-2)
ENSEMBLE = ensemble.EnsembleSpec(networks=3)
W, SIGMA = WAsymmetric(n_fix=(3, 3)), SigmaAsymmetric()


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return sources.load("digits", tmp_path_factory.mktemp("data"))


def start(dataset, seeds, treatment=W, **given):
    source = dataset.source
    design = Design(MLPSpec(width=8, depth=1), treatment, source.input_shape, source.classes, seeds, **given)
    return build(design)


def trained(population, dataset, **given):
    trainer = ensemble.begin(population, dataset, TRAINING, ENSEMBLE)
    fit(trainer, **given)
    return trainer


@pytest.mark.parametrize("treatment", [W, SIGMA, Standard()], ids=lambda t: t.kind)
@pytest.mark.parametrize("mask_seeds", [(0,), (4, 7)], ids=["shared masks", "masks of their own"])
def test_networks_of_an_ensemble_start_apart_with_the_masks_of_their_member(digits, treatment, mask_seeds):
    members = start(digits, (3, 5), treatment, mask_seeds=mask_seeds)
    found = ensemble.ensembles(members, 3)
    assert found.design.seeds[::3] == (3, 5)
    assert len(set(found.design.seeds)) == found.size == 6
    first = found.select([0, 3])
    assert all(torch.equal(w, first.parameters[name]) for name, w in members.parameters.items())
    for other in (1, 2):
        beside = found.select([other, 3 + other])
        assert all(torch.equal(b, beside.buffers[name]) for name, b in members.buffers.items())
        for name, w in members.effective().items():
            fixed = torch.zeros_like(w, dtype=torch.bool)
            if members.asymmetry and name in members.asymmetry.trainable:
                fixed |= ~members.asymmetry.trainable[name]
            assert torch.equal(beside.effective()[name][fixed], w[fixed])
            if w.ndim > 2:
                assert (beside.effective()[name] != w)[~fixed].all()


def test_the_first_network_is_the_member_as_it_trains_alone_from_wherever_it_starts(digits):
    fresh = start(digits, (3, 5))
    members = replace(fresh, parameters={name: w / 2 for name, w in fresh.parameters.items()})
    plain = fit(Trainer(members, digits, TRAINING)).effective()
    trainer = trained(members, digits)
    found = ensemble.posterior(trainer)
    assert len(found) == 3
    for weights in (found.draw(0), found.population.effective()):
        for name, w in plain.items():
            torch.testing.assert_close(weights[name], w, rtol=1e-4, atol=1e-5)
    assert found.population.design == members.design
    with pytest.raises(IndexError, match="3 of 3 draws"):
        found.draw(3)


@pytest.mark.parametrize("mask_seeds", [(0,), (0, 1)], ids=["shared masks", "masks of their own"])
def test_an_ensemble_does_not_depend_on_its_neighbours(digits, mask_seeds):
    together = ensemble.posterior(trained(start(digits, (3, 5), mask_seeds=mask_seeds), digits))
    alone = ensemble.posterior(trained(start(digits, (5,), mask_seeds=mask_seeds[-1:]), digits))
    for network in range(3):
        for name, w in together.draw(network).items():
            torch.testing.assert_close(w[1:], alone.draw(network)[name], rtol=1e-4, atol=1e-5)


def test_metrics_are_those_of_the_mean_prediction_of_each_ensemble(digits):
    told = {}
    trainer = trained(start(digits, (3, 5)), digits, hooks=Hooks(on_epoch=told.__setitem__))
    found, network = ensemble.posterior(trainer), trainer.population.network
    labels = digits.splits["test"].labels.expand(2, -1).unsqueeze(-1)
    predicted = predict(found, Evaluator(network, digits), "test", 3).gather(-1, labels)
    np.testing.assert_allclose(told[2]["test/loss"], -predicted.mean((1, 2)), rtol=1e-5)
    each = {}
    fit(Trainer(trainer.population, digits, TRAINING), hooks=Hooks(on_epoch=each.__setitem__))
    losses = each[2]["train/loss"].reshape(2, 3).mean(1)
    np.testing.assert_allclose(told[2]["train/loss"], losses, rtol=1e-5)
