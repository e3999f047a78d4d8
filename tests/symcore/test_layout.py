"""The order of a network's layers is that of its graph, in whatever order they are registered."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from test_controls import NETWORKS, SHAPES
from torch import Tensor, nn
from torch.nn import functional as F

from symcore import asymmetry, controls
from symcore.align.repair import estimate, hidden_maps, repairable
from symcore.landscape.layerwise import layers
from symcore.networks import registered
from symcore.networks.layout import layout, read
from symcore.networks.mlp import MLPSpec
from symcore.networks.registered import RegisteredSpec, register
from symcore.population import Design, build
from symcore.symmetry import permutations
from symcore.treatments import FixedBiases, Standard, Treatment, WAsymmetric

SHAPE = (8, 8)
PARTS: dict[str, Callable[[], nn.Module]] = {
    "conv1": lambda: nn.Conv2d(1, 4, 3),
    "norm1": lambda: nn.BatchNorm2d(4),
    "conv2": lambda: nn.Conv2d(4, 6, 3, bias=False),
    "norm2": lambda: nn.GroupNorm(1, 6),
    "linear": lambda: nn.Linear(6 * 4, 12),
    "readout": lambda: nn.Linear(12, 10),
}


class Ordered(nn.Module):
    """Convolutions with norms, a hidden linear map and a readout, registered in an order of choice."""

    def __init__(self, order: list[str]) -> None:
        super().__init__()
        for name in order:
            self.add_module(name, PARTS[name]())

    def forward(self, x: Tensor) -> Tensor:
        """Logits, [batch, class]."""
        x = F.max_pool2d(torch.relu(self.norm1(self.conv1(x[:, None]))), 2)
        x = torch.relu(self.norm2(self.conv2(F.pad(x, (1, 1, 1, 1)))))
        x = F.adaptive_avg_pool2d(x, 2).flatten(1)
        logits: Tensor = self.readout(torch.relu(self.linear(x)))
        return logits


FORWARD = list(PARTS)
ORDERS = {
    "readout first": [*FORWARD[::-1]],
    "norms last": ["conv1", "conv2", "linear", "readout", "norm2", "norm1"],
}
OTHER = pytest.mark.parametrize("order", ORDERS)


@pytest.fixture(autouse=True)
def _own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Registrations of one test."""
    monkeypatch.setattr(registered, "_registrations", {})
    yield
    registered._checked.cache_clear()


def own(name: str, made: Callable[[], nn.Module]) -> RegisteredSpec:
    register(name, lambda _shape, _classes: made())
    return RegisteredSpec(name=name)


def ordered(order: list[str]) -> RegisteredSpec:
    return own(" ".join(order), lambda: Ordered(order))


def fixed(network: RegisteredSpec, treatment: Treatment) -> asymmetry.Asymmetry:
    found = build(Design(network, treatment, SHAPE, 10, (0,))).asymmetry
    assert found is not None
    return found


@OTHER
@pytest.mark.parametrize("treatment", [WAsymmetric(), FixedBiases()], ids=lambda t: t.kind)
def test_the_same_entries_are_fixed_in_whatever_order_layers_are_registered(
    order: str, treatment: Treatment
) -> None:
    expected, found = (fixed(ordered(names), treatment) for names in (FORWARD, ORDERS[order]))
    assert list(found.fixed) == list(expected.fixed)
    for name, f in expected.fixed.items():
        assert torch.equal(found.fixed[name], f)
        assert torch.equal(found.trainable[name], expected.trainable[name])


def test_the_readout_is_last_and_the_biases_are_those_that_act() -> None:
    """A bias that BatchNorm takes out gives way to the norm's, as one that is missing does to that of the norm behind."""
    found = layout(ordered(ORDERS["readout first"]).build(SHAPE, 10))
    assert found.maps == ("conv1.weight", "conv2.weight", "linear.weight", "readout.weight")
    assert found.biases == ("norm1.bias", "norm2.bias", "linear.bias")


@OTHER
def test_the_same_neurons_and_layers_are_seen_in_whatever_order_they_are_registered(order: str) -> None:
    expected, found = (ordered(names).build(SHAPE, 10) for names in (FORWARD, ORDERS[order]))
    groups = [
        {frozenset(group.axes) for group in permutations.derive(network, torch.zeros(2, *SHAPE)).groups}
        for network in (expected, found)
    ]
    assert groups[0] == groups[1]
    assert layers(found) == layers(expected)
    assert list(layers(found)["conv1"]) == ["conv1.weight", "conv1.bias", "norm1.weight", "norm1.bias"]


@OTHER
def test_repair_gives_the_spread_of_the_ends_in_whatever_order_layers_are_registered(order: str) -> None:
    population = build(Design(ordered(ORDERS[order]), Standard(), SHAPE, 10, (0, 1)))
    a, b = ({name: w[end : end + 1] for name, w in population.effective().items()} for end in (0, 1))
    images = torch.randn(32, *SHAPE, generator=torch.Generator().manual_seed(0))
    found = estimate(population.network, a, b, {}, images, torch.tensor([0.5]).numpy())
    corrected = repairable(population.network, images[:2])
    middle = {name: (w + b[name])[0] / 2 for name, w in a.items()} | {n: c[0, 0] for n, c in found.items()}

    def spread(network: nn.Module, weights: dict[str, Tensor]) -> Tensor:
        seen: list[Tensor] = []
        hook = network.get_submodule("linear").register_forward_hook(lambda _m, _x, y: seen.append(y.std(0)))
        torch.func.functional_call(network, weights, (images,))
        hook.remove()
        return seen[0]

    ends = [spread(population.network, {name: w[0] for name, w in end.items()}) for end in (a, b)]
    torch.testing.assert_close(spread(corrected, middle), (ends[0] + ends[1]) / 2, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "lstm"] + ["mlp of batch norms"])
def test_the_labs_networks_are_registered_in_the_order_of_their_graphs(name: str) -> None:
    """But for LSTM's gates, which stand side by side."""
    shape = SHAPES.get(name, SHAPE)
    network = NETWORKS.get(name, MLPSpec(width=6, norm="batch")).build(shape, 10)
    assert layout(network) == read(permutations.trace(network, torch.zeros(2, *shape)))


class Functions(nn.Module):
    """Maps whose weights are parameters of its own, beside learned positions, a scale and a norm of maps."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Parameter(torch.randn(10, 6))
        self.scale, self.positions = nn.Parameter(torch.ones(1, 1, 6)), nn.Parameter(torch.randn(1, 8, 6))
        self.norm = nn.LayerNorm([8, 6])
        self.into, self.into_bias = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        """Logits, [batch, class]."""
        x = F.linear(x, self.into, self.into_bias) * self.scale + self.positions
        return F.linear(torch.relu(self.norm(x)).mean(1), self.out)


def test_learned_positions_scales_and_norms_are_no_maps() -> None:
    network = own("functions", Functions)
    assert list(fixed(network, WAsymmetric()).fixed) == ["into", "out"]
    assert list(controls.hidden_biases(network.build(SHAPE, 10))) == ["into_bias"]
    assert layers(network.build(SHAPE, 10)) == {
        "into": ["into", "into_bias", "scale", "positions", "norm.weight", "norm.bias"],
        "out": ["out"],
    }


def test_repair_refuses_hidden_maps_that_are_no_modules() -> None:
    network = own("functions", Functions).build(SHAPE, 10)
    with pytest.raises(ValueError, match=r"repair: into are weights of hidden maps .* accepted: .*Linear"):
        hidden_maps(network, torch.zeros(2, *SHAPE))


class Tied(nn.Module):
    """Two hidden maps with one weight, and a bias each."""

    def __init__(self) -> None:
        super().__init__()
        self.readout, self.first, self.second = nn.Linear(6, 10), nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight, self.into = self.first.weight, nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, [batch, class]."""
        logits: Tensor = self.readout(torch.relu(self.second(self.first(self.into(x)).relu())).mean(1))
        return logits


def test_maps_with_one_weight_are_one_layer_with_a_bias_each_and_both_are_repaired() -> None:
    network = own("tied", Tied).build(SHAPE, 10)
    assert layout(network).maps == ("into.weight", "first.weight", "readout.weight")
    assert layout(network).biases == ("into.bias", "first.bias", "second.bias")
    assert [group.size for group in permutations.derive(network, torch.zeros(2, *SHAPE)).groups] == [6]
    assert hidden_maps(network, torch.zeros(2, *SHAPE)) == ["first", "second", "into"]


class Steps(nn.Module):
    """Reads rows with a cell of its own, in which the map that is named as the lab's from a hidden state is that from the input."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.ModuleDict({"hidden": nn.Linear(8, 6)})
        self.state, self.readout = nn.Linear(6, 6), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, [batch, class]."""
        h = torch.zeros(len(x), 6)
        for row in x[:, :3].unbind(1):
            h = torch.tanh(self.rows["hidden"](row) + self.state(h))
        logits: Tensor = self.readout(h)
        return logits


def test_a_map_is_recurrent_for_what_it_does_and_not_for_its_name() -> None:
    network = own("steps", Steps)
    assert layout(network.build(SHAPE, 10)).recurrent == ("state.weight",)
    drawn = fixed(network, WAsymmetric())
    assert [int((~d[0]).sum()) for d in drawn.trainable.values()] == [4, 3, 3]
