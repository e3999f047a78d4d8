"""Residual networks have the paper's shapes and counts, and train in a population as one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.func import functional_call

from symcore import asymmetry
from symcore.align.weights import match
from symcore.data.sources import SOURCES, Dataset, Split
from symcore.figlu import FiGLU, replace_activations
from symcore.metrics import Evaluator
from symcore.networks.resnet import ResNetSpec
from symcore.networks.shapes import output_shapes
from symcore.population import Design, Population, build, forward
from symcore.symmetry import permutations as symmetry
from symcore.training import Trainer, TrainingSpec, fit
from symcore.treatments import SigmaAsymmetric, Standard, Treatment, WAsymmetric

SMALL = ResNetSpec(depth=8, width=0.25)


@pytest.mark.parametrize(
    ("depth", "width", "parameters"),
    [(20, 1, 272_474), (20, 8, 17_289_866), (8, 1, 78_042), (8, 0.875, 59_944)],
)
def test_the_papers_parameter_counts(depth: int, width: float, parameters: int) -> None:
    network = ResNetSpec(depth=depth, width=width).build((3, 32, 32), 10)
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("depth", [8, 20, 32, 110])
def test_depth_counts_the_layers_with_weights_beside_the_two_shortcuts(depth: int) -> None:
    network = ResNetSpec(depth=depth, width=0.125).build((3, 32, 32), 10)
    weights = asymmetry.weight_matrices(network)
    shortcuts = [name for name in weights if "shortcut" in name]
    assert shortcuts == ["stages.1.0.shortcut.conv.weight", "stages.2.0.shortcut.conv.weight"]
    assert len(weights) - len(shortcuts) == depth


def test_the_later_stages_halve_the_positions_and_double_the_channels() -> None:
    network = ResNetSpec(width=0.875).build((3, 32, 32), 10)
    shapes = output_shapes(network, [f"stages.{stage}" for stage in range(3)], torch.zeros(2, 3, 32, 32))
    assert [tuple(s) for s in shapes.values()] == [(2, 14, 32, 32), (2, 28, 16, 16), (2, 56, 8, 8)]


def test_grey_images_need_no_axis_for_their_colour() -> None:
    network, x = SMALL.build((8, 8), 10), torch.randn(5, 8, 8)
    assert torch.equal(network(x), network(x.unsqueeze(1)))


@pytest.mark.parametrize("treatment", [Standard(), WAsymmetric()], ids=lambda t: t.kind)
def test_weights_start_with_variance_2_over_fan_in_whatever_the_treatment(
    treatment: Standard | WAsymmetric,
) -> None:
    population = build(Design(ResNetSpec(width=2), treatment, (3, 32, 32), 10, (0,)))
    for name, weight in population.parameters.items():
        if weight.ndim > 2:
            trained = (
                weight if population.asymmetry is None else weight[:, population.asymmetry.trainable[name]]
            )
            expected = (2 / weight[0, 0].numel()) ** 0.5
            assert trained.std().item() == pytest.approx(expected, rel=4 / trained.numel() ** 0.5), name


def test_normalised_convolutions_have_no_scale_unless_some_weights_are_fixed() -> None:
    """GroupNorm undoes any factor of a convolution; F + D * W has a fixed part that the factor does not reach."""
    standard, masked = (
        build(Design(SMALL, treatment, (3, 8, 8), 10, (0,))) for treatment in (Standard(), WAsymmetric())
    )
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)

    def change(population: Population) -> float:
        start = {name: p[0].double() for name, p in population.parameters.items()}
        scaled = start | {name: 100 * w for name, w in start.items() if w.ndim == 4}
        masks = population.asymmetry
        before, after = (
            functional_call(population.network.double(), masks.apply(raw) if masks else raw, (x,))
            for raw in (start, scaled)
        )
        return float((after - before).abs().max() / before.abs().max())

    assert change(standard) < 1e-2  # GroupNorm adds 1e-5 to the variance
    assert change(masked) > 0.1


def test_figlu_mixes_the_channels_of_each_position() -> None:
    fixed, maps = torch.randn(6, 6), torch.randn(3, 6, 4, 5)
    by_position = FiGLU(fixed)(maps.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(FiGLU(fixed[:, :, None, None])(maps), by_position)


def test_sigma_gates_follow_every_normalisation_but_the_last_of_a_block_and_every_sum() -> None:
    network = ResNetSpec(depth=8, width=2).build((3, 32, 32), 10)
    before = network.stages[0][0]
    replaced = replace_activations(network, torch.zeros(1, 3, 32, 32), None, seed=0)
    blocks = [f"stages.{stage}.0.activation{place}" for stage in range(3) for place in (1, 2)]
    assert replaced == ["activation", *blocks]
    for name, channels in zip(replaced, [32, 32, 32, 64, 64, 128, 128], strict=True):
        gate = network.get_submodule(name).get_buffer("fixed")
        assert gate.shape == (channels, channels, 1, 1)
        assert gate.std().item() == pytest.approx(channels**-0.5, rel=0.1)
    gates = [before.activation1.get_buffer("fixed"), before.activation2.get_buffer("fixed")]
    x = torch.randn(2, 32, 8, 8)

    def figlu(y: Tensor, fixed: Tensor) -> Tensor:
        return torch.sigmoid(nn.functional.conv2d(y, fixed)) * y

    inner = figlu(before.norm1(before.conv1(x)), gates[0])
    torch.testing.assert_close(before(x), figlu(before.norm2(before.conv2(inner)) + x, gates[1]))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("depth", 21, "21 is not 6 n + 2; accepted: 8, 14, 20"),
        ("depth", 2, "greater than or equal to 8"),
        ("width", 0.3, "0.3 gives 4.8 channels; accepted: multiples of 1/16"),
        ("width", 0, "greater than 0"),
        ("norm", "layer", "'group', 'batch' or 'none'"),
    ],
)
def test_a_network_that_cannot_be_is_refused(field: str, value: object, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ResNetSpec.model_validate({field: value})
    (error,) = caught.value.errors()
    assert error["loc"] == (field,)
    assert words in error["msg"]


def test_only_images_can_be_convolved() -> None:
    with pytest.raises(ValueError, match=r"input_shape: \[64\] is no image; accepted: \[h, w\]"):
        SMALL.build((64,), 10)


def test_weight_matching_undoes_a_permutation_and_brings_strangers_closer() -> None:
    """Networks 1 and 2 are a permuted copy of network 0, and a stranger; matching proves itself on both."""
    network = SMALL.build((3, 8, 8), 10)
    population = build(Design(SMALL, Standard(), (3, 8, 8), 10, (0, 1)))
    spec = symmetry.derive(network, torch.zeros(1, 3, 8, 8))
    original = {name: p[0] for name, p in population.parameters.items()}
    copy = symmetry.permute(original, spec, symmetry.random(spec, np.random.default_rng(0)))
    a = {name: torch.stack([w, w]) for name, w in original.items()}
    b = {name: torch.stack([copy[name], population.parameters[name][1]]) for name in original}
    matching = match(network, a, b, torch.zeros(1, 3, 8, 8), restarts=5)
    squared_norm = sum(float(w.double().square().sum()) for w in original.values())
    assert matching.objective[0].item() == pytest.approx(squared_norm)
    assert matching.objective[1] > matching.identity_objective[1] + 1


def coloured(images: int) -> Dataset:
    """Noise in three colours, with labels that can be told from the colours' means."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (images,), generator=draw)
    pixels = torch.rand(images, 3, 8, 8, generator=draw) * 100 + labels[:, None, None, None] * 15
    split = Split(pixels.to(torch.uint8), labels)
    source = replace(SOURCES["mnist"], input_shape=(3, 8, 8))
    return Dataset(source, {"train": split, "test": split})


def test_evaluation_holds_no_more_feature_maps_at_once_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """The widest maps, 4 channels of 8 x 8, of 2 networks and 20 images fill what is allowed: 8 chunks of 150 images."""
    monkeypatch.setattr("symcore.metrics.NUMBERS", {"cpu": 2 * 20 * 4 * 8 * 8})
    population, data = build(Design(SMALL, Standard(), (3, 8, 8), 10, (0, 1))), coloured(150)
    chunks: list[int] = []
    evaluator = Evaluator(population.network, data, on_chunk=lambda: chunks.append(1))
    loss, accuracy = evaluator(population.effective(), population.buffers, "test")
    assert len(chunks) == 8
    test = data.splits["test"]
    logits = forward(population, data.normalise(test.images))
    for member in range(2):
        expected = nn.functional.cross_entropy(logits[member].double(), test.labels)
        assert loss[member] == pytest.approx(expected.item(), rel=1e-5)
        assert accuracy[member] == pytest.approx(
            (logits[member].argmax(1) == test.labels).double().mean().item()
        )


def trained_alone(start: Population, data: Dataset, member: int, spec: TrainingSpec) -> dict[str, Tensor]:
    """One member through torch's own module, loss and AdamW; F + D * W as a parametrisation."""
    one = start.select([member])
    network = SMALL.build((3, 8, 8), 10)
    if isinstance(one.design.treatment, SigmaAsymmetric):
        replace_activations(network, torch.zeros(1, 3, 8, 8), None, one.design.mask_seeds[0])
    network.load_state_dict({name: p[0] for name, p in one.parameters.items()}, strict=False)
    if isinstance(one.design.treatment, WAsymmetric):
        asymmetry.bind(network, asymmetry.draw(network, one.design.treatment, one.design.mask_seeds[0]))
    optimiser = torch.optim.AdamW(network.parameters(), lr=spec.learning_rate, weight_decay=spec.weight_decay)
    train, trainer = data.splits["train"], Trainer(one, data, spec)
    for epoch in range(spec.epochs):
        for index in trainer.shuffled(epoch)[0].split(spec.batch):
            optimiser.zero_grad()
            logits = network(data.normalise(train.images[index]))
            nn.functional.cross_entropy(logits, train.labels[index]).backward()
            optimiser.step()
    named = {
        name.replace("parametrizations.", "").replace(".original", ""): p
        for name, p in network.named_parameters()
    }
    return {name: p.detach() for name, p in named.items()}


@pytest.mark.parametrize(
    ("treatment", "mask_seeds"),
    [
        (Standard(), (0,)),
        (WAsymmetric(), (0, 5)),
        (WAsymmetric(form="filter"), (0,)),
        (SigmaAsymmetric(), (0, 5)),
    ],
    ids=["standard", "entries, masks per member", "filters, shared masks", "sigma, gates per member"],
)
def test_a_population_equals_its_networks_trained_one_by_one(
    treatment: Treatment, mask_seeds: tuple[int, ...]
) -> None:
    """To 3e-2 of what 6 steps changed: rounding alone, 1e-6, and where it turns a ReLU on or off, some 1e-3."""
    data, spec = coloured(128), TrainingSpec(epochs=3, batch=64, learning_rate=1e-2, weight_decay=1)
    start = build(Design(SMALL, treatment, (3, 8, 8), 10, (4, 8), mask_seeds))
    together = fit(Trainer(start, data, spec))
    for member in range(2):
        masks = together.asymmetry.select([member]).trainable if together.asymmetry else {}
        for name, raw in trained_alone(start, data, member, spec).items():
            expected = raw * masks[name].view_as(raw) if name in masks else raw
            got = together.parameters[name][member]  # AdamW moves what D hides; here it stays 0
            moved = (got - start.parameters[name][member]).norm()
            assert (got - expected).norm() <= 3e-2 * moved, name
            assert moved > 0, name
