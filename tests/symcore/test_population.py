"""A population is its members: built, evaluated, saved and chosen from as if each stood alone."""

import numpy as np
import pytest
import torch

from symcore.data import sources
from symcore.metrics import Evaluator
from symcore.networks.mlp import MLPSpec
from symcore.population import Design, Population, build, call_one, forward, load, save
from symcore.treatments import AsymmetricInit, FixedBiases, SigmaAsymmetric, Standard, Syre, WAsymmetric

TREATMENTS = [Standard(), WAsymmetric(), SigmaAsymmetric(), AsymmetricInit(), Syre(), FixedBiases()]
MASK_SEEDS = [(0,), (0, 0, 5)]


def small(treatment, mask_seeds=(0,), seeds=(3, 1, 2)) -> Population:
    return build(Design(MLPSpec(width=16), treatment, (8, 8), 10, seeds, mask_seeds))


def alone(population: Population, member: int, x: torch.Tensor) -> torch.Tensor:
    one = population.select([member])
    return call_one(one.network, {name: p[0] for name, p in one.effective().items()}, one.buffers, x)


@pytest.mark.parametrize("treatment", TREATMENTS, ids=lambda t: t.kind)
@pytest.mark.parametrize("mask_seeds", MASK_SEEDS, ids=["shared", "per member"])
def test_every_member_computes_what_it_computes_alone(treatment, mask_seeds):
    population = small(treatment, mask_seeds)
    x = torch.randn(7, 8, 8)
    logits = forward(population, x)
    assert logits.shape == (3, 7, 10)
    for member in range(3):
        torch.testing.assert_close(logits[member], alone(population, member, x), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(logits[[member]], forward(population.select([member]), x))


def test_a_member_depends_on_its_own_seeds_only():
    together, other = small(WAsymmetric(), (0, 0, 5)), small(WAsymmetric(), (5, 7), seeds=(2, 9))
    for name, effective in together.effective().items():
        assert torch.equal(effective[2], other.effective()[name][0])


@pytest.mark.parametrize("treatment", TREATMENTS, ids=lambda t: t.kind)
@pytest.mark.parametrize("mask_seeds", MASK_SEEDS, ids=["shared", "per member"])
def test_a_saved_population_comes_back_the_same(treatment, mask_seeds, tmp_path):
    population = small(treatment, mask_seeds)
    save(population, tmp_path / "weights.safetensors")
    back = load(tmp_path / "weights.safetensors")
    assert back.design == population.design
    x = torch.randn(4, 8, 8)
    assert torch.equal(forward(back, x), forward(population, x))


def test_masks_come_from_the_file_not_from_the_seed(tmp_path):
    population = small(WAsymmetric())
    population.asymmetry.fixed["readout.weight"].add_(1)
    save(population, tmp_path / "weights.safetensors")
    assert torch.equal(
        load(tmp_path / "weights.safetensors").effective()["readout.weight"],
        population.effective()["readout.weight"],
    )


def test_fixed_entries_are_zero_in_the_raw_weights_and_f_in_the_effective_ones():
    population = small(WAsymmetric())
    for name, trainable in population.asymmetry.trainable.items():
        assert (population.parameters[name][:, ~trainable] == 0).all()
        fixed = population.asymmetry.fixed[name][~trainable]
        assert (population.effective()[name][:, ~trainable] == fixed).all()


def test_sigma_replaces_every_hidden_activation_and_f_has_the_given_standard_deviation():
    gates = small(SigmaAsymmetric(std=2.0)).buffers
    assert list(gates) == [f"hidden.{layer}.activation.fixed" for layer in range(3)]
    assert torch.stack(list(gates.values())).std().item() == pytest.approx(2, rel=0.1)
    default = torch.stack(list(small(SigmaAsymmetric()).buffers.values()))
    assert default.std().item() == pytest.approx(16**-0.5, rel=0.1)


def test_seeds_and_mask_seeds_must_match_in_number():
    with pytest.raises(ValueError, match="mask_seeds: got 2 for 3 members"):
        small(Standard(), (0, 1))


@pytest.mark.parametrize("treatment", TREATMENTS, ids=lambda t: t.kind)
def test_loss_and_accuracy_are_the_textbooks(treatment, tmp_path, monkeypatch):
    monkeypatch.setattr("symcore.metrics.ROWS", {"cpu": 300})  # several chunks, the last one smaller
    population, dataset = small(treatment), sources.load("digits", tmp_path)
    loss, accuracy = Evaluator(population.network, dataset)(
        population.effective(), population.buffers, "test"
    )
    test = dataset.splits["test"]
    for member in range(3):
        logits = alone(population, member, dataset.normalise(test.images)).double()
        assert loss[member] == pytest.approx(
            torch.nn.functional.cross_entropy(logits, test.labels).item(), rel=1e-5
        )
        assert accuracy[member] == pytest.approx((logits.argmax(1) == test.labels).double().mean().item())


def test_digits_are_split_once_and_normalised_by_their_training_half(tmp_path):
    digits = sources.load("digits", tmp_path)
    assert {name: len(split) for name, split in digits.splits.items()} == sources.SOURCES["digits"].sizes
    train = digits.normalise(digits.splits["train"].images)
    assert abs(train.mean().item()) < 1e-3
    assert train.std().item() == pytest.approx(1, abs=1e-3)
    images = np.concatenate([split.images.flatten(1).numpy() for split in digits.splits.values()])
    assert images.shape == (1797, 64)
