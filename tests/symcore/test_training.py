"""A population trains as its members would one by one, and a resumed run as an undisturbed one."""

import numpy as np
import pytest
import torch

from symcore import asymmetry
from symcore.data import sources
from symcore.networks.mlp import MLPSpec
from symcore.population import Design, build
from symcore.training import Hooks, StoppedError, Trainer, TrainingSpec, fit
from symcore.treatments import SigmaAsymmetric, Standard, WAsymmetric

TREATMENTS = [Standard(), WAsymmetric(), SigmaAsymmetric()]
SPEC = TrainingSpec(epochs=2, batch=100)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return sources.load("digits", tmp_path_factory.mktemp("data"))


def population(treatment, seeds=(4, 8, 15), mask_seeds=(0,)):
    return build(Design(MLPSpec(width=16), treatment, (8, 8), 10, seeds, mask_seeds))


def trained_alone(start, digits, member, lr, decay):
    """One member through torch's own module, loss and AdamW, raw weights and F + D * W in every forward."""
    one = start.select([member])
    network = one.network
    for name, buffer in one.buffers.items():
        network.get_submodule(name.rpartition(".")[0]).register_buffer(
            "fixed", buffer[0] if buffer.ndim == 3 else buffer
        )
    raw = {name: p[0].clone().requires_grad_() for name, p in one.parameters.items()}
    optimiser = torch.optim.AdamW(raw.values(), lr=lr, weight_decay=decay)
    trainer = Trainer(one, digits, SPEC)
    train = digits.splits["train"]
    for epoch in range(SPEC.epochs):
        for index in trainer.shuffled(epoch)[0].split(SPEC.batch):
            weights = raw
            if one.asymmetry:
                masks = asymmetry.Asymmetry(
                    *(
                        {n: v[0] if v.ndim == 3 else v for n, v in values.items()}
                        for values in (one.asymmetry.trainable, one.asymmetry.fixed)
                    )
                )
                weights = masks.apply(raw)
            logits = torch.func.functional_call(network, weights, (digits.normalise(train.images[index]),))
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(logits, train.labels[index]).backward()
            optimiser.step()
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


@pytest.mark.parametrize("treatment", TREATMENTS, ids=lambda t: t.kind)
def test_resumed_equals_undisturbed_bit_for_bit(treatment, digits, tmp_path, monkeypatch):
    """Stopped in mid-epoch over and over, weights and every reported number are those of one undisturbed run."""
    monkeypatch.setattr("symcore.training._Watch.INTERVAL", 0.0)
    told: dict[int, dict] = {}
    undisturbed = fit(Trainer(population(treatment), digits, SPEC), hooks=Hooks(on_epoch=told.__setitem__))
    told_again: dict[int, dict] = {}
    stops = 0
    while True:
        hooks = Hooks(on_epoch=told_again.__setitem__, stopping=stop_after(6))
        try:
            resumed = fit(
                Trainer(population(treatment), digits, SPEC),
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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="compares a GPU with the CPU; there is no GPU here")
@pytest.mark.parametrize("treatment", TREATMENTS, ids=lambda t: t.kind)
def test_captured_steps_on_a_gpu_equal_the_cpu(treatment, digits):
    """To 1e-3 of each weight tensor's norm after 26 steps in single precision."""
    on_cpu = fit(Trainer(population(treatment), digits, SPEC))
    on_gpu = fit(Trainer(population(treatment).to("cuda"), digits.to("cuda"), SPEC))
    for name, weights in on_cpu.effective().items():
        assert (on_gpu.effective()[name].cpu() - weights).norm() <= 1e-3 * weights.norm()
