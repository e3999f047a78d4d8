"""Variational inference finds what can be known in closed form, moves nothing that is fixed, and knows no neighbours."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_graphs import citations
from torch import nn

from symcore.checkpoints import StoppedError
from symcore.data import sources
from symcore.data.sources import Dataset, Split
from symcore.metrics import Evaluator
from symcore.networks.gnn import GNNSpec
from symcore.networks.mlp import MLPSpec
from symcore.networks.recurrent import RecurrentSpec
from symcore.networks.resnet import ResNetSpec
from symcore.population import Design, build
from symcore.posteriors import elrg, mean_field
from symcore.posteriors.predict import predict
from symcore.training import Hooks, TrainingSpec, fit
from symcore.treatments import (
    FixedBiases,
    Standard,
    Syre,
    WAsymmetric,
    WFiGLU,
)

SPEC = TrainingSpec(epochs=2, batch=64, learning_rate=3e-3, weight_decay=0)
ELRG = elrg.ELRGSpec(rank=2, temperature=0.1)
SMALL = MLPSpec(width=16, depth=1)
W = WAsymmetric()


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return sources.load("digits", tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def few(digits):
    """So few images, none of them for tests, that what takes time is what is tested."""
    train = digits.splits["train"]
    return replace(digits, splits={"train": Split(train.images[:320], train.labels[:320])})


def start(dataset, network=SMALL, treatment=Standard(), seeds=(0, 1), **given):  # noqa: B008 - it is immutable
    source = dataset.source
    return build(Design(network, treatment, source.input_shape, source.classes, seeds, **given))


# --- a posterior that is known


NOISE = 0.5
"""Standard deviation of the measured values."""


class Regression(nn.Module):
    """Says of [features, value] how likely the value is at its linear prediction: class 0 has exp(-difference^2 / 2)."""

    def __init__(self, features):
        super().__init__()
        self.linear = nn.Linear(features, 1)

    def forward(self, x):
        x = x.flatten(1)
        difference = (self.linear(x[:, :-1])[:, 0] - x[:, -1]) / NOISE
        energy = difference.square() / 2 + 1e-6
        return torch.stack([-energy, (-torch.expm1(-energy)).log()], dim=-1)


@dataclass(frozen=True)
class RegressionSpec:
    def build(self, input_shape, _classes):
        return Regression(input_shape[1] - 1)


def measured(features=3, images=1024):
    """Values that depend on correlated features, as the pixels of images with one row."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((images, features)) @ rng.standard_normal((features, features))
    values = x @ rng.standard_normal(features) + NOISE * rng.standard_normal(images) + 1
    pixels = np.clip(128 + 20 * np.column_stack([x, values]), 0, 255).astype(np.uint8)
    source = replace(
        sources.DIGITS,
        input_shape=(1, features + 1),
        classes=2,
        full_scale=255.0,
        mean=(0.5,),
        std=(20 / 255,),
    )
    split = Split(torch.from_numpy(pixels[:, None]), torch.zeros(images, dtype=torch.int64))
    return Dataset(source, {"train": split})


def bayes(dataset, precision):
    """Mean and precision of the posterior of slopes and intercept."""
    rows = dataset.normalise(dataset.splits["train"].images).flatten(1).double()
    x = torch.cat([rows[:, :-1], torch.ones(len(rows), 1, dtype=torch.float64)], 1)
    sharpness = x.t() @ x / NOISE**2 + precision * torch.eye(x.shape[1], dtype=torch.float64)
    return torch.linalg.solve(sharpness, x.t() @ rows[:, -1] / NOISE**2), sharpness


FALLING = TrainingSpec(
    epochs=1500, batch=1024, learning_rate=0.02, weight_decay=0, fall_epochs=1300, fall_start=200
)


@pytest.mark.parametrize("factor", [1.0, 0.8], ids=["at it", "too narrow"])
def test_elrg_rests_at_a_conjugate_posterior_and_nowhere_near_it(factor):
    """With as many directions as weights it is any Gaussian; 2,000 members see the same data through their own noise."""
    dataset, members = measured(), 2000
    mean, sharpness = bayes(dataset, 0.5)
    covariance, diagonal = torch.linalg.inv(sharpness), 1e-6
    spec = elrg.ELRGSpec(rank=4, log_variance=np.log(diagonal), precision=0.5)
    v = torch.linalg.cholesky(4 * (covariance - diagonal * torch.eye(4))).t() * factor
    trainer = elrg.begin(
        start(dataset, RegressionSpec(), seeds=range(members)),
        dataset,
        SPEC.model_copy(update={"batch": len(dataset.splits["train"])}),
        spec,
    )
    for prefix, value in (("mean/", mean), ("factor/", v)):
        trainer.weights[prefix + "linear.weight"][:] = value[..., None, :3]
        trainer.weights[prefix + "linear.bias"][:] = value[..., 3:]
    trainer.begin(trainer.draw(0))
    with torch.no_grad():
        _, gradient = trainer.gradients(trainer.batch, [])()
    named = trainer.blocks[0].layout.views(gradient.double())
    errors = {n: (g.mean(0) / (g.std(0) / members**0.5)).abs().max() for n, g in named.items()}
    assert max(errors["mean/linear.weight"], errors["mean/linear.bias"]) < 4
    at_factors = max(errors["factor/linear.weight"], errors["factor/linear.bias"])
    assert at_factors < 4 if factor == 1 else at_factors > 8, at_factors


@pytest.mark.slow
def test_mean_field_recovers_the_mean_and_the_conditional_variances_of_a_conjugate_posterior():
    """The closest Gaussian with independent weights has 1 over the diagonal of the precision (Bishop 2006, 10.1.2)."""
    dataset = measured()
    mean, sharpness = bayes(dataset, 0.5)
    spec = mean_field.MeanFieldSpec(log_variance=-6, precision=0.5)
    trainer = mean_field.begin(start(dataset, RegressionSpec(), seeds=(1,)), dataset, FALLING, spec)
    fit(trainer)
    named = {name: tensor[0].flatten().double() for name, tensor in trainer.weights.items()}
    means, logs = (
        torch.cat([named[part + n] for n in ("linear.weight", "linear.bias")])
        for part in ("mean/", "log_variance/")
    )
    scale = sharpness.diag().rsqrt()
    torch.testing.assert_close((means - mean) / scale, torch.zeros_like(mean), rtol=0, atol=0.15)
    torch.testing.assert_close((logs / 2).exp() / scale, torch.ones_like(mean), rtol=0, atol=0.1)


# --- any network, any treatment


NETWORKS = {
    "mlp": (SMALL, "digits"),
    "resnet": (ResNetSpec(depth=8, width=0.25), "digits"),
    "batch norm": (MLPSpec(width=16, depth=1, norm="batch"), "digits"),
    "gru": (RecurrentSpec(cell="gru", width=12), "digits"),
    "gnn": (GNNSpec(width=8, depth=1), "graph"),
}
TREATMENTS = [Standard(), W, WFiGLU(), Syre(), FixedBiases()]
METHODS = {"elrg": (elrg, ELRG), "mean_field": (mean_field, mean_field.MeanFieldSpec(temperature=0.1))}


CASES = [(name, "elrg") for name in NETWORKS] + [("mlp", "mean_field"), ("gnn", "mean_field")]


@pytest.mark.parametrize(("name", "method"), CASES)
def test_every_network_learns(few, name, method):
    (network, data), (method, spec) = NETWORKS[name], METHODS[method]
    dataset = few if data == "digits" else citations()
    told = {}
    epochs = 8 if data == "digits" else 25
    trainer = method.begin(
        start(dataset, network, W),
        dataset,
        SPEC.model_copy(update={"epochs": epochs, "learning_rate": 1e-2}),
        spec,
    )
    fit(trainer, hooks=Hooks(on_epoch=told.__setitem__))
    assert (told[epochs]["train/loss"] < 0.8 * told[1]["train/loss"]).all()
    assert all(np.isfinite(values).all() for values in told[epochs].values())


@pytest.mark.parametrize(
    ("treatment", "method", "spec"),
    [*((treatment, *METHODS["elrg"]) for treatment in TREATMENTS), (W, *METHODS["mean_field"])],
)
def test_what_a_treatment_fixes_stays_in_every_draw(few, treatment, method, spec):
    population = start(few, treatment=treatment)
    before = population.effective()
    trainer = method.begin(population, few, SPEC.model_copy(update={"epochs": 1}), spec)
    fit(trainer)
    found = method.posterior(trainer)
    one, other = found.draw(0), found.draw(1)
    masks = population.asymmetry.trainable if population.asymmetry else {}
    for name, w in before.items():
        random = torch.ones_like(w, dtype=torch.bool) & masks.get(name, torch.ones((), dtype=torch.bool))
        assert torch.equal(one[name][~random], w[~random])
        moved = one[name] != other[name]
        assert torch.equal(moved, random if "norm" not in name else torch.zeros_like(random))
    assert all(torch.equal(found.draw(1)[name], w) for name, w in other.items())
    assert (found.divergence() > 0).all()


# --- populations


def same(a, b, exactly=False):
    for name, w in a.items():
        assert torch.equal(w, b[name]) if exactly else torch.allclose(w, b[name], rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize(
    ("network", "mask_seeds"),
    [(SMALL, (0,)), (RecurrentSpec(cell="rnn", width=6), (0, 1, 2))],
    ids=["shared masks", "masks of their own"],
)
def test_a_member_learns_what_it_learns_alone(few, network, mask_seeds):
    spec = SPEC.model_copy(update={"epochs": 1})

    def trained(seeds, masks):
        trainer = elrg.begin(start(few, network, W, seeds, mask_seeds=masks), few, spec, ELRG)
        fit(trainer)
        return elrg.posterior(trainer)

    together = trained((3, 5, 8), mask_seeds)
    alone = trained((5,), mask_seeds[1:2] or mask_seeds)
    same({name: w[1:2] for name, w in together.trained.items()}, alone.trained)
    same({name: w[1:2] for name, w in together.draw(3).items()}, alone.draw(3))


def test_a_stopped_training_goes_on_with_the_same_bits(few, tmp_path):
    def trainer():
        return elrg.begin(start(few, treatment=W), few, SPEC, ELRG)

    whole = trainer()
    fit(whole)
    ended = []
    hooks = Hooks(stopping=lambda: bool(ended), on_epoch=lambda *_: (ended.append(1), time.sleep(0.15)))
    with pytest.raises(StoppedError):
        fit(trainer(), checkpoint=tmp_path / "stopped", hooks=hooks)
    assert any(name.startswith("weights/factor/") for name in load_file(tmp_path / "stopped"))
    resumed = trainer()
    fit(resumed, checkpoint=tmp_path / "stopped")
    same(whole.weights, resumed.weights, exactly=True)


def test_predictions_average_probabilities_over_draws(digits):
    trainer = elrg.begin(start(digits), digits, SPEC, ELRG)
    fit(trainer)
    found, evaluator = elrg.posterior(trainer), Evaluator(trainer.population.network, digits)
    each = [predict(found, evaluator, "test", 1)]
    for sample in (1, 2):
        logits = [z for z, _ in evaluator.logits(found.draw(sample), found.population.buffers, "test")]
        each.append(torch.log_softmax(torch.cat(logits, 1), -1).double())
    mean = torch.stack(each).exp().mean(0)
    torch.testing.assert_close(predict(found, evaluator, "test", 3).exp(), mean, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="runs on a GPU; there is none here")
@pytest.mark.parametrize(("method", "spec"), METHODS.values(), ids=METHODS)
def test_captured_steps_on_a_gpu_equal_the_cpu(digits, method, spec):
    """The same noise too: a compiler that rounds its whole numbers draws others."""
    population = start(digits, treatment=W)
    trainers = [
        method.begin(population.to(device), digits.to(device), SPEC.model_copy(update={"epochs": 1}), spec)
        for device in ("cpu", "cuda")
    ]
    for trainer in trainers:
        fit(trainer)
    for name, expected in trainers[0].weights.items():
        found = trainers[1].weights[name].cpu()
        assert (found - expected).norm() <= 1e-2 * expected.norm() + 1e-6, name


def test_noise_has_no_interleaved_form_whatever_the_precision(few, monkeypatch):
    """A GPU trains plain residual networks in bfloat16 on interleaved maps."""
    monkeypatch.setattr("symcore.training.interleaved_form", lambda *_: "a form")
    population = start(few, ResNetSpec(depth=8, width=0.25))
    assert elrg.begin(population, few, SPEC, ELRG, "bfloat16").form is None


# --- the paper's counts


COUNTS = {
    "MLP-8": (MLPSpec(width=256, depth=8, activation="relu"), (28, 28), 10, 3_324_466, 3_242_146),
    "MLP-16": (MLPSpec(width=256, depth=16, activation="relu"), (28, 28), 10, 5_960_242, 5_796_002),
    "MLP-8, CIFAR": (MLPSpec(width=256, depth=8, activation="relu"), (3, 32, 32), 10, 6_253_106, 6_170_786),
    "ResNet20": (ResNetSpec(), (3, 32, 32), 10, 1_356_098, 1_143_858),
    "ResNet110": (ResNetSpec(depth=110), (3, 32, 32), 10, 8_620_418, 7_371_378),
}


@pytest.mark.parametrize(("network", "shape", "classes", "standard", "w"), COUNTS.values(), ids=COUNTS)
def test_trained_numbers_are_as_many_as_published(network, shape, classes, standard, w):
    """Of a mean and 4 directions each; tables of Lim et al. 2024 (the two of MLP-8 stand in each other's place there)."""
    source = replace(sources.DIGITS, input_shape=shape, classes=classes)
    images = Split(torch.zeros(2, *shape, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    spec = elrg.ELRGSpec(rank=4)
    treatment = WAsymmetric(n_fix=(8,) * (network.depth + 1)) if network.kind == "mlp" else W
    for chosen, expected in ((Standard(), standard), (treatment, w)):
        population = start(Dataset(source, {"train": images}), network, chosen, seeds=(0,))
        weights, masks = elrg.begin(population, Dataset(source, {"train": images}), SPEC, spec).start()
        fixed = sum(int((~d).sum()) for d in masks.trainable.values()) if masks else 0
        assert sum(tensor[0].numel() for tensor in weights.values()) - fixed == expected
