"""SWAG's Gaussian has the moments of its definition, moves nothing that is fixed, and knows no neighbours."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from symcore.checkpoints import StoppedError
from symcore.data import sources
from symcore.data.sources import Split
from symcore.metrics import Evaluator
from symcore.networks.mlp import MLPSpec
from symcore.networks.resnet import ResNetSpec
from symcore.population import Design, build
from symcore.posteriors import swag
from symcore.posteriors.predict import predict
from symcore.training import Hooks, TrainingSpec, fit
from symcore.treatments import FixedBiases, Standard, Syre, WAsymmetric

TRAINING = TrainingSpec(epochs=5, batch=128, learning_rate=0.05, weight_decay=1e-3, optimizer="sgd")
SWAG = swag.SWAGSpec(start=1, rank=3)
SMALL = MLPSpec(width=8, depth=1)
W = WAsymmetric(n_fix=(3, 3))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return sources.load("digits", tmp_path_factory.mktemp("data"))


def start(dataset, treatment=Standard(), seeds=(0, 1), network=SMALL, **given):  # noqa: B008 - it is immutable
    source = dataset.source
    return build(Design(network, treatment, source.input_shape, source.classes, seeds, **given))


def trained(population, dataset, spec=SWAG, training=TRAINING, **given):
    trainer = swag.begin(population, dataset, training, spec)
    fit(trainer, **given)
    return trainer


def test_moments_are_those_of_the_weights_at_the_ends_of_epochs(digits):
    trainer, ends, moments = swag.begin(start(digits, W), digits, TRAINING, SWAG), {}, {}

    def on_epoch(epoch, _metrics):
        ends[epoch] = {name: w.double() for name, w in trainer.weights.items()}
        if epoch > 1:
            moments[epoch] = swag.posterior(trainer)

    fit(trainer, hooks=Hooks(on_epoch=on_epoch))
    for epoch, found in moments.items():
        for name, mean in found.mean.items():
            passed = torch.stack([ends[at][name] for at in range(2, epoch + 1)])
            torch.testing.assert_close(mean.double(), passed.mean(0), rtol=1e-6, atol=1e-7)
            variance = passed.var(0, correction=0)
            torch.testing.assert_close(found.variance[name].double(), variance, rtol=1e-4, atol=1e-12)
            assert (found.variance[name] >= 0).all()
            means = passed.cumsum(0) / torch.arange(1, epoch).view(-1, *[1] * mean.ndim)
            expected = (passed - means)[-SWAG.rank :].float()
            kept = found.deviations[name]
            assert kept.shape[1] == min(epoch - 1, SWAG.rank)
            order = [at % SWAG.rank for at in range(epoch - 1)][-SWAG.rank :]
            torch.testing.assert_close(kept[:, order], expected.movedim(0, 1), rtol=1e-4, atol=1e-6)
    networks = trainer.trained().effective()
    assert all(torch.equal(networks[name], mean) for name, mean in found.mean.items())


@pytest.mark.parametrize(("rank", "scale"), [(4, 1.0), (2, 0.25), (1, 1.0)])
def test_draws_have_the_mean_and_the_covariance_of_the_definition(digits, rank, scale):
    """Each of many members, which differ in their seeds alone, draws once."""
    members, rng = 40_000, torch.Generator().manual_seed(3)
    own = {"a": (2, 2), "b": (3,)}

    def normal(*shape):
        return {name: torch.randn(*shape, *of, generator=rng) for name, of in own.items()}

    mean, variance, deviations = normal(1), {n: v.square() for n, v in normal(1).items()}, normal(1, rank)
    variance["b"][0, 1] = deviations["b"][:, :, 1] = 0
    one = start(digits)
    population = replace(one, design=replace(one.design, seeds=tuple(range(members))))
    parts = [
        {n: t.expand(members, *t.shape[1:]) for n, t in part.items()} for part in (mean, variance, deviations)
    ]
    drawn = swag.SWAGPosterior(population, *parts, scale).draw(0)
    assert (drawn["b"][:, 1] == mean["b"][0, 1]).all()
    m, v, d, found = (
        torch.cat([part[name].flatten(keep) for name in own], -1).double()
        for part, keep in ((mean, 1), (variance, 1), (deviations, 2), (drawn, 1))
    )
    covariance = scale / 2 * (v.diag_embed()[0] + d[0].t() @ d[0] / max(1, rank - 1))
    deviation = covariance.diag().sqrt()
    assert ((found.mean(0) - m[0]).abs() <= 4.5 * deviation / members**0.5 + 1e-6).all()
    # of normal numbers a covariance's variance is (s_i^2 s_j^2 + c^2) / n, at most twice the first
    errors = 4.5 * (2 / members) ** 0.5 * torch.outer(deviation, deviation)
    assert ((found.t().cov() - covariance).abs() <= errors + 1e-9).all()


@pytest.mark.parametrize("treatment", [W, FixedBiases(), Syre(), Standard()], ids=lambda t: t.kind)
def test_what_a_treatment_fixes_stays_in_every_draw(digits, treatment):
    population = start(digits, treatment)
    before = population.effective()
    found = swag.posterior(trained(population, digits))
    one, other = found.draw(0), found.draw(1)
    masks = population.asymmetry.trainable if population.asymmetry else {}
    for name, w in before.items():
        random = masks.get(name, torch.ones((), dtype=torch.bool)).expand_as(w)
        assert torch.equal(one[name][~random], w[~random])
        assert torch.equal(one[name] != other[name], random)
    assert all(torch.equal(found.draw(1)[name], w) for name, w in other.items())


@pytest.mark.parametrize("mask_seeds", [(0,), (0, 1, 2)], ids=["shared masks", "masks of their own"])
def test_a_member_learns_what_it_learns_alone(digits, mask_seeds):
    def found(seeds, masks):
        return swag.posterior(trained(start(digits, W, seeds, mask_seeds=masks), digits))

    together, alone = found((3, 5, 8), mask_seeds), found((5,), mask_seeds[1:2] or mask_seeds)
    drawn = together.draw(3), alone.draw(3)
    for a, b in ((together.mean, alone.mean), (together.variance, alone.variance), drawn):
        for name, w in a.items():
            torch.testing.assert_close(w[1:2], b[name], rtol=1e-3, atol=1e-5)


def test_a_stopped_training_goes_on_with_the_same_bits(digits, tmp_path):
    whole, ended = trained(start(digits, W), digits), []
    hooks = Hooks(stopping=lambda: len(ended) > 2, on_epoch=lambda *_: (ended.append(1), time.sleep(0.15)))
    with pytest.raises(StoppedError):
        trained(start(digits, W), digits, checkpoint=tmp_path / "stopped", hooks=hooks)
    resumed = swag.begin(start(digits, W), digits, TRAINING, SWAG)
    resumed.restore(tmp_path / "stopped")
    assert 0 < resumed.taken_up < whole.taken_up
    fit(resumed)
    assert all(torch.equal(t, resumed.state()[name]) for name, t in whole.state().items())
    drawn = swag.posterior(resumed).draw(0)
    assert all(torch.equal(w, drawn[name]) for name, w in swag.posterior(whole).draw(0).items())


def test_metrics_are_those_of_the_networks_and_then_of_draws(digits):
    trainer, told, expected = swag.begin(start(digits), digits, TRAINING, SWAG), {}, {}
    evaluator = Evaluator(trainer.population.network, digits)

    def on_epoch(epoch, metrics):
        told[epoch] = metrics
        expected[epoch] = evaluator(trainer.weights, trainer.population.buffers, "test")

    fit(trainer, hooks=Hooks(on_epoch=on_epoch))
    assert np.array_equal(told[1]["test/loss"], expected[1][0])
    labels = digits.splits["test"].labels.expand(2, -1).unsqueeze(-1)
    predicted = predict(swag.posterior(trainer), evaluator, "test", 5).gather(-1, labels)
    np.testing.assert_allclose(told[5]["test/loss"], -predicted.mean((1, 2)), rtol=1e-5)
    assert not np.allclose(told[5]["test/loss"], expected[5][0], rtol=1e-3)


@pytest.mark.slow
def test_a_residual_network_learns(digits):
    told = {}
    training = TRAINING.model_copy(update={"epochs": 3, "learning_rate": 0.2})
    train, test = digits.splits["train"], digits.splits["test"]
    few = replace(digits, splits={"train": Split(train.images[:640], train.labels[:640]), "test": test})
    trained(
        start(few, WAsymmetric(), network=ResNetSpec(depth=8, width=0.25, norm="batch")),
        few,
        training=training,
        hooks=Hooks(on_epoch=told.__setitem__),
    )
    assert (told[3]["train/loss"] < told[1]["train/loss"]).all()
    assert all(np.isfinite(values).all() for values in told[3].values())


@pytest.mark.parametrize(
    ("begun", "epochs", "accepted"), [(4, 5, "0 to 3"), (0, 1, "none, train for 2 epochs or more")]
)
def test_too_few_epochs_to_take_up_are_refused(digits, begun, epochs, accepted):
    training = TRAINING.model_copy(update={"epochs": epochs})
    with pytest.raises(ValueError, match=f"start: {begun} of {epochs} epochs .* accepted: {accepted}"):
        swag.begin(start(digits), digits, training, swag.SWAGSpec(start=begun))


def test_there_is_no_posterior_before_weights_are_taken_up(digits):
    with pytest.raises(ValueError, match="start: 1, and 0 epochs are done"):
        swag.posterior(swag.begin(start(digits), digits, TRAINING, SWAG))
