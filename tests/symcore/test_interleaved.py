"""Interleaved maps compute what each network computes alone, forward and backward."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from symcore.checkpoints import StoppedError
from symcore.data.sources import SOURCES, Dataset, Split
from symcore.gradients import gradient_program, interleaved_gradient_program
from symcore.interleaved.lowering import InterleavedNetwork, UnknownError
from symcore.interleaved.operations import convolve, gate, normalise
from symcore.interleaved.turns import joined, side_by_side
from symcore.metrics import Evaluator
from symcore.networks.mlp import MLPSpec
from symcore.networks.resnet import ResNetSpec
from symcore.optimisers import adamw, blocks, sgd
from symcore.population import Design, Population, build, call_one
from symcore.precision import arithmetic
from symcore.training import Hooks, Trainer, TrainingSpec, fit
from symcore.treatments import SigmaAsymmetric, Standard, WAsymmetric

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
COSINES = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert found.shape == expected.shape
    assert (found.double().cpu() - expected.double().cpu()).norm() <= tolerance * expected.double().norm()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("size", "stride", "channels_in", "channels_out"),
    [
        (3, 1, 16, 16),
        (3, 1, 3, 16),
        (3, 2, 16, 32),
        (1, 2, 16, 32),
        (3, 2, 4, 8),
        (3, 2, 32, 64),
        (3, 1, 1, 6),
    ],
)
def test_a_convolution_and_its_gradients_are_those_of_each_member(
    size, stride, channels_in, channels_out, device
):
    members, images, side = 3, 5, 8
    x = torch.randn(members, images, channels_in, side, side, generator=generator(), dtype=torch.float64)
    w = torch.randn(
        members, channels_out, channels_in, size, size, generator=generator(), dtype=torch.float64
    )
    x, w = (t.to(torch.bfloat16).double().requires_grad_() for t in (x, w))
    expected = torch.stack(
        [torch.conv2d(a, b, stride=stride, padding=size // 2) for a, b in zip(x, w, strict=True)]
    )
    towards = torch.randn(expected.shape, generator=generator(), dtype=torch.float64).to(torch.bfloat16)
    by_x, by_w = torch.autograd.grad(expected, (x, w), towards.double())

    kind = torch.bfloat16 if device == "cuda" else torch.float32
    maps = x.detach().permute(1, 3, 4, 0, 2).to(device, kind).contiguous().requires_grad_()
    filters = w.detach().to(device, torch.float32).requires_grad_()
    found = convolve(maps, filters, stride)
    got = torch.autograd.grad(
        found, (maps, filters), towards.permute(1, 3, 4, 0, 2).to(device, kind).contiguous()
    )
    tolerance = COSINES[kind] / 4
    close(found.permute(3, 0, 4, 1, 2), expected, tolerance)
    close(got[0].permute(3, 0, 4, 1, 2), by_x, tolerance)
    close(got[1], by_w, tolerance)
    assert got[1].dtype == torch.float32


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize(("side", "channels"), [(8, 16), (7, 6), (32, 64)])
def test_a_normalisation_and_its_gradients_are_those_of_each_member(
    side, channels, with_residual, relu, device
):
    """The last case is larger than what a GPU's program holds at once."""
    members, images = 3, 4
    draw = generator()

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64).to(torch.bfloat16).double()

    x, r = (
        normal(members, images, channels, side, side) * 2 + 1,
        normal(members, images, channels, side, side),
    )
    weight, bias = normal(members, channels) + 1, normal(members, channels)
    leaves = [t.requires_grad_() for t in (x, weight, bias, *([r] if with_residual else []))]

    def one(x: Tensor, weight: Tensor, bias: Tensor, r: Tensor) -> Tensor:
        y = torch.nn.functional.group_norm(x, 1, weight, bias) + (r if with_residual else 0)
        return y.relu() if relu else y

    expected = torch.stack([one(*each) for each in zip(x, weight, bias, r, strict=True)])
    towards = normal(*expected.shape)
    gradients = torch.autograd.grad(expected, leaves, towards)

    def maps(t: Tensor) -> Tensor:
        return t.detach().permute(1, 3, 4, 0, 2).to(device, torch.float32).contiguous()

    inputs = [maps(x), weight.detach().to(device).float(), bias.detach().to(device).float()]
    inputs = [t.requires_grad_() for t in (*inputs, *([maps(r)] if with_residual else []))]
    (found,) = normalise(*inputs, relu=relu)
    got = torch.autograd.grad(found, inputs, maps(towards))
    close(found.permute(3, 0, 4, 1, 2), expected)
    close(got[0].permute(3, 0, 4, 1, 2), gradients[0])
    close(got[1], gradients[1])
    close(got[2], gradients[2])
    if with_residual:
        close(got[3].permute(3, 0, 4, 1, 2), gradients[3])


def residual(treatment, members: int = 3, mask_seeds: tuple[int, ...] = (0,), side: int = 8) -> Population:
    network = ResNetSpec(depth=8, width=0.25)
    return build(Design(network, treatment, (3, side, side), 10, tuple(range(members)), mask_seeds))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mask_seeds", [(0,), (0, 1, 2)], ids=["shared", "own masks and gates"])
@pytest.mark.parametrize(
    "treatment", [Standard(), WAsymmetric(), SigmaAsymmetric()], ids=["standard", "w", "sigma"]
)
def test_a_network_and_its_gradients_are_those_of_each_member(treatment, mask_seeds, device):
    population = residual(treatment, mask_seeds=(0,) if isinstance(treatment, Standard) else mask_seeds)
    weights, buffers = population.effective(), population.buffers
    x = torch.randn(3, 4, 3, 8, 8, generator=generator())
    towards = torch.randn(3, 4, 10, generator=generator())

    def one(p, b, x, towards):
        return (call_one(population.network, p, b, x) * towards).sum()

    in_dims = (0, 0 if population.stacked else None, 0, 0)
    expected = vmap(grad(one), in_dims=in_dims)(weights, buffers, x, towards)
    logits = vmap(lambda p, b, x: call_one(population.network, p, b, x), in_dims=in_dims[:3])(
        weights, buffers, x
    )

    network = InterleavedNetwork(population.network, (3, 8, 8), torch.float32)
    layout = blocks.Layout({name: w.shape[1:] for name, w in weights.items()}, channels_last=True)
    block = layout.flatten(weights).to(device)  # as in training, no member's weights follow another's
    leaves = {name: w.requires_grad_() for name, w in layout.views(block).items()}
    tensors = leaves | {name: b.to(device) for name, b in buffers.items()}
    with arithmetic("float32"):
        found = network(tensors, x.to(device))
        got = torch.autograd.grad(found, list(leaves.values()), towards.to(device))
    close(found, logits, 1e-4)
    for name, gradient in zip(leaves, got, strict=True):
        close(gradient, expected[name], 1e-3)


def test_grey_images_need_no_channel_axis():
    population = build(Design(ResNetSpec(depth=8, width=0.25), Standard(), (8, 8), 10, (0, 1)))
    x = torch.randn(2, 4, 8, 8, generator=generator())
    found = InterleavedNetwork(population.network, (8, 8), torch.float32)(population.effective(), x)
    close(found, vmap(lambda p, x: call_one(population.network, p, {}, x))(population.effective(), x), 1e-4)


def test_a_network_without_an_interleaved_form_says_what_it_lacks():
    network = MLPSpec(width=8).build((8, 8), 10)
    with pytest.raises(UnknownError, match="flatten"):
        InterleavedNetwork(network, (8, 8))


@pytest.mark.parametrize("treatment", [Standard(), SigmaAsymmetric()], ids=["standard", "sigma"])
@pytest.mark.parametrize(
    ("width", "kind", "tolerance"),
    [(0.25, torch.float32, 1e-4), (8, torch.float32, 1e-4), (8, torch.bfloat16, 0.25)],
    ids=["together", "one after another", "one after another, rounded"],
)
def test_the_gradient_program_is_the_one_of_the_plain_module(treatment, width, kind, tolerance):
    """Of a network that is too wide to be interleaved too; there members take turns."""
    network = ResNetSpec(depth=8, width=width)
    population = build(Design(network, treatment, (3, 4, 4), 10, (0, 1)))
    weights, buffers = population.effective(), population.buffers
    names, images = list(weights), torch.randn(2, 3, 3, 4, 4, generator=generator())
    labels = torch.randint(10, (2, 3), generator=generator())
    form = InterleavedNetwork(population.network, (3, 4, 4), kind)
    assert form.alone == (width == 8)
    plain = gradient_program(population.network, names, stacked_buffers=False)
    program, held = interleaved_gradient_program(form, names, list(buffers)), list(buffers.values())
    expected = plain([*weights.values(), *held, images, labels])
    given = [*form.leaves(weights.values()), *held, form.maps(images), labels]
    turns = form.turns(given, range(len(names), len(names) + len(held)))
    assert len(turns) == (2 if form.alone else 1)
    found = joined(side_by_side(lambda *tensors: program(tensors), turns))
    for one, other in zip(found, expected, strict=True):
        close(one, other, tolerance)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("uses", [1, 2])
@pytest.mark.parametrize("channels", [16, 6, 96])
def test_a_gate_and_its_gradient_are_figlu(channels, uses, device):
    draw = generator()
    x = torch.randn(2, 3, 3, 2, channels, generator=draw).to(device).requires_grad_()
    mixing = torch.randn(channels, channels, generator=draw).to(device)
    towards = [torch.randn(x.shape, generator=draw).to(device) for _ in range(uses)]
    expected = torch.sigmoid(x @ mixing.T) * x
    (by_x,) = torch.autograd.grad(expected, x, sum(towards))
    found = gate(x, mixing, uses=uses)
    (got,) = torch.autograd.grad(found, x, towards)
    close(found[-1], expected)
    close(got, by_x)


class Odd(nn.Module):
    """Convolutions and sums in ways that interleaved maps do not know, one at a time; twice is known."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=what == "bias")
        self.norm = nn.GroupNorm(1, 4)
        self.shift = nn.Parameter(torch.ones(4, 1, 1))
        self.readout = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        y = {"alpha": lambda: torch.add(y, y, alpha=2), "broadcast": lambda: y + self.shift}.get(
            self.what, lambda: y + y
        )()
        y = y.relu() + y + y if self.what == "three times" else y.relu()
        return self.readout(y.mean((2, 3)))


@pytest.mark.parametrize("what", ["bias", "alpha", "broadcast"])
def test_an_operation_used_in_another_way_is_refused_when_the_form_is_made(what):
    with pytest.raises(UnknownError):
        InterleavedNetwork(Odd(what), (3, 8, 8))


@pytest.mark.parametrize("what", ["twice", "three times"])
def test_a_result_may_be_used_several_times(what):
    network, x = Odd(what), torch.randn(2, 3, 8, 8, generator=generator())
    weights = {name: p.detach().unsqueeze(0) for name, p in network.named_parameters()}
    form = InterleavedNetwork(network, (3, 8, 8), torch.float32)
    close(form(weights, x.unsqueeze(0))[0], network(x).detach(), 1e-4)


@pytest.mark.parametrize("begin", [adamw.begin, partial(sgd.begin, momentum=0.9)], ids=["adamw", "sgd"])
@pytest.mark.parametrize("treatment", [Standard(), WAsymmetric()], ids=["standard", "w"])
def test_the_order_of_filters_in_memory_changes_no_update(treatment, begin):
    """Gradients may come in either order too."""
    start, rate, decay = residual(treatment), torch.tensor([1e-2]), torch.tensor([0.1])
    gradients = {n: torch.randn(w.shape, generator=generator()) for n, w in start.effective().items()}
    ends = []
    for channels_last in (False, True):
        (begun,) = blocks.starts(start.effective(), rate, decay, start.asymmetry, channels_last=channels_last)
        block = begin(begun)
        for step in (1.0, 2.0):
            block.update(block.layout.flatten(gradients), torch.tensor([step]))
        ends.append(block.layout.views(block.weights))
    for name, plain in ends[0].items():
        assert torch.equal(plain, ends[1][name])
    filters = ends[1]["stages.0.0.conv1.weight"]
    assert filters.movedim(2, -1)[0].is_contiguous()


def colours(images: int, seed: int) -> Split:
    """Noise of ten colours, 3 x 32 x 32."""
    draw = torch.Generator().manual_seed(seed)
    shades = torch.randint(150, (10, 3, 1, 1), generator=generator())
    labels = torch.randint(10, (images,), generator=draw)
    pixels = shades[labels] + torch.randint(100, (images, 3, 32, 32), generator=draw)
    return Split(pixels.to(torch.uint8), labels)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="runs on a GPU; there is none here")
@pytest.mark.parametrize("treatment", [Standard(), WAsymmetric(), SigmaAsymmetric()], ids=lambda t: t.kind)
@pytest.mark.parametrize("width", [0.5, 1.25], ids=["together", "one after another"])
def test_networks_trained_on_interleaved_maps_on_cuda_learn_as_plain_ones_on_a_cpu(treatment, width):
    """Every member does, up to the rounding of bfloat16, and what is measured on the way is what a plain module computes."""
    data = Dataset(SOURCES["cifar-10"], {"train": colours(512, 1), "test": colours(256, 2)})
    spec = TrainingSpec(epochs=3, batch=64, learning_rate=3e-3, augment="crop_flip")
    start = build(Design(ResNetSpec(depth=8, width=width), treatment, (3, 32, 32), 10, (1, 2, 3)))
    told: dict[str, dict[int, dict]] = {"cpu": {}, "cuda": {}}
    for device, precision in (("cpu", "float32"), ("cuda", "bfloat16")):
        trainer = Trainer(start.to(device), data.to(device), spec, precision=precision)
        assert (trainer.form is None) == (device == "cpu")
        end = fit(trainer, hooks=Hooks(on_epoch=told[device].__setitem__))
    assert (told["cpu"][3]["train/loss"] < 0.9 * told["cpu"][1]["train/loss"]).all()
    np.testing.assert_allclose(told["cuda"][1]["train/loss"], told["cpu"][1]["train/loss"], rtol=0.05)
    np.testing.assert_allclose(
        told["cuda"][3]["train/loss"], told["cpu"][3]["train/loss"], rtol=0.3, atol=0.05
    )
    plain = Evaluator(end.network, data.to("cuda"), stacked_buffers=end.stacked)
    loss, _ = plain(end.effective(), end.buffers, "test")
    np.testing.assert_allclose(told["cuda"][3]["test/loss"], loss, rtol=0.02, atol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="runs on a GPU; there is none here")
@pytest.mark.parametrize("width", [0.5, 1.25], ids=["together", "one after another"])
def test_training_on_interleaved_maps_on_cuda_stops_and_resumes_with_the_same_bits(width, tmp_path):
    data = Dataset(SOURCES["cifar-10"], {"train": colours(512, 1), "test": colours(64, 2)}).to("cuda")
    spec = TrainingSpec(epochs=2, batch=64, learning_rate=1e-2, augment="crop_flip")
    start = build(Design(ResNetSpec(depth=8, width=width), WAsymmetric(), (3, 32, 32), 10, (1, 2, 3)), "cuda")

    def trainer() -> Trainer:
        return Trainer(start, data, spec, precision="bfloat16")

    whole = fit(trainer())
    with pytest.raises(StoppedError):
        fit(trainer(), checkpoint=tmp_path / "stopped", hooks=Hooks(stopping=lambda: True))
    resumed = fit(trainer(), checkpoint=tmp_path / "stopped")
    for name, weight in whole.effective().items():
        assert weight.is_contiguous()
        assert torch.equal(weight, resumed.effective()[name])
