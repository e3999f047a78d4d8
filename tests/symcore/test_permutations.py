"""A network's permutations, derived from its graph, leave its function as it is; and no axis is tied for nothing."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize

from symcore.figlu import replace_activations
from symcore.networks.mlp import MLPSpec
from symcore.networks.resnet import ResNetSpec
from symcore.symmetry import permutations as symmetry
from symcore.symmetry.axes import DerivationError
from symcore.symmetry.permutations import Group, PermutationSpec

SEVERAL = settings(max_examples=20)


def weights(network: nn.Module) -> dict[str, Tensor]:
    """A network's parameters in float64, all of them drawn at random (norms start as all ones, which hides errors)."""
    draw = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
        for name, parameter in network.named_parameters()
    }


def outputs(network: nn.Module, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
    with torch.no_grad():
        return functional_call(network.double().eval(), parameters, (x,))


def change(network: nn.Module, spec: PermutationSpec, x: Tensor, seed: int = 0) -> float:
    """Largest relative change of the outputs under random permutations of every group."""
    original = weights(network)
    permuted = symmetry.permute(original, spec, symmetry.random(spec, np.random.default_rng(seed)))
    before, after = outputs(network, original, x), outputs(network, permuted, x)
    return float((after - before).abs().max() / before.abs().max())


def probe(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def derive(network: nn.Module, x: Tensor) -> PermutationSpec:
    return symmetry.derive(network, x.float())


class Residual(nn.Module):
    """A stem, two residual blocks with inner neurons of their own, a readout."""

    def __init__(self, width: int = 6, inner: int = 5) -> None:
        super().__init__()
        self.stem = nn.Linear(4, width)
        self.up = nn.ModuleList(nn.Linear(width, inner) for _ in range(2))
        self.down = nn.ModuleList(nn.Linear(inner, width) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        self.readout = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(torch.tanh(up(self.norm(x))))
        return self.readout(x)


class Handwritten(nn.Module):
    """A person's own module: bare parameters, a gate, a matrix product with a transpose, an output by summation."""

    def __init__(self) -> None:
        super().__init__()
        self.inward = nn.Parameter(torch.randn(4, 6))
        self.gate = nn.Linear(4, 6, bias=False)
        self.scale = nn.Parameter(torch.randn(6))
        self.outward = nn.Parameter(torch.randn(3, 6))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu_(x @ self.inward) * torch.sigmoid(self.gate(x)) + self.scale.expand(len(x), 6)
        shares = torch.softmax(hidden, -1).unsqueeze(1).transpose(1, 2).squeeze(-1)
        return torch.addmm(torch.zeros(3, dtype=x.dtype), shares, self.outward.t()) + hidden.mean(
            1, keepdim=True
        )


class Repeated(nn.Module):
    """One layer passed three times, from a start of zeros, whose order means nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 6)
        self.layer = nn.Linear(6, 6)
        self.readout = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.new_zeros(len(x), 6) + self.stem(x)
        for _ in range(3):
            x = torch.tanh(self.layer(x))
        return self.readout(x)


class Tied(nn.Module):
    """An autoencoder whose decoder is the encoder's transpose, and two layers that are one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 6)
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.unused = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.encoder(x))
        hidden = torch.tanh(self.second(torch.tanh(self.first(hidden))))
        return hidden @ self.encoder.weight


class Attention(nn.Module):
    """One head over a sequence, [batch, token, 4] -> [batch, token, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(4, 6), nn.Linear(4, 6)
        self.value, self.readout = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.softmax(self.query(x) @ self.key(x).permute(0, 2, 1) / 6**0.5, -1)
        return self.readout(torch.bmm(scores, self.value(x)) / scores.sum(-1, keepdim=True))


class Pooled(nn.Module):
    """Convolutions with all that stands between them, [batch, 2, 9, 9] -> [batch, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Conv2d(2, 6, 3, padding="same"),
            nn.Conv2d(6, 5, 2, 2, dilation=2, bias=False),
        )
        self.norm, self.each = nn.GroupNorm(1, 6), nn.GroupNorm(5, 5)
        self.along = nn.Conv1d(5, 4, 3, padding=1)
        self.readout = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.norm(self.first(x))), 2, stride=1)
        x = nn.functional.avg_pool2d(self.each(self.second(x)), 2, stride=1, padding=1)
        x = torch.tanh(self.along(x.mean(-1)))
        return self.readout(nn.functional.adaptive_avg_pool1d(x, 1).flatten(1))


def test_a_perceptron_has_one_group_per_hidden_layer() -> None:
    spec = derive(MLPSpec(width=8, depth=3).build((2, 2), 5), probe(7, 2, 2))
    incoming = ("linear.weight", "linear.bias", "norm.weight", "norm.bias")
    outgoing = ("hidden.1.linear.weight", "hidden.2.linear.weight", "readout.weight")
    assert spec.groups == tuple(
        Group(f"hidden.{k}", 8, (*((f"hidden.{k}.{name}", 0) for name in incoming), (outgoing[k], 1)))
        for k in range(3)
    )


@SEVERAL
@given(
    width=st.integers(1, 9),
    depth=st.integers(1, 4),
    norm=st.sampled_from(["layer", "none"]),
    activation=st.sampled_from(["gelu", "relu"]),
    batch=st.integers(1, 9),
    seed=st.integers(0, 2**32),
)
def test_permuting_a_perceptron_leaves_its_function(
    width: int, depth: int, norm: str, activation: str, batch: int, seed: int
) -> None:
    """Whatever sizes coincide: a batch or an input as large as the width must not be taken for neurons."""
    network = MLPSpec(width=width, depth=depth, norm=norm, activation=activation).build((2, 3), 3)
    x = probe(batch, 2, 3)
    spec = derive(network, x)
    assert [group.size for group in spec.groups] == [width] * depth * (width > 1)
    assert symmetry.log10_order(spec) == pytest.approx(depth * math.log10(math.factorial(width)), abs=1e-12)
    assert change(network, spec, x, seed) < 1e-12


def test_the_order_is_that_counted_by_brute_force() -> None:
    """A 6-4-4-3 perceptron has 4!^2 = 576 automorphisms."""
    spec = derive(MLPSpec(width=4, depth=2, norm="none").build((6,), 3), probe(2, 6))
    assert 10 ** symmetry.log10_order(spec) == pytest.approx(576)


def test_residual_connections_tie_all_layers_of_a_stream() -> None:
    network, x = Residual(), probe(5, 4)
    spec = derive(network, x)
    assert {group.name: group.size for group in spec.groups} == {"stem": 6, "up.0": 5, "up.1": 5}
    stream = {"stem.weight": 0, "up.0.weight": 1, "up.1.weight": 1, "down.0.weight": 0, "down.1.weight": 0}
    assert dict(spec["stem"].axes).items() >= (stream | {"norm.weight": 0, "readout.weight": 1}).items()
    assert change(network, spec, x) < 1e-12


def test_a_module_of_ones_own_needs_nothing_from_us() -> None:
    network, x = Handwritten(), probe(5, 4)
    spec = derive(network, x)
    assert [group.axes for group in spec.groups] == [
        (("inward", 1), ("scale", 0), ("outward", 1), ("gate.weight", 0)),
    ]
    assert change(network, spec, x) < 1e-12


def test_an_attention_head_has_two_groups() -> None:
    """Queries and keys meet in an inner product; values go to the readout."""
    network, x = Attention(), probe(2, 7, 4)
    spec = derive(network, x)
    assert {group.name: dict(group.axes) for group in spec.groups} == {
        "query": {"query.weight": 0, "query.bias": 0, "key.weight": 0, "key.bias": 0},
        "value": {"value.weight": 0, "value.bias": 0, "readout.weight": 1},
    }
    assert change(network, spec, x) < 1e-12


def test_channels_are_permuted_whatever_stands_between_convolutions() -> None:
    network, x = Pooled(), probe(2, 2, 9, 9)
    spec = derive(network, x)
    assert {group.name: dict(group.axes) for group in spec.groups} == {
        "first": {"first.weight": 0, "first.bias": 0, "norm.weight": 0, "norm.bias": 0, "second.weight": 1},
        "second": {"second.weight": 0, "each.weight": 0, "each.bias": 0, "along.weight": 1},
        "along": {"along.weight": 0, "along.bias": 0, "readout.weight": 1},
    }
    assert change(network, spec, x) < 1e-12


def test_resnet20_has_three_streams_and_nine_inner_groups() -> None:
    """Lim et al. 2024 and Git Re-Basin: all that is added to a stage's features is permuted with them."""
    spec = derive(ResNetSpec(depth=20).build((3, 32, 32), 10), probe(1, 3, 8, 8))
    blocks = [f"stages.{stage}.{block}" for stage in range(3) for block in range(3)]
    inner = {f"{block}.conv1": f"{block}.conv2.weight" for block in blocks}
    streams = {
        "conv": ["conv", *(f"stages.0.{block}.conv2" for block in range(3))],
        **{
            f"stages.{stage}.0.conv2": [
                *(f"stages.{stage}.{block}.conv2" for block in range(3)),
                f"stages.{stage}.0.shortcut.conv",
            ]
            for stage in (1, 2)
        },
    }
    assert {group.name for group in spec.groups} == inner.keys() | streams.keys()
    for name, reads in inner.items():
        assert [axis for axis in spec[name].axes if axis[1] == 1] == [(reads, 1)]
    for name, writes in streams.items():
        rows = {module for module, axis in spec[name].axes if axis == 0 and "norm" not in module}
        assert rows == {f"{module}.weight" for module in writes}
    assert sorted(group.size for group in spec.groups) == [16] * 4 + [32] * 4 + [64] * 4


@settings(max_examples=5)
@given(
    depth=st.sampled_from([8, 14]),
    width=st.sampled_from([0.125, 0.25, 0.375]),
    norm=st.sampled_from(["group", "none"]),
    shape=st.sampled_from([(2, 8, 8), (3, 9, 7), (8, 8)]),
    seed=st.integers(0, 2**32),
)
def test_permuting_a_residual_network_leaves_its_function(
    depth: int, width: float, norm: str, shape: tuple[int, ...], seed: int
) -> None:
    network = ResNetSpec(depth=depth, width=width, norm=norm).build(shape, 3)
    x = probe(2, *shape)
    spec = derive(network, x)
    assert len(spec.groups) == 3 + (depth - 2) // 2
    assert change(network, spec, x, seed) < 1e-8


@pytest.mark.parametrize("network", [Repeated(), Tied()], ids=["repeated layer", "tied weights"])
def test_a_weight_used_twice_is_permuted_once(network: nn.Module) -> None:
    x = probe(5, 4)
    (group,) = derive(network, x).groups
    assert {axis for name, axis in group.axes if name in ("layer.weight", "first.weight")} == {0, 1}
    assert not any(name.startswith(("second.weight", "unused")) for name, _ in group.axes)
    assert change(network, PermutationSpec((group,)), x) < 1e-12


@pytest.mark.parametrize("network", [MLPSpec(width=8).build((4,), 3), Residual(), Handwritten(), Repeated()])
def test_no_axis_is_tied_for_nothing(network: nn.Module) -> None:
    """Leaving any one axis where it was changes the function."""
    x = probe(5, 4)
    for group in derive(network, x).groups:
        for axis in group.axes:
            torn = replace(group, axes=tuple(other for other in group.axes if other != axis))
            assert change(network, PermutationSpec((torn,)), x) > 1e-3


@pytest.mark.parametrize(
    ("network", "shape"),
    [(Pooled(), (2, 9, 9)), (ResNetSpec(depth=8, width=0.25).build((3, 8, 8), 3), (3, 8, 8))],
    ids=["pooled", "residual"],
)
def test_no_axis_of_a_convolution_is_tied_for_nothing(network: nn.Module, shape: tuple[int, ...]) -> None:
    x = probe(5, *shape)
    for group in derive(network, x).groups:
        for axis in group.axes:
            torn = replace(group, axes=tuple(other for other in group.axes if other != axis))
            assert change(network, PermutationSpec((torn,)), x) > 1e-3


class MeanOfPositions(nn.Module):
    """[batch, channel, ...] -> [batch, channel]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(tuple(range(2, x.ndim))) if x.ndim > 2 else x


class Then(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


CHANNELS: dict[str, nn.Module] = {
    "depthwise": nn.Conv2d(6, 6, 3, groups=6),
    "prelu": nn.PReLU(6),
    "prelu of one slope": nn.PReLU(),
    "hardswish": nn.Hardswish(),
    "logsigmoid": nn.LogSigmoid(),
    "rms norm": nn.Sequential(
        nn.Flatten(2), Then(lambda x: x.transpose(1, 2)), nn.RMSNorm(6), Then(lambda x: x.transpose(1, 2))
    ),
    "normalised": Then(lambda x: nn.functional.normalize(x, dim=1)),
    "nearest": nn.Upsample(scale_factor=2),
    "nearest exact": nn.Upsample(scale_factor=2, mode="nearest-exact"),
    "bilinear": nn.Upsample(size=(4, 5), mode="bilinear"),
    "bicubic": nn.Upsample(size=(4, 5), mode="bicubic"),
    "linear": nn.Sequential(nn.AvgPool2d((7, 1)), nn.Flatten(2), nn.Upsample(scale_factor=2, mode="linear")),
    "zeros around": nn.ZeroPad2d(2),
    "reflected": nn.ReflectionPad2d(2),
    "replicated": nn.ReplicationPad2d((0, 1, 2, 0)),
    "circular": nn.CircularPad2d(1),
    "positions joined": Then(lambda x: torch.cat([x, 2 * x, torch.zeros_like(x)], 3)),
    "stacked": Then(lambda x: torch.stack([x, 2 * x], 2)[:, :, 1]),
    "row": Then(lambda x: x[:, :, 2]),
    "every other": Then(lambda x: x[:, :, ::2, 1:]),
    "narrow": Then(lambda x: x.narrow(2, 1, 3)),
}


@pytest.mark.parametrize("name", CHANNELS)
def test_channels_keep_their_order_through(name: str) -> None:
    """Both maps and what is between are permuted together, and no axis is tied for nothing."""
    between = copy.deepcopy(CHANNELS[name])
    network = nn.Sequential(nn.Conv2d(2, 6, 3), between, nn.Tanh(), MeanOfPositions(), nn.LazyLinear(3))
    x = probe(4, 2, 9, 9)
    network(x.float())
    spec = derive(network, x)
    assert [group.size for group in spec.groups] == [6]
    assert spec.parameters.keys() == {
        parameter for parameter, p in network.named_parameters() if p.numel() > 1 and parameter != "4.bias"
    }
    assert change(network, spec, x) < 1e-12
    for group in spec.groups:
        for axis in group.axes:
            torn = replace(group, axes=tuple(other for other in group.axes if other != axis))
            assert change(network, PermutationSpec((torn,)), x) > 1e-4


class Tokens(nn.Module):
    """[batch, token, 4] -> [batch, 3]: a token for the class, positions, attention in one operation."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 6)
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.place = nn.Parameter(torch.randn(8, 6))
        self.query, self.value = nn.Linear(6, 5), nn.Linear(6, 7)
        self.key = nn.Linear(6, 5, bias=False)  # softmax takes no notice of one
        self.readout = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = torch.cat([self.token.expand(len(x), 1, 6), x], 1) + self.place
        x = nn.functional.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x))
        return self.readout(x[:, 0])


def test_attention_of_one_head_has_three_groups() -> None:
    network, x = Tokens(), probe(2, 7, 4)
    spec = derive(network, x)
    assert sorted(group.size for group in spec.groups) == [5, 6, 7]
    assert change(network, spec, x) < 1e-12
    for group in spec.groups:
        for axis in group.axes:
            torn = replace(group, axes=tuple(other for other in group.axes if other != axis))
            assert change(network, PermutationSpec((torn,)), x) > 1e-4


class Summed(nn.Module):
    """A head of attention in sums over letters, with embedded places, [batch, token, 4] -> [batch, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Linear(4, 6), nn.Embedding(7, 6)
        self.query, self.key, self.value = (nn.Parameter(torch.randn(6, n)) for n in (5, 5, 4))
        self.mix, self.readout = nn.Parameter(torch.randn(6, 6)), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        key = torch.einsum("ij,jk", self.mix, self.key)
        x = self.embed(x) + self.place(torch.arange(7))
        query, key = (torch.einsum("btd, de -> bte", x, w) for w in (self.query, key))
        scores = torch.softmax(torch.einsum("bqe,bke->bqk", query, key) + query @ key.mT, -1)
        return self.readout(torch.einsum("bqk,bkd,de->bqe", scores, x, self.value).mean(1))


def test_sums_over_letters_embeddings_and_swapped_axes_are_followed() -> None:
    network, x = Summed(), probe(2, 7, 4)
    spec = derive(network, x)
    assert sorted(group.size for group in spec.groups) == [4, 5, 6, 6]
    assert change(network, spec, x) < 1e-12
    for group in spec.groups:
        for axis in group.axes:
            torn = replace(group, axes=tuple(other for other in group.axes if other != axis))
            assert change(network, PermutationSpec((torn,)), x) > 1e-4


@pytest.mark.parametrize(
    ("between", "words"),
    [
        (nn.Conv2d(6, 6, 3, groups=2), r"aten\.conv2d\.default in 1 has several groups of channels"),
        (nn.GroupNorm(3, 6), r"aten\.group_norm\.default in 1 has several groups of channels"),
        (nn.BatchNorm2d(6), r"aten\.batch_norm\.default in 1 has running statistics"),
        (nn.Conv2d(6, 12, 3, groups=6), r"aten\.conv2d\.default in 1 has several groups of channels"),
        (nn.ConvTranspose2d(6, 6, 3), r"aten\.conv_transpose2d\.input in 1 has no rule"),
        (nn.PixelShuffle(1), r"aten\.pixel_shuffle\.default in 1 has no rule"),
        (nn.GLU(1), r"aten\.glu\.default in 1 has no rule"),
        (Then(lambda x: x[:, :3]), r"aten\.slice\.Tensor in 1 takes some of neurons"),
        (
            Then(lambda x: torch.einsum("...i,...i->...i", x, x)),
            r"aten\.einsum\.default in 1 with an ellipsis joins neurons",
        ),
        (Then(lambda x: torch.cat([x, x], 1)), r"aten\.cat\.default in 1 joins neurons"),
        (
            Then(lambda x: nn.functional.pad(x, (0, 0, 0, 0, 1, 1))),
            r"aten\.pad\.default in 1 adds to neurons",
        ),
    ],
)
def test_what_permutes_channels_only_in_part_is_refused(between: nn.Module, words: str) -> None:
    network = nn.Sequential(nn.Conv2d(2, 6, 3), between, MeanOfPositions(), nn.LazyLinear(3))
    network(probe(2, 2, 9, 9).float())
    with pytest.raises(DerivationError, match=words):
        derive(network, probe(2, 2, 9, 9))


def test_batch_normalisation_without_running_statistics_permutes_with_its_channels() -> None:
    norm = nn.BatchNorm2d(6, track_running_stats=False)
    network = nn.Sequential(nn.Conv2d(2, 6, 3), norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    x = probe(4, 2, 9, 9)
    (group,) = derive(network, x).groups
    assert dict(group.axes) == {"0.weight": 0, "0.bias": 0, "1.weight": 0, "1.bias": 0, "4.weight": 1}
    assert change(network, PermutationSpec((group,)), x) < 1e-12


def test_figlu_leaves_no_permutation_of_channels() -> None:
    network = ResNetSpec(depth=8, width=0.25).build((3, 8, 8), 3)
    block = network.stages[0][0]
    replace_activations(block, probe(1, 4, 8, 8).float(), None, seed=0)
    free = [group.name for group in derive(network, probe(2, 3, 8, 8)).groups]
    assert free == ["stages.1.0.conv1", "stages.1.0.conv2", "stages.2.0.conv1", "stages.2.0.conv2"]
    replace_activations(network, probe(1, 3, 8, 8).float(), None, seed=0)
    assert derive(network, probe(2, 3, 8, 8)).groups == ()


def test_figlu_leaves_no_permutation() -> None:
    network = MLPSpec(width=8).build((4,), 3)
    replace_activations(network, probe(2, 4).float(), None, seed=0)
    assert derive(network, probe(5, 4)).groups == ()


def test_one_gated_layer_leaves_the_others_free() -> None:
    network = MLPSpec(width=8).build((4,), 3)
    replace_activations(network.hidden[1], probe(2, 8).float(), None, seed=0)
    assert [group.name for group in derive(network, probe(5, 4)).groups] == ["hidden.0", "hidden.2"]


class FixedEntries(nn.Module):
    """W-Asymmetry as a parametrisation: F + D * W with constant F and D."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.register_buffer("mask", (torch.rand(shape) > 0.3).float())
        self.register_buffer("fixed", torch.randn(shape))

    def forward(self, weight: Tensor) -> Tensor:
        return self.fixed * (1 - self.mask) + self.mask * weight


def test_fixed_entries_pin_both_sides_of_their_layer() -> None:
    network = MLPSpec(width=8, depth=3).build((4,), 3)
    middle = network.hidden[1].linear
    parametrize.register_parametrization(middle, "weight", FixedEntries(middle.weight.shape))
    assert [group.name for group in derive(network, probe(5, 4)).groups] == ["hidden.2"]


def test_derivation_leaves_the_network_as_it_was() -> None:
    network = MLPSpec(width=4).build((4,), 3).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    derive(network, probe(5, 4))
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_an_operation_without_a_rule_is_named() -> None:
    network = nn.Sequential(nn.Linear(4, 6), nn.Softmin(1), Then(lambda x: x.cumsum(1)), nn.Linear(6, 3))
    with pytest.raises(
        DerivationError, match=r"aten\.cumsum\.default in 2 has no rule .* axis 0 of 0\.weight"
    ):
        derive(network, probe(5, 4))


@pytest.mark.parametrize(
    "function",
    [lambda x: x + x.flip(1), lambda x: x + torch.cat([x, x], 1)[:, :6]],
    ids=["unknown", "joined"],
)
def test_what_has_no_rule_is_refused_also_where_its_result_is_added_to_its_neurons(
    function: Callable[[Tensor], Tensor],
) -> None:
    """Not taken for neurons in a fixed order, which would hide those of the first map that can be permuted."""
    network = nn.Sequential(nn.Linear(4, 6), Then(function), nn.Linear(6, 3))
    with pytest.raises(DerivationError, match=r"neurons that can be permuted: axis 0 of 0\.weight"):
        derive(network, probe(5, 4))


def test_an_operation_without_a_rule_may_prepare_inputs_and_outputs() -> None:
    class Sorted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = MLPSpec(width=6, depth=1).build((4,), 3)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.inner(torch.cat([x[:, 2:], x.sort(1).values[:, :2]], 1))
            return logits + logits.cumsum(1)

    network, x = Sorted(), probe(5, 4)
    spec = derive(network, x)
    assert [group.name for group in spec.groups] == ["inner.hidden.0"]
    assert change(network, spec, x) < 1e-12


@pytest.mark.parametrize("shape", [(2, 3), (-1,)], ids=["split", "merged with the batch"])
def test_neurons_that_a_view_splits_or_merges_are_refused(shape: tuple[int, ...]) -> None:
    class Viewed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.first(x)
            hidden = hidden.reshape(*((len(x), *shape) if len(shape) > 1 else shape)).tanh()
            return self.second(hidden.reshape(len(x), 6))

    with pytest.raises(
        DerivationError, match=r"aten\.reshape\.default in the network itself .* first\.weight"
    ):
        derive(Viewed(), probe(5, 4))


@SEVERAL
@given(seed=st.integers(0, 2**32), pairs=st.integers(1, 3))
def test_permutations_act_as_a_group(seed: int, pairs: int) -> None:
    network = MLPSpec(width=5, depth=2).build((4,), 3)
    spec = derive(network, probe(2, 4))
    draw = np.random.default_rng(seed)
    first, second = symmetry.random(spec, draw, pairs), symmetry.random(spec, draw, pairs)
    stacked = {
        name: torch.from_numpy(draw.normal(size=(pairs, *w.shape))) for name, w in weights(network).items()
    }
    one_by_one = symmetry.permute(symmetry.permute(stacked, spec, first), spec, second)
    at_once = symmetry.permute(stacked, spec, symmetry.compose(first, second))
    undone = symmetry.permute(one_by_one, spec, symmetry.invert(symmetry.compose(first, second)))
    unmoved = symmetry.permute(stacked, spec, symmetry.identity(spec, pairs))
    for name, weight in stacked.items():
        assert torch.equal(one_by_one[name], at_once[name])
        assert torch.equal(undone[name], weight)
        assert torch.equal(unmoved[name], weight)


def test_a_stack_is_permuted_as_its_members_are() -> None:
    network = Residual()
    spec = derive(network, probe(2, 4))
    permutations = symmetry.random(spec, np.random.default_rng(0), pairs=3)
    stacked = {name: torch.stack([w, 2 * w, -w]) for name, w in weights(network).items()}
    together = symmetry.permute(stacked, spec, permutations)
    for pair in range(3):
        own = {name: p[pair] for name, p in permutations.items()}
        alone = symmetry.permute({name: w[pair] for name, w in stacked.items()}, spec, own)
        assert all(torch.equal(alone[name], w[pair]) for name, w in together.items())


def test_what_does_not_fit_is_refused_by_name() -> None:
    network = MLPSpec(width=5, depth=1).build((4,), 3)
    spec, original = derive(network, probe(2, 4)), weights(network)
    with pytest.raises(ValueError, match=r"hidden\.0: got none"):
        symmetry.permute(original, spec, {})
    with pytest.raises(ValueError, match=r"hidden\.0: got shape \[4\]; it takes \[5\]"):
        symmetry.permute(original, spec, {"hidden.0": torch.arange(4)})
    with pytest.raises(ValueError, match=r"parameter readout\.weight is missing"):
        symmetry.permute(
            {n: w for n, w in original.items() if n != "readout.weight"}, spec, symmetry.identity(spec)
        )
    with pytest.raises(ValueError, match="cannot be permuted"):
        symmetry.permute(
            {n: w[None].repeat(2, *[1] * w.dim()) for n, w in original.items()},
            spec,
            symmetry.identity(spec, 3),
        )
