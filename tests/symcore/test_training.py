"""A population trains as its members would one by one, and a resumed run as an undisturbed one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from symcore import asymmetry
from symcore.checkpoints import StoppedError
from symcore.data import augment, sources
from symcore.gradients import Product, gradient_program
from symcore.networks.mlp import MLPSpec
from symcore.optimisers import adamw, blocks
from symcore.population import Design, build
from symcore.training import Hooks, Trainer, TrainingSpec, fit
from symcore.treatments import (
    AsymmetricInit,
    FixedBiases,
    SigmaAsymmetric,
    Standard,
    Syre,
    WAsymmetric,
    WFiGLU,
)

TREATMENTS = [
    Standard(),
    WAsymmetric(),
    SigmaAsymmetric(),
    AsymmetricInit(),
    Syre(std=0.1),
    FixedBiases(),
    WFiGLU(),
]
SPEC = TrainingSpec(epochs=2, batch=100)
WARMING = TrainingSpec(
    epochs=4, batch=100, warmup_epochs=2, warmup_start=0.1, augment="crop_flip", weight_decay=0.3
)
MOMENTUM = TrainingSpec(
    epochs=4,
    batch=100,
    optimizer="sgd",
    momentum=0.8,
    weight_decay=0.03,
    warmup_epochs=1,
    warmup_start=0.1,
    fall_start=1,
    fall_epochs=2,
    fall_to=0.25,
)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return sources.load("digits", tmp_path_factory.mktemp("data"))


def population(treatment, seeds=(4, 8, 15), mask_seeds=(0,), width=16):
    return build(Design(MLPSpec(width=width), treatment, (8, 8), 10, seeds, mask_seeds))


def trained_alone(start, digits, member, lr, decay, spec=SPEC):
    """One member through torch's own module, loss, optimiser and schedule, raw weights and F + D * W in every forward."""
    one = start.select([member])
    network = one.network
    for name, buffer in one.buffers.items():
        network.get_submodule(name.rpartition(".")[0]).register_buffer(
            "fixed", buffer[0] if buffer.ndim == 3 else buffer
        )
    raw = {name: p[0].clone().requires_grad_() for name, p in one.parameters.items()}
    optimiser = (
        torch.optim.SGD(raw.values(), lr=lr, weight_decay=decay, momentum=spec.momentum)
        if spec.optimizer == "sgd"
        else torch.optim.AdamW(raw.values(), lr=lr, weight_decay=decay)
    )
    warm_up, first = spec.warmup_epochs, spec.warmup_start if spec.warmup_epochs else 1
    growth = first ** (-1 / max(1, warm_up))
    falls = (spec.fall_start, spec.fall_start + spec.fall_epochs)

    def rate(epoch):
        fallen = np.interp(epoch, falls, (1, spec.fall_to)) if spec.fall_epochs else 1
        return first * growth ** min(epoch, warm_up) * fallen

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    trainer = Trainer(one, digits, spec)
    train = digits.splits["train"]
    for epoch in range(spec.epochs):
        order, choices = trainer.draw(epoch)
        images = digits.normalise(train.images[order[0]])
        if choices is not None:
            images = augment.crop_flip(images, choices[0])
        for x, index in zip(images.split(spec.batch), order[0].split(spec.batch), strict=True):
            weights = raw
            if one.asymmetry:
                masks = asymmetry.Asymmetry(
                    *(
                        {n: v.view_as(raw[n]) for n, v in values.items()}
                        for values in (one.asymmetry.trainable, one.asymmetry.fixed)
                    )
                )
                weights = masks.apply(raw)
            logits = torch.func.functional_call(network, weights, (x,))
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(logits, train.labels[index]).backward()
            optimiser.step()
        schedule.step()
    return {name: w.detach() for name, w in raw.items()}


@pytest.mark.parametrize("treatment", TREATMENTS, ids=lambda t: t.kind)
@pytest.mark.parametrize("mask_seeds", [(0,), (0, 0, 5)], ids=["shared masks", "masks per member"])
def test_a_population_equals_its_networks_trained_one_by_one(treatment, mask_seeds, digits):
    """To 1e-4 of each weight tensor's norm after 26 steps; rounding is all that differs."""
    start = population(treatment, mask_seeds=mask_seeds)
    lr, decay = [1e-3, 3e-3, 2e-3], [0.03, 0.0, 0.1]
    together = fit(Trainer(start, digits, SPEC, learning_rates=lr, weight_decays=decay))
    for member in range(3):
        alone = trained_alone(start, digits, member, lr[member], decay[member])
        masks = together.asymmetry.select([member]).trainable if together.asymmetry else {}
        for name, raw in alone.items():
            expected = raw * masks[name].view_as(raw) if name in masks else raw
            got = together.parameters[name][member]  # AdamW moves what D hides; here it stays 0
            assert (got - expected).norm() <= 1e-4 * expected.norm()


@pytest.mark.parametrize("spec", [WARMING, WARMING.model_copy(update={"augment": "none"})])
def test_warm_up_and_augmentation_are_those_of_a_network_alone(spec, digits):
    """To 1e-4 of each weight tensor's norm; what D fixes does not decay when the rate changes."""
    start = population(WAsymmetric(), mask_seeds=(0, 1, 2))
    together = fit(Trainer(start, digits, spec, learning_rates=[1e-3, 3e-3, 2e-3]))
    for member, lr in enumerate([1e-3, 3e-3, 2e-3]):
        masks = together.asymmetry.select([member]).trainable
        for name, raw in trained_alone(start, digits, member, lr, 0.3, spec).items():
            expected = raw * masks[name].view_as(raw) if name in masks else raw
            got = together.parameters[name][member]
            assert (got - expected).norm() <= 1e-4 * expected.norm()
    for name, d in start.asymmetry.trainable.items():
        assert torch.equal(together.effective()[name][~d], start.effective()[name][~d])


@pytest.mark.parametrize("treatment", TREATMENTS, ids=lambda t: t.kind)
@pytest.mark.parametrize("mask_seeds", [(0,), (0, 0, 5)], ids=["shared masks", "masks per member"])
@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_sgd_is_torchs_for_each_network(treatment, mask_seeds, momentum, digits):
    """To 1e-4 of each weight tensor's norm after 52 steps of warm-up and fall; decay acts on W alone, and nothing that D fixes moves."""
    spec = MOMENTUM.model_copy(update={"momentum": momentum})
    start = population(treatment, mask_seeds=mask_seeds)
    lr, decay = [1e-2, 3e-2, 2e-2], [0.03, 0.0, 0.3]
    together = fit(Trainer(start, digits, spec, learning_rates=lr, weight_decays=decay))
    for member in range(3):
        masks = together.asymmetry.select([member]).trainable if together.asymmetry else {}
        for name, raw in trained_alone(start, digits, member, lr[member], decay[member], spec).items():
            expected = raw * masks[name].view_as(raw) if name in masks else raw
            got = together.parameters[name][member]
            assert (got - expected).norm() <= 1e-4 * expected.norm()
    for name, d in (start.asymmetry.trainable if start.asymmetry else {}).items():
        still = ~d.expand_as(start.parameters[name])
        assert torch.equal(together.effective()[name][still], start.effective()[name][still])


def test_a_fall_of_the_learning_rate():
    """Full to epoch 20, then evenly down to half at epoch 30 (He, Huang and Yuan 2019, shortened)."""
    spec = TrainingSpec(epochs=60, fall_start=20, fall_epochs=10, fall_to=0.5)
    expected = np.interp(range(60), [20, 30], [1.0, 0.5])
    assert [spec.rate(epoch) for epoch in range(60)] == pytest.approx(expected)


def test_a_fall_follows_a_warm_up():
    spec = TrainingSpec(epochs=6, warmup_epochs=2, warmup_shape="linear", fall_start=3, fall_epochs=2)
    assert [spec.rate(epoch) for epoch in range(6)] == [0.5, 1.0, 1.0, 1.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("field", "settings", "said"),
    [
        (
            "momentum",
            {"momentum": 0.5},
            "0.5 is SGD's, and the optimizer is adamw; accepted: 0.9, or optimizer sgd",
        ),
        ("fall_start", {"fall_start": 3}, "3, and fall_epochs is 0, .*; accepted: 0"),
        ("fall_to", {"fall_to": 0.5}, "0.5, and fall_epochs is 0, .*; accepted: 0"),
        ("fall_start", {"fall_epochs": 4, "fall_start": 7}, "from 7 over 4 epochs, .*; accepted: 0 to 6"),
        ("fall_start", {"fall_epochs": 4, "warmup_epochs": 2}, "from 0 over 4 .*; accepted: 2 to 6"),
        ("fall_start", {"fall_epochs": 9, "warmup_epochs": 2}, "accepted: fall_epochs up to 8"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(field, settings, said):
    with pytest.raises(ValidationError, match=said) as refused:
        TrainingSpec(epochs=10, **settings)
    assert [error["loc"] for error in refused.value.errors()] == [(field,)]


def test_settings_from_before_sgd_have_the_json_that_they_had():
    """Hashes of specs hold it."""
    before = {"epochs", "batch", "learning_rate", "weight_decay", "warmup_epochs", "warmup_start", "augment"}
    assert TrainingSpec().model_dump(mode="json").keys() == before
    now = MOMENTUM.model_dump(mode="json")
    assert now.keys() - before == {"optimizer", "momentum", "fall_start", "fall_epochs", "fall_to"}
    assert TrainingSpec.model_validate(now) == MOMENTUM


def test_the_papers_warm_up():
    """1e-4 times 1.259 after each of epochs 1 to 20, then constant (Lim et al. 2024, appendix E.1 and the authors' code)."""
    spec = TrainingSpec(epochs=100, learning_rate=1e-2, warmup_epochs=20, warmup_start=0.01)
    rates = [spec.learning_rate * spec.rate(epoch) for epoch in range(spec.epochs)]
    assert rates[:21] == pytest.approx([1e-4 * 1.259**epoch for epoch in range(21)], rel=2e-3)
    assert rates[20:] == [1e-2] * 80


def test_a_linear_warm_up():
    """(step + 1) / 25 of the full rate, then all of it (the authors' code for graphs, where an epoch is a step)."""
    spec = TrainingSpec(warmup_epochs=25, warmup_shape="linear")
    assert [spec.rate(epoch) for epoch in range(30)] == [min(1.0, (n + 1) / 25) for n in range(30)]


def test_draws_depend_on_a_members_seed_and_the_epoch_only(digits):
    many, few = (Trainer(population(Standard(), seeds), digits, WARMING) for seeds in [(4, 8, 15), (15, 99)])
    for epoch in range(2):
        for drawn, again in zip(many.draw(epoch), few.draw(epoch), strict=True):
            assert torch.equal(drawn[2], again[0])
            assert not torch.equal(drawn[1], again[0])
    for drawn, later in zip(many.draw(0), many.draw(1), strict=True):
        assert not torch.equal(drawn, later)


def test_an_augmented_minibatch_compiles_whole(digits):
    """No shape depends on data and nothing is read back, so that a GPU can capture it."""
    trainer = Trainer(population(Standard()), digits, WARMING)
    trainer.begin(trainer.draw(0))
    compiled = torch.compile(trainer.minibatch, fullgraph=True, dynamic=False, backend="eager")
    for got, expected in zip(compiled(10), trainer.minibatch(10), strict=True):
        assert torch.equal(got, expected)


def test_a_member_does_not_depend_on_its_neighbours(digits):
    many, few = (
        fit(Trainer(population(WAsymmetric(), seeds), digits, SPEC)) for seeds in [(4, 8, 15), (15, 99)]
    )
    for name, weights in many.parameters.items():
        torch.testing.assert_close(weights[2], few.parameters[name][0], rtol=1e-4, atol=1e-6)


def test_fixed_weights_never_move(digits):
    start = population(WAsymmetric())
    end = fit(Trainer(start, digits, SPEC))
    for name, d in start.asymmetry.trainable.items():
        assert torch.equal(end.effective()[name][:, ~d], start.effective()[name][:, ~d])
        assert not torch.equal(end.effective()[name][:, d], start.effective()[name][:, d])


def test_training_leaves_the_population_it_started_from_alone(digits):
    start = population(Standard())
    before = {name: p.clone() for name, p in start.parameters.items()}
    fit(Trainer(start, digits, SPEC))
    assert all(torch.equal(p, before[name]) for name, p in start.parameters.items())


def stop_after(looks: int):
    counter = iter(range(10**6))
    return lambda: next(counter) >= looks


@pytest.mark.parametrize(
    ("treatment", "spec"),
    [*((treatment, SPEC) for treatment in TREATMENTS), (WAsymmetric(), WARMING), (WAsymmetric(), MOMENTUM)],
    ids=[*(treatment.kind for treatment in TREATMENTS), "warm-up and augmentation", "momentum"],
)
def test_resumed_equals_undisturbed_bit_for_bit(treatment, spec, digits, tmp_path, monkeypatch):
    """Stopped in mid-epoch over and over, weights and every reported number are those of one undisturbed run."""
    monkeypatch.setattr("symcore.training._Watch.INTERVAL", 0.0)
    told: dict[int, dict] = {}
    undisturbed = fit(Trainer(population(treatment), digits, spec), hooks=Hooks(on_epoch=told.__setitem__))
    told_again: dict[int, dict] = {}
    stops = 0
    while True:
        hooks = Hooks(on_epoch=told_again.__setitem__, stopping=stop_after(6))
        try:
            resumed = fit(
                Trainer(population(treatment), digits, spec),
                checkpoint=tmp_path / "c.safetensors",
                hooks=hooks,
            )
            break
        except StoppedError:
            stops += 1
    assert stops >= 3
    for name, weights in undisturbed.parameters.items():
        assert torch.equal(weights, resumed.parameters[name])
    for epoch, metrics in told.items():
        assert all(np.array_equal(values, told_again[epoch][name]) for name, values in metrics.items())


def test_the_note_of_a_checkpoint_comes_back(digits, tmp_path, monkeypatch):
    monkeypatch.setattr("symcore.training._Watch.INTERVAL", 0.0)
    notes: list[str] = []
    path = tmp_path / "c.safetensors"
    with pytest.raises(StoppedError):
        fit(
            Trainer(population(Standard()), digits, SPEC),
            checkpoint=path,
            hooks=Hooks(on_checkpoint=lambda: "batch 7", stopping=lambda: True),
        )
    fit(Trainer(population(Standard()), digits, SPEC), checkpoint=path, hooks=Hooks(on_resume=notes.append))
    assert notes == ["batch 7"]


def test_settings_per_member_must_match_in_number(digits):
    with pytest.raises(ValueError, match="learning_rates: got 2 for 3 members"):
        Trainer(population(Standard()), digits, SPEC, learning_rates=[1e-3, 1e-2])


def test_training_learns_the_digits(digits):
    told: dict[int, dict] = {}
    fit(
        Trainer(population(Standard()), digits, TrainingSpec(epochs=15)),
        hooks=Hooks(on_epoch=told.__setitem__),
    )
    assert set(told[15]) == {"train/loss", "test/loss", "test/accuracy"}
    assert (told[15]["test/accuracy"] > 0.9).all()
    assert (told[15]["train/loss"] < told[1]["train/loss"] / 3).all()


def test_gradients_left_as_products_multiply_out_to_the_gradients(digits):
    """Every matrix of an MLP has such a gradient, [member, out, in] = outputs' gradients^T inputs; no vector has."""
    trainer = Trainer(population(WAsymmetric()), digits, SPEC)
    names, start = list(trainer.weights), trainer.population
    tensors = [*trainer.weights.values(), *start.buffers.values(), *trainer.minibatch(32)]
    whole, parts = (
        gradient_program(start.network, names, stacked_buffers=False, as_products=which)(tensors)[1:]
        for which in ([], names)
    )
    for name, gradient, part in zip(names, whole, parts, strict=True):
        assert isinstance(part, tuple) == (gradient.ndim == 3), name
        if isinstance(part, tuple):
            left, right = part
            torch.testing.assert_close(left.transpose(1, 2) @ right, gradient)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="runs on a GPU; there is none here")
FUSED = TrainingSpec(epochs=2, batch=64)
FUSED_WARMING = WARMING.model_copy(update={"batch": 64})


@needs_gpu
@pytest.mark.parametrize(
    ("treatment", "spec"),
    [
        *((treatment, FUSED) for treatment in TREATMENTS),
        (WAsymmetric(), FUSED_WARMING),
        (WAsymmetric(), MOMENTUM.model_copy(update={"batch": 64})),
    ],
    ids=[*(treatment.kind for treatment in TREATMENTS), "warm-up and augmentation", "momentum"],
)
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("tf32", 1e-2)])
def test_captured_steps_on_a_gpu_equal_the_cpu(treatment, spec, precision, tolerance, digits):
    """To a part of each weight tensor's norm after two epochs; in TF32 the matrices of this width and batch are updated in the product."""
    start = population(treatment, width=128)
    on_cpu = fit(Trainer(start, digits, spec))
    on_gpu = fit(Trainer(start.to("cuda"), digits.to("cuda"), spec, precision=precision))
    for name, weights in on_cpu.effective().items():
        assert (on_gpu.effective()[name].cpu() - weights).norm() <= tolerance * weights.norm(), name


@needs_gpu
def test_training_on_a_gpu_repeats_bit_for_bit(digits):
    once, again = (
        fit(Trainer(population(Standard(), width=128).to("cuda"), digits.to("cuda"), FUSED, precision="tf32"))
        for _ in range(2)
    )
    for name, weights in once.parameters.items():
        assert torch.equal(weights, again.parameters[name]), name


@needs_gpu
@pytest.mark.parametrize(
    "masks", [None, 1, 3], ids=["no masks", "shared masks and rate", "masks and rates per member"]
)
@pytest.mark.parametrize("batch", [64, 21])
def test_an_update_in_the_product_is_adamw(masks, batch):
    """Against float64 with the gradient multiplied out; what D fixes keeps its bits."""
    from symcore import fused_adamw

    generator = torch.Generator().manual_seed(0)
    members, rows, columns = 3, 70, 100
    left = torch.randn(members, batch, rows, generator=generator)
    right = torch.randn(members, batch, columns, generator=generator)
    weights = {"w": torch.randn(members, rows, columns, generator=generator)}
    rates, decays = (
        (torch.tensor([1e-2]), torch.tensor([0.1]))
        if masks == 1
        else (torch.tensor([1e-2, 2e-2, 3e-2]), torch.tensor([0.1, 0.0, 0.2]))
    )
    d = None if masks is None else torch.rand(masks, rows, columns, generator=generator) < 0.8
    asym = None if d is None else asymmetry.Asymmetry({"w": d}, {"w": torch.zeros(masks, rows, columns)})
    (start,) = map(adamw.begin, blocks.starts(weights, rates, decays, asym))
    start.first.normal_(generator=generator)
    start.second.add_(60 + start.first.square())
    exact, there = (
        replace(
            start,
            **{n: change(getattr(start, n)) for n in ("weights", "first", "second", "rate", "decay", "keep")},
        )
        for change in (lambda t: t.double(), lambda t: t.cuda())
    )
    gradient = (left.double().transpose(1, 2) @ right.double()).flatten(1)
    exact.update(gradient, torch.tensor([3.0], dtype=torch.float64))
    fused_adamw.update(there, Product(left.cuda(), right.cuda()), torch.tensor([3.0], device="cuda"))
    moving = exact.second.isfinite()
    for name in ("weights", "first", "second"):
        expected, got = getattr(exact, name)[moving], getattr(there, name).cpu().double()[moving]
        assert (got - expected).norm() <= 1e-3 * expected.norm(), name
    assert moving.all() == (d is None)
    assert torch.equal(there.weights.cpu()[~moving], start.weights[~moving])
