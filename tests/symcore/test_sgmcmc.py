"""Chains with stochastic gradients rest at posteriors that are known, move nothing that is fixed, and know no neighbours."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from test_graphs import citations
from test_variational import NETWORKS, NOISE, TREATMENTS, RegressionSpec, W, measured, same, start

from symcore.checkpoints import StoppedError
from symcore.data import sources
from symcore.metrics import Evaluator
from symcore.networks.mlp import MLPSpec
from symcore.networks.recurrent import RecurrentSpec
from symcore.posteriors import sghmc, sgld
from symcore.posteriors.density import PosteriorDensity
from symcore.posteriors.predict import predict
from symcore.posteriors.sgmcmc import ChainTrainer
from symcore.training import Hooks, TrainingSpec, fit
from symcore.treatments import Standard, Syre

SGLD = TrainingSpec(epochs=2, batch=64, learning_rate=1e-3, weight_decay=0, optimizer="sgd", momentum=0)
SGHMC = SGLD.model_copy(update={"momentum": 0.9})
METHODS = {"sgld": (sgld, sgld.SGLDSpec, SGLD), "sghmc": (sghmc, sghmc.SGHMCSpec, SGHMC)}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return sources.load("digits", tmp_path_factory.mktemp("data"))


def chains(population, dataset, method, *, training=(), **settings):
    """A trainer of a method's chains, with some settings of training and method."""
    module, spec, usual = METHODS[method]
    return module.begin(
        population, dataset, usual.model_copy(update=dict(training)), spec(**{"burn_in": 0} | settings)
    )


def sampled(population, dataset, method, **settings):
    trainer = chains(population, dataset, method, **settings)
    fit(trainer)
    return METHODS[method][0].posterior(trainer)


# --- posteriors that are known


def likelihood(dataset):
    """Curvature of the mean negative log-likelihood of slopes and intercept, and minus its slope at 0, float64."""
    rows = dataset.normalise(dataset.splits["train"].images).flatten(1).double()
    x = torch.cat([rows[:, :-1], torch.ones(len(rows), 1, dtype=torch.float64)], 1)
    return x.t() @ x / NOISE**2 / len(rows), x.t() @ rows[:, -1] / NOISE**2 / len(rows)


@pytest.mark.parametrize("temperature", [1.0, 0.2])
@pytest.mark.parametrize(("method", "momentum"), [("sgld", 0), ("sghmc", 0.5)])
def test_chains_rest_at_a_conjugate_posterior(method, momentum, temperature, monkeypatch):
    """Of all images at every step; what a finite step does to a Gaussian of curvature c is known: 1 / (1 - lc / (2 + 2m)).

    That follows from the step's recurrence of second order (Box and Jenkins 1976, section 3.2.4).
    """
    dataset, members, precision = measured(images=64), 300, 64 / temperature
    order = torch.arange(64, dtype=torch.int32).expand(members, -1)
    monkeypatch.setattr(ChainTrainer, "shuffled", lambda _self, _epoch: order)  # of all images any will do
    curvature, pull = likelihood(dataset)
    whole = curvature + temperature * precision / 64 * torch.eye(4)
    mean, (strengths, directions) = torch.linalg.solve(whole, pull), torch.linalg.eigh(whole)
    population = start(dataset, RegressionSpec(), seeds=range(members))
    at = {"linear.weight": mean[:3].view(1, 3), "linear.bias": mean[3:]}
    rate = 0.5 / strengths[-1].item()
    drawn = sampled(
        population.with_effective({n: w.float().expand(members, *w.shape) for n, w in at.items()}),
        dataset,
        method,
        training={"epochs": 300, "batch": 64, "learning_rate": rate, "momentum": momentum},
        temperature=temperature,
        precision=precision,
        burn_in=150,
        thin=50,
    ).weights
    weights = torch.cat([drawn["linear.weight"].flatten(2), drawn["linear.bias"]], -1).double()
    # independent, and of unit variance, under the posterior
    away = ((weights - mean) @ directions * (64 * strengths / temperature).sqrt()).flatten(0, 1)
    spread = 1 / (1 - rate * strengths / (2 + 2 * momentum))
    assert (away.mean(0).abs() < 4 * (spread / len(away)).sqrt()).all()
    covariance = away.t() @ away / len(away)
    errors = (covariance - spread.diag()) * (len(away) / spread.outer(spread)).sqrt()
    errors.diagonal().div_(2**0.5)
    assert (errors.abs() < 4).all(), errors


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_a_strong_prior_is_all_there_is(digits, method, temperature):
    """W, of syre's F + W, is normal with 1 / (precision n) for its variance, at any temperature."""
    precision, network = 1e8, MLPSpec(width=16, depth=1, norm="none")
    population = start(digits, network, Syre(std=0.1), seeds=range(8))
    rate = 0.1 / (temperature * precision * 16 / len(digits.splits["train"].images))
    found = sampled(
        population,
        digits,
        method,
        training={"epochs": 40, "batch": 256, "learning_rate": rate},
        temperature=temperature,
        precision=precision,
        burn_in=39,
    )
    raw = population.with_effective(found.draw(0)).parameters
    outputs = {"readout.weight": 10, "readout.bias": 10}
    for name, w in raw.items():
        unit = w.double() * (precision * outputs.get(name, 16)) ** 0.5
        bound = 4 / unit.numel() ** 0.5
        assert abs(unit.mean().item()) < bound, name
        assert unit.square().mean().item() == pytest.approx(1.04, abs=0.04 + bound * 2**0.5), name


def test_the_potential_is_that_of_the_density(digits):
    """Whose minus gradient is images / T times as long; both priors are the same where every layer has as many outputs."""
    population = start(digits, MLPSpec(width=10, depth=1, norm="none"), W)
    training = {"batch": len(digits.splits["train"])}
    trainer = chains(population, digits, "sgld", training=training, temperature=0.25, precision=30.0)
    trainer.begin(trainer.draw(0))
    with torch.no_grad():
        _, gradient = trainer.gradients(trainer.batch, [])()
    (block,) = trainer.blocks
    density = PosteriorDensity(population, digits, prior_std=300**-0.5, temperature=0.25)
    potential = block.layout.views(gradient + block.decay * block.weights)
    found = density.position(replace(population, parameters=potential))
    _, expected = density(density.position(population))
    torch.testing.assert_close(-found * trainer.samples / 0.25, expected, rtol=1e-4, atol=1e-2)


# --- any network, any treatment


@pytest.mark.parametrize("method", METHODS)
def test_digits_are_learned(digits, method):
    rate = {"sgld": 0.2, "sghmc": 0.02}[method]
    training = {"epochs": 8, "learning_rate": rate}
    found = sampled(start(digits), digits, method, training=training, burn_in=3, temperature=0.1)
    predicted = predict(found, Evaluator(found.population.network, digits), "test", len(found))
    right = (predicted.argmax(-1) == digits.splits["test"].labels).double().mean(-1)
    assert len(found) == 5
    assert (right > 0.8).all(), right


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_of_every_network_is_drawn(digits, name):
    """Norms too, and with BatchNorm, though there an image's likelihood is that in its minibatch."""
    network, data = NETWORKS[name]
    dataset = digits if data == "digits" else citations()
    found = sampled(start(dataset, network, W), dataset, "sghmc", training={"batch": 650})
    masks = found.population.asymmetry.trainable
    for name, (one, other) in found.weights.items():
        assert other.isfinite().all()
        assert torch.equal(one != other, masks.get(name, torch.tensor(True)).expand(one.shape)), name  # noqa: FBT003


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("treatment", TREATMENTS, ids=lambda t: t.kind)
def test_what_a_treatment_fixes_is_in_every_draw(digits, treatment, method):
    population = start(digits, treatment=treatment)
    before, found = population.effective(), sampled(population, digits, method)
    masks = population.asymmetry.trainable if population.asymmetry else {}
    assert len(found) == 2
    for name, drawn in found.weights.items():
        free = masks.get(name, torch.ones_like(drawn[0, 0], dtype=torch.bool)).expand(drawn.shape)
        assert torch.equal(drawn != before[name], free), name


def test_nothing_moves_between_parameters(digits):
    trainer = chains(start(digits), digits, "sghmc", training={"epochs": 1})
    fit(trainer)
    (block,) = trainer.blocks
    between = torch.ones(block.weights.shape[1], dtype=torch.bool)
    for columns in block.layout.columns.values():
        between[columns] = False
    assert between.any()
    assert not block.weights[:, between].any()
    assert block.weights[:, ~between].all()


# --- populations


@pytest.mark.parametrize(
    ("network", "mask_seeds"),
    [(MLPSpec(width=16, depth=2), (0,)), (RecurrentSpec(cell="rnn", width=6), (0, 1, 2))],
    ids=["shared masks", "masks of their own"],
)
def test_a_member_is_the_chain_that_it_is_alone(digits, network, mask_seeds):
    def drawn(seeds, masks):
        return sampled(start(digits, network, W, seeds, mask_seeds=masks), digits, "sghmc").draw(1)

    alone = drawn((5,), mask_seeds[1:2] or mask_seeds)
    same({name: w[1:2] for name, w in drawn((3, 5, 8), mask_seeds).items()}, alone)


@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_chain_goes_on_with_the_same_bits(digits, tmp_path, monkeypatch, method):
    def trainer():
        return chains(start(digits, treatment=W), digits, method, training={"epochs": 3})

    whole = trainer()
    fit(whole)
    passed = [0.0]
    monkeypatch.setattr("symcore.training._Watch.INTERVAL", 0)
    middle = Hooks(on_progress=passed.append, stopping=lambda: passed[-1] > 1.5)
    with pytest.raises(StoppedError, match="after 1 epochs"):
        fit(trainer(), checkpoint=tmp_path / "stopped", hooks=middle)
    assert load_file(tmp_path / "stopped")["draws/readout.bias"][0].any()
    resumed = trainer()
    fit(resumed, checkpoint=tmp_path / "stopped")
    same(whole.state(), resumed.state(), exactly=True)


# --- when draws are taken


def test_draws_are_the_states_at_their_epochs(digits):
    trainer = chains(start(digits), digits, "sgld", training={"epochs": 7}, burn_in=2, thin=2)
    passed = {}

    def look(epoch, _metrics):
        passed[epoch] = {name: w.clone() for name, w in trainer.weights.items()}
        if epoch < 4:
            with pytest.raises(ValueError, match=r"epoch: after . there are no draws; accepted: 4 or later"):
                trainer.posterior()
        else:
            assert len(trainer.posterior()) == (epoch - 2) // 2

    fit(trainer, hooks=Hooks(on_epoch=look))
    found = trainer.posterior()
    same(found.population.effective(), passed[7], exactly=True)
    for sample, epoch in enumerate((4, 6)):
        same(found.draw(sample), passed[epoch], exactly=True)


def test_cycles_fall_along_half_a_cosine_and_end_with_a_draw(digits):
    training = {"epochs": 12, "fall_start": 8, "fall_epochs": 4, "fall_to": 0.5}
    trainer = chains(start(digits), digits, "sgld", training=training, cycle=4, burn_in=3)
    rates = [trainer.rate(epoch) for epoch in range(12)]
    expected = [1, 0.5 + 0.125**0.5, 0.5, 0.5 - 0.125**0.5]
    assert rates[:8] == pytest.approx(2 * expected)
    assert rates[8:] == pytest.approx([a * b for a, b in zip(expected, (1, 0.875, 0.75, 0.625), strict=True)])
    assert list(sgld.SGLDSpec(cycle=4, burn_in=3).collected(12)) == [4, 8, 12]
    assert list(sgld.SGLDSpec(cycle=4, burn_in=4, thin=2).collected(30)) == [12, 20, 28]
    assert {sgld.SGLDSpec().rate(epoch) for epoch in range(5)} == {1.0}


@pytest.mark.parametrize(
    ("settings", "training", "said"),
    [
        ({"burn_in": 2}, {}, "burn_in: 2 leaves no draw in 2 epochs .*; accepted: 0 to 1, or epochs from 3"),
        ({"thin": 2, "cycle": 2}, {}, "burn_in: 0 leaves no draw in 2 epochs .*; accepted: epochs from 4"),
        ({}, {"optimizer": "adamw"}, "optimizer: 'adamw' takes no steps of SGLD; accepted: 'sgd'"),
        ({}, {"weight_decay": 0.1}, "weight_decay: 0.1 would be a prior beside that of SGLD; accepted: 0"),
        ({}, {"momentum": 0.5}, "momentum: 0.5, and SGLD has none; accepted: 0, or the method SGHMC"),
    ],
)
def test_trainings_that_are_no_chains_are_refused(digits, settings, training, said):
    with pytest.raises(ValueError, match=said):
        chains(start(digits, treatment=Standard()), digits, "sgld", training=training, **settings)


def test_the_latest_burn_in_is_named_rightly():
    for cycle, thin, epochs in [(1, 1, 5), (3, 1, 10), (4, 2, 17)]:
        latest = (epochs // cycle - thin + 1) * cycle - 1
        assert sgld.SGLDSpec(burn_in=latest, thin=thin, cycle=cycle).collected(epochs)
        with pytest.raises(ValueError, match=f"accepted: 0 to {latest}, or"):
            sgld.SGLDSpec(burn_in=latest + 1, thin=thin, cycle=cycle).collected(epochs)
