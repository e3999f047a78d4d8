"""Dropout drops what it says as often as it says, leaves expectations as they are, and means the same in training as in a draw."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_graphs import citations
from test_random_layers import Odd
from torch import nn
from torch.func import vmap

from symcore.checkpoints import StoppedError
from symcore.data import sources
from symcore.networks.gnn import GNNSpec
from symcore.networks.mlp import MLPSpec
from symcore.networks.recurrent import RecurrentSpec
from symcore.networks.resnet import ResNetSpec
from symcore.population import Design, build
from symcore.posteriors import dropout, noise
from symcore.posteriors.dropout import Dropout, Inputs
from symcore.posteriors.layers import Instead, groups
from symcore.training import Hooks, Trainer, TrainingSpec, fit
from symcore.treatments import SigmaAsymmetric, Standard, Syre, WAsymmetric

TRAINING = TrainingSpec(epochs=2, batch=128, learning_rate=1e-2, weight_decay=0)
SMALL = MLPSpec(width=8, depth=1)
W = WAsymmetric(n_fix=(3, 3))
P = 0.3


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return sources.load("digits", tmp_path_factory.mktemp("data"))


def start(dataset, network=SMALL, treatment=W, seeds=(0, 1), **given):
    source = dataset.source
    return build(Design(network, treatment, source.input_shape, source.classes, seeds, **given))


def begun(population, dataset, rate=P, image_rate=0.0, training=TRAINING):
    spec = dropout.DropoutSpec(rate=rate, image_rate=image_rate)
    return dropout.begin(population, dataset, training, spec)


def trained(*given, **named):
    trainer = begun(*given, **named)
    fit(trainer)
    return trainer


# --- what is dropped


def found(network, *shape):
    example = torch.zeros(2, *shape)
    return dropout.inputs_of(network, groups(network, example), example)


def test_inputs_of_the_layers_that_read_the_image_are_told_from_others():
    mlp = found(MLPSpec(width=4, depth=2).build((8, 8), 10), 8, 8)
    assert [(i.weight, i.once, i.from_image) for i in mlp] == [
        ("hidden.0.linear.weight", True, True),
        ("hidden.1.linear.weight", True, False),
        ("readout.weight", True, False),
    ]
    gru = found(RecurrentSpec(cell="gru", width=4).build((8, 8), 10), 8, 8)
    assert {i.weight: i.from_image for i in gru} == {
        f"cell.{gate}.{name}.weight": name == "input"
        for gate in ("reset", "update", "candidate")
        for name in ("input", "hidden")
    } | {"readout.weight": False}
    assert [i.weight for i in gru if i.once] == ["readout.weight"]
    resnet = found(ResNetSpec(depth=8, width=0.25).build((3, 8, 8), 10), 3, 8, 8)
    assert [i.weight for i in resnet if i.from_image] == ["conv.weight"]
    assert len(resnet) == 1 + 6 + 2 + 1


def test_inputs_of_what_is_no_layer_are_unknown_and_those_of_split_channels_are_all_found():
    assert found(Odd(), 4) == [
        Inputs("first.weight", once=False, splits=1, from_image=True),
        Inputs("tied.weight", once=False, splits=1, from_image=False),
        Inputs("halves.weight", once=False, splits=2, from_image=False),
    ]


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3)], ids=["linear", "filters"])
def test_a_draw_drops_columns_at_the_rate_and_keeps_the_mean(shape):
    weight, members = torch.randn(*shape), 20_000
    what = Dropout([Inputs("w", once=True, splits=1, from_image=False)], P, 0)
    drawn = vmap(lambda key: what.draw({"w": weight}, noise.Reel(key, 4, noise.uniform))["w"])(
        noise.keys(range(members), "draws")
    )
    dropped = drawn == 0
    columns = dropped.all(1).flatten(2).all(-1) if len(shape) == 3 else dropped.all(1)
    assert torch.equal(dropped, columns.view(members, 1, 4, *[1] * (len(shape) - 2)).expand_as(drawn))
    rates = columns.double().mean(0)
    assert ((rates - P).abs() < 4.5 * (P * (1 - P) / members) ** 0.5).all()
    joint = columns.double().t() @ columns.double() / members - P**2
    assert (joint.fill_diagonal_(0).abs() < 4.5 * P / members**0.5).all()
    torch.testing.assert_close(drawn[~dropped], (weight / (1 - P)).expand_as(drawn)[~dropped])
    # an entry of a draw has variance w^2 p / (1 - p)
    errors = 4.5 * weight.abs() * (P / (1 - P) / members) ** 0.5
    assert ((drawn.double().mean(0) - weight).abs() < errors).all()


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.Linear(6, 5), (6,)), (nn.Linear(6, 5), (2, 6)), (nn.Conv2d(6, 5, 3), (6, 4, 4))],
    ids=["linear", "linear at places", "filters"],
)
def test_outputs_where_each_example_lacks_its_own_inputs_have_the_moments_of_dropout(layer, shape):
    """Mean W x + b, and the variance of a sum of independent channels, whose contributions are w x p / (1 - p) apart."""
    n, x = 20_000, torch.randn(shape)
    reel = noise.Reel(noise.keys([1], "test")[0], 6 * n, noise.uniform)
    rule = {id(layer.weight): lambda passage: dropout._without_for_each(passage, P, reel)}
    with torch.no_grad():
        with Instead(rule):
            outputs = layer(x.expand(n, *shape)).double()
        clean, zero = layer(torch.stack([x, torch.zeros_like(x)])).double()
        axis = x.ndim - 1 if isinstance(layer, nn.Linear) else 0
        channels = torch.eye(6).view(6, *(6 if at == axis else 1 for at in range(x.ndim)))
        shares = layer(x * channels).double() - zero
    variance = P / (1 - P) * shares.square().sum(0)
    assert ((outputs.mean(0) - clean).abs() < 5 * (variance / n).sqrt()).all()
    # at this rate tails are lighter than normal ones, whose sample variance has variance 2 / n
    assert ((outputs.var(0) / variance - 1).abs() < 5 * (2 / n) ** 0.5).all()


NETWORKS = {
    "mlp": MLPSpec(width=8, depth=2),
    "batch norm": MLPSpec(width=8, depth=2, norm="batch"),
    "resnet": ResNetSpec(depth=8, width=0.25),
    "gru": RecurrentSpec(cell="gru", width=6),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_computes_for_one_image_with_the_weights_of_a_draw(digits, name):
    trainer = begun(start(digits, NETWORKS[name], WAsymmetric()), digits, image_rate=0.2)
    weights = {n: w[0] for n, w in trainer.weights.items()}
    held, x = trainer.held(), digits.normalise(digits.splits["test"].images[:1])
    numbers, key = trainer.dropout.numbers(weights), noise.keys([5], "test")[0]
    logits = trainer.noisy(weights, held, x, noise.Reel(key, numbers, noise.uniform))
    drawn = trainer.dropout.draw(weights, noise.Reel(key, numbers, noise.uniform))
    torch.testing.assert_close(logits, trainer.logits(drawn, held, x, {}), rtol=1e-4, atol=1e-5)
    if name != "batch norm":  # which gives an image that is alone in its batch 0
        assert not torch.allclose(logits, trainer.logits(weights, held, x, {}), rtol=1e-2)


def test_channels_that_a_convolution_takes_apart_are_dropped_one_by_one():
    network, key = nn.Conv1d(4, 6, 1, groups=2), noise.keys([5], "test")[0]
    what = Dropout(found(network, 4, 3), P, 0.5)
    (inputs,) = what.inputs
    assert inputs.splits == 2
    drawn = what.draw(dict(network.named_parameters()), noise.Reel(key, 4, noise.uniform))
    z = dropout.kept(noise.uniform(key, (4,)), 0.5)
    assert 0 < z.sum() < 8
    x = torch.randn(2, 4, 3)
    with_z = network(x * z.view(1, 4, 1))
    without = torch.func.functional_call(network, drawn, (x,))
    torch.testing.assert_close(without, with_z)


# --- training


@pytest.mark.parametrize("treatment", [W, Syre(), SigmaAsymmetric(), Standard()], ids=lambda t: t.kind)
def test_draws_drop_inputs_alone_and_training_moves_nothing_that_is_fixed(digits, treatment):
    population = start(digits, treatment=treatment)
    posterior = dropout.posterior(trained(population, digits))
    whole, one, other = posterior.population.effective(), posterior.draw(0), posterior.draw(1)
    if population.asymmetry:
        for name, d in population.asymmetry.trainable.items():
            before = population.effective()[name]
            assert torch.equal(whole[name][:, ~d], before[:, ~d])
    for name, w in whole.items():
        assert torch.equal(other[name], posterior.draw(1)[name])
        if name != "readout.weight":
            assert torch.equal(one[name], w)
            continue
        gone = (one[name] == 0).all(1, keepdim=True)
        assert 0 < gone.sum() < gone.numel()
        assert not torch.equal(gone, (other[name] == 0).all(1, keepdim=True))
        torch.testing.assert_close(one[name], w * ~gone / (1 - P))


def test_a_rate_of_0_is_training_without_dropout_and_a_rate_of_little_is_close(digits):
    population = start(digits)
    plain = fit(Trainer(population, digits, TRAINING)).effective()
    without = trained(population, digits, rate=0)
    little = trained(population, digits, rate=1e-6)
    for name, w in plain.items():
        torch.testing.assert_close(without.weights[name], w, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(little.weights[name], w, rtol=1e-3, atol=1e-4)
        assert torch.equal(dropout.posterior(without).draw(0)[name], without.weights[name])
    much = trained(population, digits, rate=0.5)
    assert not torch.allclose(much.weights["readout.weight"], plain["readout.weight"], rtol=0.1)


def test_every_step_and_every_member_drops_other_inputs(digits):
    """Two members with the same weights, whose data are all images, in two steps that change nothing."""
    members = start(digits, treatment=Standard()).with_effective(
        {name: w[:1].expand_as(w) for name, w in start(digits, treatment=Standard()).effective().items()}
    )
    trainer = begun(members, digits, training=TRAINING.model_copy(update={"batch": 1300}))
    trainer.begin(trainer.draw(0))
    losses = trainer.gradients(trainer.samples, [])
    first, again = losses()[0].clone(), losses()[0].clone()
    trainer.updates.add_(1)
    assert torch.equal(first, again)
    assert len(torch.cat([first, losses()[0]]).unique()) == 4


@pytest.mark.parametrize("mask_seeds", [(0,), (0, 1, 2)], ids=["shared masks", "masks of their own"])
def test_a_member_learns_what_it_learns_alone(digits, mask_seeds):
    together = trained(start(digits, seeds=(3, 5, 8), mask_seeds=mask_seeds), digits)
    alone = trained(start(digits, seeds=(5,), mask_seeds=mask_seeds[1:2] or mask_seeds), digits)
    one, other = (dropout.posterior(trainer).draw(3) for trainer in (together, alone))
    for name, w in alone.weights.items():
        torch.testing.assert_close(together.weights[name][1:2], w, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(one[name][1:2], other[name], rtol=1e-3, atol=1e-5)


def test_a_stopped_training_goes_on_with_the_same_bits(digits, tmp_path):
    whole, ended = trained(start(digits), digits), []
    hooks = Hooks(stopping=lambda: bool(ended), on_epoch=lambda *_: (ended.append(1), time.sleep(0.15)))
    with pytest.raises(StoppedError):
        fit(begun(start(digits), digits), checkpoint=tmp_path / "stopped", hooks=hooks)
    assert 0 < load_file(tmp_path / "stopped")["updates"] < whole.updates
    resumed = begun(start(digits), digits)
    fit(resumed, checkpoint=tmp_path / "stopped")
    assert all(torch.equal(w, resumed.weights[name]) for name, w in whole.weights.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet", "gnn"])
def test_every_network_learns(digits, name):
    dataset = citations() if name == "gnn" else digits
    network = GNNSpec(width=8, depth=2) if name == "gnn" else NETWORKS[name]
    epochs, told = 40 if name == "gnn" else 3, {}
    training = TRAINING.model_copy(update={"epochs": epochs, "batch": 32})
    trainer = begun(start(dataset, network, WAsymmetric()), dataset, 0.1, training=training)
    fit(trainer, hooks=Hooks(on_epoch=told.__setitem__))
    assert (told[epochs]["train/loss"] < 0.9 * told[1]["train/loss"]).all()
    assert all(np.isfinite(values).all() for values in told[epochs].values())
