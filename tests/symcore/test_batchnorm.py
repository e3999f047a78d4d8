"""BatchNorm normalises by the batch in training and by statistics estimated for the very weights in evaluation."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from symcore.align import activations, weights
from symcore.calibration import BATCH, Calibration
from symcore.combinations import combine
from symcore.data import sources
from symcore.data.sources import CALIBRATION, Dataset, Split
from symcore.landscape.paths import alphas, linear_path
from symcore.landscape.surfaces import subset
from symcore.metrics import Evaluator
from symcore.networks.batchnorm import BatchNorm, observed
from symcore.networks.mlp import MLPSpec
from symcore.networks.registry import NetworkSpec
from symcore.networks.resnet import ResNetSpec
from symcore.population import Design, Population, build, load, save
from symcore.randomness import stream
from symcore.symmetry import permutations as symmetry
from symcore.symmetry.inspector import changes
from symcore.training import Trainer, TrainingSpec, fit
from symcore.treatments import SigmaAsymmetric, Standard, Treatment, WAsymmetric

MLP = MLPSpec(width=12, depth=2, norm="batch")
RESNET = ResNetSpec(depth=8, width=0.25, norm="batch")
SHAPES: dict[str, tuple[int, ...]] = {"mlp": (6, 6), "resnet": (3, 8, 8)}
NETWORKS = pytest.mark.parametrize("network", [MLP, RESNET], ids=lambda n: n.kind)


def noise(shape: tuple[int, ...], images: int = 2 * BATCH + 7) -> Dataset:
    """Images of ten classes, each around its own mean, so that there is something to learn."""
    rng = np.random.default_rng(0)
    labels = rng.integers(10, size=images)
    pixels = rng.integers(0, 128, (10, *shape))[labels] + rng.integers(0, 128, (images, *shape))
    split = Split(torch.from_numpy(pixels.astype(np.uint8)), torch.from_numpy(labels))
    source = replace(sources.SOURCES["mnist"], input_shape=shape)
    other = Split(split.images.flip(0)[:300], split.labels.flip(0)[:300])
    return Dataset(source, {"train": split, "test": other})


def population(network: NetworkSpec, treatment: Treatment | None = None, members: int = 3) -> Population:
    shape = SHAPES[network.kind]
    return build(Design(network, treatment or Standard(), shape, 10, tuple(range(members))))


@cache
def trained(network: NetworkSpec, treatment: Treatment | None = None) -> tuple[Population, Dataset]:
    data = noise(SHAPES[network.kind])
    start = population(network, treatment)
    return fit(Trainer(start, data, TrainingSpec(epochs=2, learning_rate=1e-2))), data


def as_torch(one: Population, member: int = 0) -> nn.Module:
    """The member with torch's own BatchNorm in training mode, momentum=None, in place of ours."""
    network = one.design.network.build(one.design.input_shape, one.design.classes)
    for name, module in list(network.named_modules()):
        if isinstance(module, BatchNorm):
            channels, maps = len(module.weight), one.design.network.kind == "resnet"
            theirs = (nn.BatchNorm2d if maps else nn.BatchNorm1d)(channels, momentum=None)
            network.set_submodule(name, theirs)
    values = {name: p[member] for name, p in one.effective().items()}
    network.load_state_dict(values, strict=False)
    return network.train()


@NETWORKS
def test_a_call_equals_torchs_in_training_mode(network: NetworkSpec) -> None:
    one, x = population(network), torch.randn(20, *SHAPES[network.kind])
    ours = functional_call(one.network, {n: p[0] for n, p in one.effective().items()}, (x,))
    torch.testing.assert_close(ours, as_torch(one)(x))


@NETWORKS
def test_evaluation_equals_torchs_after_the_same_batches(network: NetworkSpec) -> None:
    """Two whole batches of the training images with cumulative statistics, then evaluation mode."""
    one, data = trained(network)
    loss, accuracy = Evaluator(one.network, data)(one.effective(), one.buffers, "test")
    test = data.splits["test"]
    for member in range(one.size):
        theirs = as_torch(one, member)
        assert 0.05 < accuracy[member] < 1
        with torch.no_grad():
            for images in data.splits["train"].images[: 2 * BATCH].split(BATCH):
                theirs(data.normalise(images))
            logits = theirs.eval()(data.normalise(test.images))
        expected = nn.functional.cross_entropy(logits.double(), test.labels)
        assert loss[member] == pytest.approx(expected.item(), rel=1e-4)
        assert accuracy[member] == pytest.approx((logits.argmax(1) == test.labels).double().mean().item())


def test_one_batch_of_all_images_gives_exact_statistics() -> None:
    one, data = population(MLP), noise((6, 6), images=100)
    calibration = Calibration(one.network, data, 10**6, stacked_buffers=False, on_chunk=lambda: None)
    found = calibration(list(one.effective().values()), [])
    assert calibration.names[:2] == ["hidden.0.norm.mean", "hidden.0.norm.variance"]
    x = data.normalise(data.splits["train"].images).flatten(1)
    weight, bias = one.parameters["hidden.0.linear.weight"], one.parameters["hidden.0.linear.bias"]
    inputs = x @ weight.mT + bias[:, None]
    torch.testing.assert_close(found[0], inputs.mean(1))
    torch.testing.assert_close(found[1], inputs.var(1))


@pytest.mark.parametrize("rows", [1, BATCH + 1, 10**6])
def test_statistics_do_not_depend_on_how_many_networks_fit(rows: int) -> None:
    one, data = population(MLP, SigmaAsymmetric()), noise((6, 6))
    values = list(one.effective().values()), list(one.buffers.values())
    many, few = (
        Calibration(one.network, data, n, stacked_buffers=False, on_chunk=lambda: None)(*values)
        for n in (10**6, rows)
    )
    for first, second in zip(many, few, strict=True):
        torch.testing.assert_close(first, second)


def test_nothing_is_left_in_the_module() -> None:
    one = population(MLP)
    x, own = torch.randn(5, 6, 6), {n: p[0] for n, p in one.effective().items()}
    statistics = observed(one.network, lambda: functional_call(one.network, own, (x,)))
    given = functional_call(one.network, own | statistics, (x,))
    assert not torch.equal(given, functional_call(one.network, own, (x,)))
    assert not dict(one.network.named_buffers())
    assert not any(module._forward_pre_hooks for module in one.network.modules())


def permuted(one: Population, shape: tuple[int, ...]) -> dict[str, Tensor]:
    spec = symmetry.derive(one.network, torch.zeros(2, *shape))
    assert any("norm" in name for name in spec.parameters)
    return symmetry.permute(one.effective(), spec, symmetry.random(spec, stream(0, "test"), one.size))


@NETWORKS
def test_permuted_networks_evaluate_alike(network: NetworkSpec) -> None:
    one, data = trained(network)
    evaluator = Evaluator(one.network, data)
    before = evaluator(one.effective(), one.buffers, "test")
    after = evaluator(permuted(one, SHAPES[network.kind]), one.buffers, "test")
    assert before[0] == pytest.approx(after[0], rel=1e-4)


@NETWORKS
def test_both_matchings_find_a_permutation(network: NetworkSpec) -> None:
    one, data = trained(network)
    shape = SHAPES[network.kind]
    a, b = one.effective(), permuted(one, shape)
    found = weights.match(one.network, a, b, torch.zeros(2, *shape))
    back = symmetry.permute(b, found.spec, found.permutations, found.signs)
    for name, weight in a.items():
        torch.testing.assert_close(back[name], weight, rtol=1e-4, atol=1e-5)
    images = data.normalise(data.splits["train"].images[:256])
    closer = activations.match(one.network, a, b, images, similarity="correlation")
    assert (closer.objective > closer.identity_objective).all()


@pytest.mark.parametrize(
    ("network", "treatment"),
    [(RESNET, None), (MLP, None), (MLP, WAsymmetric()), (MLP, SigmaAsymmetric())],
    ids=["resnet", "mlp", "w", "sigma"],
)
def test_the_ends_of_a_path_are_the_networks(network: NetworkSpec, treatment: Treatment | None) -> None:
    one, data = trained(network, treatment)
    evaluator, effective = Evaluator(one.network, data), one.effective()
    a, b = ({n: p[[m]] for n, p in effective.items()} for m in (0, 1))
    path = linear_path(evaluator, a, b, one.buffers, "test", alphas(5))
    alone = evaluator(effective, one.buffers, "test")[0][:2]
    assert path.loss[0, [0, -1]] == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize(
    ("network", "treatment", "stacked"),
    [(RESNET, None, False), (MLP, SigmaAsymmetric(), False), (MLP, SigmaAsymmetric(), True)],
    ids=["resnet", "mlp", "mlp, stacked buffers"],
)
def test_combinations_are_evaluated_as_networks_of_their_own(
    network: NetworkSpec, treatment: Treatment | None, stacked: bool
) -> None:
    one, data = trained(network, treatment)
    evaluator = Evaluator(one.network, data, stacked_buffers=stacked)
    coefficients = torch.randn(5, 3)
    found = evaluator.combinations(coefficients, one.effective(), one.buffers, "test")
    every = {n: combine(coefficients, p) for n, p in one.effective().items()}
    expected = Evaluator(one.network, data)(every, one.buffers, "test")
    assert found[0] == pytest.approx(expected[0], rel=1e-4)
    assert found[1] == pytest.approx(expected[1])


def test_a_part_of_the_training_images_leaves_the_statistics_as_they_are() -> None:
    data = noise((6, 6))
    part = subset(data, "train", 40, seed=0)
    assert torch.equal(part.calibration, data.calibration)
    assert len(noise((1, 1), images=CALIBRATION + 5).calibration) == CALIBRATION


def test_saved_and_loaded_networks_evaluate_alike(tmp_path) -> None:
    one, data = trained(MLP, WAsymmetric())
    save(one, tmp_path / "w.safetensors")
    again = load(tmp_path / "w.safetensors")
    assert not again.buffers
    first, second = (Evaluator(p.network, data)(p.effective(), p.buffers, "test") for p in (one, again))
    assert np.array_equal(first[0], second[0])


@NETWORKS
def test_training_descends(network: NetworkSpec) -> None:
    start, (end, data) = population(network), trained(network)
    evaluator = Evaluator(start.network, data)
    before, after = (evaluator(p.effective(), p.buffers, "train")[0] for p in (start, end))
    assert (after < 0.7 * before).all()


def test_a_map_before_it_has_no_scale() -> None:
    """The inspector sees the invariance of Linear -> BatchNorm; a row added to all rows is none of it."""
    found = changes(population(MLP, members=1), draws=3, probes=32, seed=0)
    assert set(found) == {"swap", "permutation", "rescale", "scale"}
    assert found["permutation"].max() < 1e-12
    assert found["scale"].max() < 1e-2  # it adds 1e-5 to the variance
